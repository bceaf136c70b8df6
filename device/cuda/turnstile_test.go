//go:build linux

package cuda_test

import (
	"context"
	"slices"
	"testing"

	"github.com/isobar-project/isobar/device"
)

// Memory is given back when nothing is being made, call by call: who waits for a grant does not
// wait for that. What is made later holds it up no more.
func TestGivingBackGivesWay(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	old := scratch(t, d, 4*mib)
	r.Hold("cuMemCreate", true)
	made := make(chan error, 1)
	var fresh device.Segment
	go func() {
		var err error
		fresh, err = d.Create(context.Background(), 4*mib, device.CreateOptions{})
		made <- err
	}()
	if !r.Await("cuMemCreate", 1) {
		t.Fatal("nothing is being made")
	}
	ending := []string{"cuMemUnmap", "cuMemAddressFree", "cuMemRelease"}
	before := count(r, ending)
	ended := make(chan error, 1)
	go func() { ended <- d.Destroy(old) }()
	d.AwaitGivingWay()
	if now := count(r, ending); !slices.Equal(now, before) {
		t.Errorf("calls of %q: %v, then %v", ending, before, now)
	}
	r.Hold("cuMemCreate", false)
	must(t, <-made)
	must(t, <-ended)
	if fresh.Bytes() != 4*mib {
		t.Errorf("made %d bytes", fresh.Bytes())
	}

	// While giving back is in a call, something is made.
	r.Hold("cuMemUnmap", true)
	go func() { ended <- d.Destroy(fresh) }()
	if !r.Await("cuMemUnmap", 1) {
		t.Fatal("nothing is given back")
	}
	next := scratch(t, d, 4*mib)
	r.Hold("cuMemUnmap", false)
	must(t, <-ended)
	must(t, d.Destroy(next))
	works(t, d)
}
