//go:build linux

package cuda_test

import (
	"context"
	"testing"
	"time"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
)

// begun is weights that nothing was filled into yet.
func begun(t *testing.T, d *cuda.Driver, bytes int64) device.Segment {
	t.Helper()
	s, err := d.Begin(context.Background(), bytes, device.CreateOptions{Weights: true})
	must(t, err)
	return s
}

// The driver's books of what was given back are done by a creation that nobody waits for: once,
// when there was much, and nothing has been given back for a while.
func TestTheBooksAreDoneWhenNobodyWaits(t *testing.T) {
	r := newRig(t, true)
	must(t, r.Configure(2, 1024*mib, ""))
	d := r.open(t, 0)
	var list []device.Segment
	for range 4 {
		list = append(list, begun(t, d, 128*mib))
	}
	made := r.Calls("cuMemCreate")
	step := func(when string, wait time.Duration, want int) {
		t.Helper()
		r.clock.Advance(wait)
		if got := r.Calls("cuMemCreate") - made; got != want {
			t.Errorf("%s: %d creations, want %d", when, got, want)
		}
	}
	must(t, d.Destroy(list[0]))
	step("little was given back", time.Minute, 0)
	must(t, d.Destroy(list[1]))
	step("much was, just now", 39*time.Millisecond, 0)
	must(t, d.Destroy(list[2]))
	step("and more", 39*time.Millisecond, 0)
	before := r.Live()
	step("a while after", time.Millisecond, 1)
	r.nothingLeft(t, "the books are done", before)
	must(t, d.Destroy(list[3]))
	step("little was given back since", time.Minute, 1)
}

// What goes wrong with it is what the device has, not what somebody asked for.
func TestTheBooksCannotBeDone(t *testing.T) {
	r := newRig(t, true)
	must(t, r.Configure(2, 512*mib, ""))
	d := r.open(t, 0)
	give := func(code int32) {
		t.Helper()
		must(t, d.Destroy(begun(t, d, 256*mib)))
		r.Fail("cuMemCreate", 1, int(code))
		r.clock.Advance(time.Second)
	}
	give(outOfMemory)
	works(t, d)
	give(launchFailed)
	if sample, err := d.Sample(); err == nil || sample.Health != device.Lost {
		t.Errorf("after a sticky error the health is %v (%v)", sample.Health, err)
	}
}

// A driver that is closed does nothing more.
func TestTheBooksOfAClosedDriver(t *testing.T) {
	r := newRig(t, true)
	must(t, r.Configure(2, 512*mib, ""))
	d := r.open(t, 0)
	must(t, d.Destroy(begun(t, d, 256*mib)))
	made := r.Calls("cuMemCreate")
	must(t, d.Close())
	r.clock.Advance(time.Second)
	if got := r.Calls("cuMemCreate"); got != made {
		t.Errorf("%d creations after the end", got-made)
	}
}
