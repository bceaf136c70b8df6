package actors_test

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// strewn leaves few small grants in many segments of gpu-0, each painted with its number.
func (h *timed) strewn() (stay map[int]string) {
	stay = map[int]string{}
	var ids []string
	for i := range 40 {
		ids = append(ids, h.allocate(scratch("gpu-0", 300_000)).AllocationID)
		h.paint(ids[i], i+1)
	}
	for i, id := range ids {
		if i%5 == 0 {
			stay[i+1] = id
		} else {
			h.deallocate(id)
		}
	}
	return stay
}

func (h *timed) whole(stay map[int]string) {
	h.t.Helper()
	for i, id := range stay {
		if !bytes.Equal(h.content(id, 300_000), bytes.Repeat([]byte{byte(i)}, 300_000)) {
			h.t.Errorf("grant %d is not what it was", i)
		}
	}
}

func (h *timed) optimization(kind schemas.EventKind, requestID string) *schemas.OptimizationEvent {
	h.t.Helper()
	return h.events.await(h.t, string(kind), func(e schemas.Event) bool {
		o, ok := e.Data.(*schemas.OptimizationEvent)
		return ok && e.Event == kind && o.RequestID == requestID
	}).Data.(*schemas.OptimizationEvent)
}

// An optimize by defragmentation does what its dry run says, and says what it did.
func TestOptimizeDefragments(t *testing.T) {
	h, _, _ := two(t, nil)
	stay := h.strewn()
	in := &schemas.OptimizeRequest{DeviceID: "gpu-0", OptimizationType: schemas.OptimizeDefragment}
	send := func(id string, dry bool) answer {
		return <-h.send(&actors.Command{Action: schemas.ActionOptimize, Data: in, RequestID: id, DryRun: dry})
	}
	for _, id := range stay {
		in.PreserveAllocations = append(in.PreserveAllocations, id)
	}
	if r := send("kept", false).data.(*schemas.OptimizeReply); r.MovedBytes != 0 {
		t.Errorf("with all to stay where they are %d bytes were moved", r.MovedBytes)
	}
	in.PreserveAllocations = nil
	plan := send("dry", true).data.(*schemas.DryRunReply).Plan
	r := send("real", false).data.(*schemas.OptimizeReply)
	if r.MovedBytes == 0 || r.FreedBytes == 0 || len(r.Steps) != 1 {
		t.Fatalf("optimize answered %+v", r)
	}
	s := r.Steps[0]
	is(t, "the step", []any{s.Kind, s.Subject, s.FreedBytes, s.MovedBytes}, []any{"defragment", "gpu-0", r.FreedBytes, r.MovedBytes})
	var models, moved, freed, segments int64
	if n, err := fmt.Sscanf(plan.Reason, "%d models would be released for 0 bytes, %d bytes would be moved, and %d bytes of %d segments released", &models, &moved, &freed, &segments); n != 4 {
		t.Fatalf("the dry run says %q: %v", plan.Reason, err)
	}
	is(t, "foreseen", []any{plan.Outcome, models, moved, freed}, []any{schemas.PlanGranted, int64(0), r.MovedBytes, r.FreedBytes})
	if back := r.Before.PooledMemory - r.After.PooledMemory; back < r.FreedBytes { // the last of what was deallocated may go as well
		t.Errorf("%d bytes went back, %d were told", back, r.FreedBytes)
	}
	is(t, "used", r.After.UsedMemory, r.Before.UsedMemory)
	h.whole(stay)
	h.optimization(schemas.EventStarted, "real")
	is(t, "the event", h.optimization(schemas.EventCompleted, "real").FreedBytes, r.FreedBytes)

	plan = send("dry again", true).data.(*schemas.DryRunReply).Plan
	r = send("again", false).data.(*schemas.OptimizeReply)
	is(t, "done twice", []any{plan.Reason, r.MovedBytes, r.FreedBytes, len(r.Steps)}, []any{"every target holds already", int64(0), int64(0), 0})
}

// All is everything: idle memory goes back, models go, blocks move together.
func TestOptimizeByAll(t *testing.T) {
	h, _, _ := two(t, nil)
	stay := h.strewn()
	idle := h.allocate(scratch("gpu-0", 32*mib)).AllocationID
	h.deallocate(idle)
	load := &schemas.LoadModelRequest{Name: "m", Path: h.model("m", 1), DeviceID: "gpu-0"}
	if a := h.command("", "load", schemas.ActionLoadModel, load); a.err != nil {
		t.Fatal(a.err)
	}
	in := &schemas.OptimizeRequest{DeviceID: "gpu-0", OptimizationType: schemas.OptimizeAll, TargetUsagePercentage: ptr(0.0)}
	plan := (<-h.send(&actors.Command{Action: schemas.ActionOptimize, Data: in, RequestID: "dry", DryRun: true})).data.(*schemas.DryRunReply).Plan
	r := (<-h.send(&actors.Command{Action: schemas.ActionOptimize, Data: in, RequestID: "all"})).data.(*schemas.OptimizeReply)
	freed := map[string]int64{}
	var sum int64
	for _, s := range r.Steps {
		freed[s.Kind] += s.FreedBytes
		sum += s.FreedBytes
	}
	if freed["drop"] == 0 || freed["defragment"] == 0 || r.FreedBytes != sum || r.After.ModelMemory != 0 || r.MovedBytes == 0 {
		t.Errorf("optimize answered %+v", r)
	}
	text := fmt.Sprintf("1 models would be released for %d bytes", freed["drop"])
	if freed["trim"] > 0 {
		text += fmt.Sprintf(", %d idle bytes given back", freed["trim"])
	}
	text += fmt.Sprintf(", %d bytes would be moved, and %d bytes of ", r.MovedBytes, freed["defragment"])
	if len(plan.Reason) < len(text) || plan.Reason[:len(text)] != text || len(plan.Evict) != 1 {
		t.Errorf("the dry run says %+v; done was %q", plan, text)
	}
	h.whole(stay)
}

// An optimize that meets another defragmentation says so; one that is cancelled stops it.
func TestOptimizeWhileBlocksAreMoved(t *testing.T) {
	h, dev, _ := two(t, nil)
	h.strewn()
	in := &schemas.OptimizeRequest{DeviceID: "gpu-0", OptimizationType: schemas.OptimizeDefragment}
	dev.closed.Store(true)
	first := h.send(&actors.Command{Action: schemas.ActionDefragment, Data: &schemas.DefragmentRequest{DeviceID: "gpu-0", MaxBytesToMove: ptr[int64](math.MaxInt32)}, RequestID: "d"})
	<-dev.at
	h.fails(schemas.CodeBusy, schemas.ActionOptimize, in)
	plan := (<-h.send(&actors.Command{Action: schemas.ActionOptimize, Data: in, RequestID: "dry", DryRun: true})).data.(*schemas.DryRunReply).Plan
	is(t, "foreseen", plan.Outcome, schemas.PlanRefused)
	all := &schemas.OptimizeRequest{DeviceID: "gpu-0", OptimizationType: schemas.OptimizeAll, TargetUsagePercentage: ptr(100.0)}
	r := call[*schemas.OptimizeReply](t, h.house, schemas.ActionOptimize, all)
	last := r.Steps[len(r.Steps)-1]
	is(t, "the last step", []any{last.Kind, last.MovedBytes, r.MovedBytes}, []any{"defragment", int64(0), int64(0)})
	dev.open()
	<-first

	h, dev, _ = two(t, nil)
	stay := h.strewn()
	dev.closed.Store(true)
	running := h.send(&actors.Command{Action: schemas.ActionOptimize, Data: in, RequestID: "o", Wait: time.Second})
	<-dev.at
	h.pass(0)
	h.pass(time.Second)
	id := (<-running).data.(*schemas.Pending).OperationID
	c := h.send(&actors.Command{Action: schemas.ActionCancelOperation, Data: &schemas.CancelOperationRequest{OperationID: id, WaitMs: 10000}, RequestID: "c"})
	h.pass(0)
	dev.open()
	is(t, "cancelled", (<-c).data.(*schemas.CancelOperationReply).Operation.Status, schemas.StatusCancelled)
	h.whole(stay)
	if a := <-h.send(&actors.Command{Action: schemas.ActionOptimize, Data: in, RequestID: "next", Wait: time.Hour}); a.err != nil {
		t.Errorf("the next one: %v", a.err)
	}
}
