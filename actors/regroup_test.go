package actors_test

import (
	"bytes"
	"testing"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// On a full device a grant is made between blocks of its owner that are moved together: nobody
// maps them, and their bytes are what they were.
func TestAGrantBetweenBlocksThatWereMoved(t *testing.T) {
	h, _, _ := two(t, nil, func(c *actors.Config) { c.Devices[0].Limit = 64 * mib })
	const size = 5 * mib
	stay := map[int]string{}
	var gone []string
	for i := range 12 { // a segment of 64 MiB
		id := h.allocate(schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: size, Class: schemas.ClassState}).AllocationID
		h.paint(id, i+1)
		if i%2 == 0 {
			stay[i+1] = id
		} else {
			gone = append(gone, id)
		}
	}
	for _, id := range gone {
		h.deallocate(id)
	}
	in := scratch("gpu-0", 2*size)
	in.TimeoutSeconds = new(int64) // it does not queue
	dry := <-h.send(&actors.Command{Action: schemas.ActionAllocate, Data: &in, RequestID: "dry", DryRun: true})
	is(t, "foreseen", dry.data.(*schemas.DryRunReply).Plan.Outcome, schemas.PlanGranted)
	got := h.allocate(in)
	h.paint(got.AllocationID, 99)
	for i, id := range stay {
		if !bytes.Equal(h.content(id, size), bytes.Repeat([]byte{byte(i)}, size)) {
			t.Errorf("grant %d is not what it was", i)
		}
	}
	moved := 0
	for _, id := range stay {
		r := call[*schemas.GetAllocationReply](t, h.house, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: id, IncludeHistory: true})
		for _, e := range r.History {
			if e.Event == "moved" {
				moved++
			}
		}
	}
	is(t, "moved", moved, 1)
	h.fails(schemas.CodeOutOfMemory, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 30 * mib, TimeoutSeconds: new(int64)})
}
