//go:build linux

package cuda_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/fake"
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
	d.AwaitGivingWay(1)
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

// Where making memory takes long and giving it back has much to do, what is being made is not
// kept waiting: each thread that gives back ends the call that it is in, and begins no other
// before the memory is there.
func TestMakingIsNotKeptWaiting(t *testing.T) {
	const many = 8
	r := newRig(t, true)
	d := r.open(t, 0)
	var old []device.Segment
	for range many {
		old = append(old, scratch(t, d, 2*mib))
	}
	for call, cost := range map[string]time.Duration{"cuMemCreate": 10 * time.Millisecond, "cuMemSetAccess": 10 * time.Millisecond,
		"cuMemUnmap": 200 * time.Microsecond, "cuMemAddressFree": 100 * time.Microsecond, "cuMemRelease": 100 * time.Microsecond} {
		r.Cost(call, cost)
	}
	recorded := r.Record()
	r.Hold("cuMemUnmap", true)
	var given sync.WaitGroup
	for _, s := range old {
		given.Go(func() {
			if err := d.Destroy(s); err != nil {
				t.Error(err)
			}
		})
	}
	if !r.Await("cuMemUnmap", many) {
		t.Fatal("nothing is given back")
	}
	r.Hold("cuMemCreate", true)
	made := make(chan error, 1)
	go func() {
		_, err := d.Create(context.Background(), 2*mib, device.CreateOptions{})
		made <- err
	}()
	if !r.Await("cuMemCreate", 1) {
		t.Fatal("nothing is being made")
	}
	r.Hold("cuMemUnmap", false) // they go on, as far as they do
	r.Hold("cuMemCreate", false)
	must(t, <-made)
	given.Wait()
	calls := recorded()
	first := slices.IndexFunc(calls, func(c fake.Call) bool { return c.Name == "cuMemCreate" })
	last := slices.IndexFunc(calls, func(c fake.Call) bool { return c.Name == "cuMemSetAccess" })
	if first < 0 || last < first || calls[last].End == 0 {
		t.Fatalf("recorded %+v", calls)
	}
	during, after := 0, 0
	for _, c := range calls {
		switch {
		case !slices.Contains([]string{"cuMemUnmap", "cuMemAddressFree", "cuMemRelease"}, c.Name):
		case c.Begin > calls[first].Begin && c.Begin < calls[last].End:
			during++
		case c.Begin > calls[last].End:
			after++
		}
	}
	if during > 0 || after != 2*many {
		t.Errorf("%d calls gave memory back while some was being made, and %d after that", during, after)
	}
}
