package actors_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// In every state that grants, releases and waiting requests can make, the dry run of an
// allocate foresees what the same request then meets: granted, queued or refused, and the
// place in the queue; and the dry run itself changes nothing.
func TestDryRunForeseesAllocate(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		h := openTimed(outer, nil)
		defer h.close()
		held := []string{}
		for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
			if len(held) > 0 && rapid.IntRange(0, 3).Draw(t, "release") == 0 {
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				h.deallocate(held[i])
				held = append(held[:i], held[i+1:]...)
				h.pass(0)
				continue
			}
			size, patience := rapid.Int64Range(1, 700).Draw(t, "MiB")*mib, rapid.SampledFrom([]int64{0, 30}).Draw(t, "patience")
			priority := rapid.IntRange(-1, 1).Draw(t, "priority")
			class := rapid.SampledFrom([]schemas.Class{schemas.ClassScratch, schemas.ClassState, schemas.ClassReservation}).Draw(t, "class")
			if rapid.IntRange(0, 9).Draw(t, "never") == 0 {
				size += 1024 * mib
			}
			in := func() *schemas.AllocateRequest {
				return &schemas.AllocateRequest{SizeBytes: size, TimeoutSeconds: &patience, Priority: priority, Class: class}
			}
			before := h.state()
			dry := <-h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "dry", DryRun: true, Data: in()})
			if dry.err != nil {
				t.Fatalf("the dry run failed: %v", dry.err)
			}
			plan := dry.data.(*schemas.DryRunReply).Plan
			if after := h.state(); after != before {
				t.Fatalf("the dry run changed %s to %s", before, after)
			}
			id := fmt.Sprint("step ", step)
			r := h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: id, Wait: time.Second, Data: in()})
			outcome, position := schemas.PlanQueued, 0
			patient := 10 * time.Second // memory is made by workers
			if plan.Outcome == schemas.PlanQueued {
				h.pass(0)
				patient = 0
			}
			select {
			case a := <-r:
				outcome = schemas.PlanRefused
				if g, ok := a.data.(*schemas.AllocateReply); ok {
					outcome = schemas.PlanGranted
					held = append(held, g.AllocationID)
				}
			case <-time.After(patient):
				for i, w := range h.waiting() {
					if w.SizeBytes == size && w.Priority == priority && i+1 == plan.Position {
						position = i + 1
					}
				}
			}
			h.pass(0)
			if outcome != plan.Outcome || position != plan.Position {
				t.Fatalf("%d MiB, patience %d, priority %d, %s: foreseen %+v, met %s at %d", size/mib, patience, priority, class, plan, outcome, position)
			}
		}
	})
}

func (h *timed) waiting() []schemas.Waiting {
	h.t.Helper()
	return call[*schemas.GetQueueReply](h.t, h.house, schemas.ActionGetQueue, &schemas.GetQueueRequest{}).Waiting
}

// state is what a dry run must leave as it is. Idle memory may go back to the driver meanwhile.
func (h *timed) state() string {
	h.t.Helper()
	s := call[*schemas.GetStatusReply](h.t, h.house, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: "gpu-0"})
	m := s.MemoryInfo
	return fmt.Sprint(m.UsedMemory, m.FreeMemory+m.PooledMemory, m.ReservedMemory, len(s.Allocations), s.UsageStats.GrantsTotal, s.UsageStats.RefusalsTotal, len(h.waiting()))
}
