//go:build linux

package cuda_test

import (
	"context"
	"testing"

	"github.com/isobar-project/isobar/device/hostram"
)

// What comes down into memory that had been another model's needs no processor, and stays
// registered from one to the next.
func TestWhatComesDownIntoUsedMemory(t *testing.T) {
	r := newRig(t, true)
	must(t, r.Configure(2, 256*mib, ""))
	d := r.open(t, 0)
	host, err := hostram.New(hostram.Config{ID: "ram-0", StockBytes: 256 * mib})
	must(t, err)
	t.Cleanup(func() { must(t, host.Close()) })
	ctx := context.Background()
	const n = 66 * mib
	must(t, d.MakeLanes())
	content := noise(n + 1)
	var pinned, copies int
	before := r.Live().Pinned
	for life := range 3 {
		up, down := weights(t, d, content[life%2:][:n]), fresh(t, host, n)
		calls := r.Calls("cuMemcpyDtoHAsync_v2")
		must(t, d.Push(ctx, down, 0, up, 0, n))
		copies = r.Calls("cuMemcpyDtoHAsync_v2") - calls
		d.AwaitWarm()
		must(t, host.Seal(down))
		holds(t, "down", host, down, 0, content[life%2:][:n])
		if life == 0 {
			pinned = r.Calls("cuMemHostRegister_v2")
		}
		must(t, d.Destroy(up))
		must(t, host.Destroy(down))
	}
	if copies != 2 { // 64 and 2 MiB
		t.Errorf("down by %d copies, want 2", copies)
	}
	if got := r.Calls("cuMemHostRegister_v2"); got != pinned {
		t.Errorf("%d registrations, after the first life %d", got, pinned)
	}
	up, down := weights(t, d, content[:n]), fresh(t, host, n)
	r.Fail("cuMemcpyDtoHAsync_v2", 2, invalidValue)
	if err := d.Push(ctx, down, 0, up, 0, n); err == nil {
		t.Error("the copy did not fail")
	}
	must(t, host.Destroy(down))
	must(t, host.Close())
	if got := r.Live().Pinned; got != before || d.RegisteredBytes() != 0 {
		t.Errorf("%d pieces and %d bytes stay registered, before %d", got, d.RegisteredBytes(), before)
	}
}
