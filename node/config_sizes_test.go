package node

import (
	"fmt"
	"testing"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "7": 7, "1_000_000": 1e6, "20GiB": 20 << 30, "20 gib": 20 << 30, "1.5g": 3 << 29, "512MiB": 512 << 20,
		"1GB": 1e9, "1kB": 1000, "1K": 1024, "0.1b": 1, "1EiB": -1, "1152921504606846976": 1 << 60, "1024PiB": 1 << 60} {
		got, err := ParseSize(in)
		if want < 0 {
			if err == nil {
				t.Errorf("%q: got %d, want an error", in, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "-1", "1.2.3", "1__0", "_1", "1_", ".5", "5.", "1e9", "1 G B", "1152921504606846977", "2048PiB", "0x10", "1,5GiB", "∞"} {
		if got, err := ParseSize(bad); err == nil {
			t.Errorf("%q: got %d, want an error", bad, got)
		}
	}
}

func TestHumanSize(t *testing.T) {
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1<<20 - 1: "1.00 MiB", 10 << 20: "10.0 MiB", 999 << 20: "999 MiB",
		1000 << 20: "0.98 GiB", 1536 << 20: "1.50 GiB", 1 << 60: "1.00 EiB", -2048: "-2.00 KiB"} {
		if got := HumanSize(in); got != want {
			t.Errorf("%d: got %q, want %q", in, got, want)
		}
	}
}

// What is read is in range, and reads the same when it is written again.
func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"0", "20GiB", "1.5g", "1_000_000", "999999999999999999999", "1e9", "0.0000000001PiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if n < 0 || n > MaxSize {
			t.Fatalf("%q: %d is out of range", s, n)
		}
		if again, err := ParseSize(ExactSize(n)); err != nil || again != n {
			t.Fatalf("%q: %d is written as %q and read as %d, %v", s, n, ExactSize(n), again, err)
		}
	})
}

// A device that is accepted is sound, and reads the same when it is written again.
func FuzzParseDevice(f *testing.F) {
	for _, s := range []string{"ram:ram-0", "ram:ram-0=20GiB", "sim:gpu-0=24GiB,bandwidth=25GB/s,latency=10us", "sim:x=1GiB,latency=-1s", "::=", "ram:all"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDevice(s)
		if err != nil {
			return
		}
		if d.Bytes%deviceQuantum != 0 || d.Bytes != 0 && d.Bytes < MinDeviceBytes || d.Latency < 0 || d.BandwidthBytesPerSecond < 0 {
			t.Fatalf("%q: unsound %+v", s, d)
		}
		if again, err := ParseDevice(d.String()); err != nil || again != d {
			t.Fatalf("%q: %+v is written as %q and read as %+v, %v", s, d, d, again, err)
		}
	})
}

func ExampleParseSize() {
	for _, s := range []string{"20GiB", "1.5g", "1_000_000", "1GB"} {
		n, _ := ParseSize(s)
		fmt.Println(n, ExactSize(n), HumanSize(n))
	}
	// Output:
	// 21474836480 20GiB 20.0 GiB
	// 1610612736 1536MiB 1.50 GiB
	// 1000000 1000000 977 KiB
	// 1000000000 1000000000 954 MiB
}
