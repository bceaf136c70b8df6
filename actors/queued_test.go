package actors_test

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// A request that waits is an allocation in the state queued, under the id that its grant
// gets; events say what was asked for, what was given, for what, and how long it waited.
func TestQueuedRequestsAreListed(t *testing.T) {
	h := openTimed(t, nil)
	all := h.allocate(schemas.AllocateRequest{SizeBytes: 1024 * mib})
	const asked = 8*mib - 5
	r := h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "q", Wait: time.Hour,
		Data: &schemas.AllocateRequest{SizeBytes: asked, Purpose: "cache", TimeoutSeconds: ptr[int64](30)}})
	h.pass(0)
	list := func(in schemas.GetAllocationsRequest) []schemas.Allocation {
		t.Helper()
		return call[*schemas.GetAllocationsReply](t, h.house, schemas.ActionGetAllocations, &in).Allocations
	}
	queued := list(schemas.GetAllocationsRequest{Status: schemas.AllocationQueued})
	if len(queued) != 1 || queued[0].Status != schemas.AllocationQueued || queued[0].SizeBytes != asked || queued[0].GrantedBytes != 0 || queued[0].Purpose != "cache" ||
		!queued[0].CreatedAt.Equal(h.clock.Wall()) {
		t.Fatalf("queued are %+v", queued)
	}
	if n := len(list(schemas.GetAllocationsRequest{Status: schemas.AllocationQueued, Purpose: "other"})); n != 0 {
		t.Fatalf("%d for another purpose", n)
	}
	for _, in := range []schemas.GetAllocationsRequest{{}, {Status: schemas.AllocationActive}} {
		if l := list(in); len(l) != 1 || l[0].AllocationID != all.AllocationID {
			t.Fatalf("by %+v there are %+v", in, l)
		}
	}
	if i := h.item(schemas.EventQueued, ""); i.SizeBytes != asked || i.GrantedBytes != 0 || i.Purpose != "cache" {
		t.Fatalf("queued: %+v", i)
	}
	h.pass(3 * time.Second)
	h.deallocate(all.AllocationID)
	g := (<-r).data.(*schemas.AllocateReply)
	if g.AllocationID != queued[0].AllocationID || len(list(schemas.GetAllocationsRequest{Status: schemas.AllocationQueued})) != 0 {
		t.Fatalf("granted as %s, queued as %s", g.AllocationID, queued[0].AllocationID)
	}
	if i := h.item(schemas.EventAllocated, g.AllocationID); i.SizeBytes != asked || i.GrantedBytes != 8*mib || i.Purpose != "cache" || i.QueuedMs != 3000 {
		t.Fatalf("allocated: %+v", i)
	}
	h.deallocate(g.AllocationID)
	if i := h.item(schemas.EventDeallocated, g.AllocationID); i.SizeBytes != asked || i.GrantedBytes != 8*mib || i.Purpose != "cache" {
		t.Fatalf("deallocated: %+v", i)
	}
}
