package device_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/isobar-project/isobar/device"
)

// The strings and numbers are promised on the wire.
func TestWireSpelling(t *testing.T) {
	for n, want := range []string{"Unknown", "RAM", "VRAM", "SharedMemory", "UnifiedMemory", "Unknown"} {
		if got := device.Type(n).String(); got != want {
			t.Errorf("Type(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range []string{"healthy", "degraded", "failing", "lost", "health(4)"} {
		if got := device.Health(n).String(); got != want {
			t.Errorf("Health(%d) = %q, want %q", n, got, want)
		}
	}
	if device.ReadOnly.String() != "ro" || device.ReadWrite.String() != "rw" {
		t.Errorf("modes are %q and %q, want ro and rw", device.ReadOnly, device.ReadWrite)
	}
	var zero device.Mode
	if zero != device.ReadOnly {
		t.Error("the zero mode must be the harmless one")
	}
}

func TestOutsideIsNeverNegative(t *testing.T) {
	for _, c := range []struct{ used, ours, want int64 }{
		{used: 10, ours: 4, want: 6},
		{used: 4, ours: 4, want: 0},
		{used: 3, ours: 4, want: 0},
	} {
		if got := (device.Sample{UsedBytes: c.used, OursBytes: c.ours}).OutsideBytes(); got != c.want {
			t.Errorf("used %d, ours %d: outside %d, want %d", c.used, c.ours, got, c.want)
		}
	}
}

// A caller branches on the sentinel and shows the whole message.
func ExampleErrOutOfMemory() {
	err := fmt.Errorf("create 64 MiB on ram-0: %w", device.ErrOutOfMemory)
	if errors.Is(err, device.ErrOutOfMemory) {
		fmt.Println("make room, then try again:", err)
	}
	// Output: make room, then try again: create 64 MiB on ram-0: out of device memory
}
