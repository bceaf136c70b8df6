package actors_test

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/schemas"
)

// While nobody can reach the node nobody can renew: the clock of leases stands still, and
// goes on with some grace.
func TestLeasesStandStillWhileTheNodeCannotBeReached(t *testing.T) {
	h := openTimed(t, nil)
	short := h.allocate(schemas.AllocateRequest{SizeBytes: 4 * mib, LeaseSeconds: ptr[int64](60)})
	long := h.allocate(schemas.AllocateRequest{SizeBytes: 4 * mib, LeaseSeconds: ptr[int64](600)})
	h.pass(50 * time.Second)
	h.Reach(false)
	h.Reach(false)
	h.pass(time.Hour)
	if !h.there(short.AllocationID) || !h.there(long.AllocationID) {
		t.Fatal("a lease ran out that nobody could have renewed")
	}
	h.Reach(true)
	h.Reach(true)
	h.pass(29 * time.Second)
	if !h.there(short.AllocationID) {
		t.Fatal("no grace after the return")
	}
	h.pass(2 * time.Second)
	if h.there(short.AllocationID) {
		t.Fatal("a lease that nobody renewed goes on for ever")
	}
	// The long one had 550 s left, of which 31 have passed.
	h.pass(518 * time.Second)
	if !h.there(long.AllocationID) {
		t.Fatal("the time away was counted")
	}
	h.pass(2 * time.Second)
	if h.there(long.AllocationID) {
		t.Fatal("the lease was not taken up again")
	}
}
