package actors_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/schemas"
)

// under begins a transfer of gpu-0's grant to gpu-1, whose gate is closed, and returns once its
// copy has come to the gate and the command has been answered «running».
func (h *timed) under(dev *gated, in *schemas.TransferRequest, requestID string) string {
	h.t.Helper()
	dev.closed.Store(true)
	r := h.send(&actors.Command{Action: schemas.ActionTransfer, Data: in, RequestID: requestID, Wait: time.Second})
	<-dev.at
	h.pass(0) // so that the wait has begun
	h.pass(time.Second)
	a := <-r
	p, ok := a.data.(*schemas.Pending)
	if !ok || p.Status != schemas.StatusRunning || p.OperationID == "" {
		h.t.Fatalf("the transfer answered %+v", a)
	}
	return p.OperationID
}

// A transfer that does not end well leaves all as it was, and says why. While a grant is being
// moved nobody can map it or write to it.
func TestTransferLeavesNothingBehind(t *testing.T) {
	for _, c := range []struct {
		name   string
		move   bool
		code   schemas.Code
		status schemas.OperationStatus
		event  schemas.EventKind
		end    func(h *timed, dev *gated, id, source, target string)
	}{
		{"cancelled", true, schemas.CodeCancelled, schemas.StatusCancelled, schemas.EventCancelled, func(h *timed, dev *gated, id, source, _ string) {
			h.fails(schemas.CodeAllocationInUse, schemas.ActionClear, &schemas.ClearRequest{AllocationID: source})
			h.fails(schemas.CodeAllocationInUse, schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: source, TargetDeviceID: "gpu-1", Move: true})
			p := <-h.send(&actors.Command{Action: schemas.ActionCancelTransfer, Data: &schemas.CancelTransferRequest{TransferID: id}, RequestID: "p", DryRun: true})
			if p.err != nil || p.data.(*schemas.DryRunReply).Plan.Outcome != schemas.PlanGranted {
				h.t.Errorf("the dry run of the cancel says %+v", p)
			}
			r := h.send(&actors.Command{Action: schemas.ActionCancelTransfer, Data: &schemas.CancelTransferRequest{TransferID: id}, RequestID: "x"})
			h.pass(0)
			dev.open()
			if a := <-r; a.err != nil || a.data.(*schemas.CancelTransferReply).Operation.Status != schemas.StatusCancelled {
				h.t.Errorf("cancel answered %+v", a)
			}
		}},
		{"by cancel_operation", false, schemas.CodeCancelled, schemas.StatusCancelled, schemas.EventCancelled, func(h *timed, dev *gated, id, _, _ string) {
			r := h.send(&actors.Command{Action: schemas.ActionCancelOperation, Data: &schemas.CancelOperationRequest{OperationID: id, WaitMs: 10000}, RequestID: "x"})
			h.pass(0)
			dev.open()
			if a := <-r; a.err != nil || a.data.(*schemas.CancelOperationReply).Operation.Status != schemas.StatusCancelled {
				h.t.Errorf("cancel answered %+v", a)
			}
		}},
		{"driver", true, schemas.CodeTransferFailed, schemas.StatusFailed, schemas.EventFailed, func(_ *timed, dev *gated, _, _, _ string) {
			dev.Faults().FailCopy(2, errors.New("the bus is loose"))
			dev.open()
		}},
		{"target released", false, schemas.CodeTransferFailed, schemas.StatusFailed, schemas.EventFailed, func(h *timed, dev *gated, _, _, target string) {
			r := h.send(&actors.Command{Action: schemas.ActionDeallocate, Data: &schemas.DeallocateRequest{AllocationID: target}, RequestID: "y"})
			h.pass(0)
			dev.open()
			if a := <-r; a.err != nil {
				h.t.Errorf("deallocate answered %+v", a)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, _, dev := two(t, nil)
			g := h.allocate(scratch("gpu-0", 40*mib))
			h.paint(g.AllocationID, 3)
			id := h.under(dev, &schemas.TransferRequest{AllocationID: g.AllocationID, TargetDeviceID: "gpu-1", Move: c.move}, "t")
			list := call[*schemas.GetAllocationsReply](t, h.house, schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{DeviceID: "gpu-1"}).Allocations
			if len(list) != 1 {
				t.Fatalf("%d grants on the target", len(list))
			}
			target := list[0].AllocationID
			h.fails(schemas.CodeStaleHandle, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: target})
			h.fails(schemas.CodeStaleHandle, schemas.ActionClear, &schemas.ClearRequest{AllocationID: target})
			c.end(h, dev, id, g.AllocationID, target)
			got := <-h.send(&actors.Command{Action: schemas.ActionGetOperation, Data: &schemas.GetOperationRequest{OperationID: id, WaitMs: 60000}, RequestID: "q"})
			op := got.data.(*schemas.GetOperationReply).Operation
			if op.Status != c.status || op.Error == nil || op.Error.ErrorCode != c.code {
				t.Errorf("the operation is %+v, %+v", op, op.Error)
			}
			if h.there(target) || h.used("gpu-1") != 0 {
				t.Error("the target is still there")
			}
			if !bytes.Equal(h.content(g.AllocationID, 40*mib), bytes.Repeat([]byte{3}, 40*mib)) {
				t.Error("the source is not as it was")
			}
			h.paint(g.AllocationID, 4) // and is nobody's but its owner's
			if kinds := h.transferEvents(); kinds[0] != schemas.EventStarted || kinds[len(kinds)-1] != c.event {
				t.Errorf("events %v", kinds)
			}
		})
	}
}

// A source that is released ends its transfer first, and waits for it.
func TestReleaseOfASourceEndsItsTransfer(t *testing.T) {
	h, _, dev := two(t, nil)
	g := h.allocate(scratch("gpu-0", 40*mib))
	id := h.under(dev, &schemas.TransferRequest{AllocationID: g.AllocationID, TargetDeviceID: "gpu-1"}, "t")
	freed := h.send(&actors.Command{Action: schemas.ActionDeallocate, Data: &schemas.DeallocateRequest{AllocationID: g.AllocationID}, RequestID: "d"})
	h.pass(0)
	if h.used("gpu-0") != 40*mib {
		t.Error("the source was given up while it is read")
	}
	dev.open()
	if a := <-freed; a.err != nil || h.used("gpu-0") != 0 || h.used("gpu-1") != 0 {
		t.Errorf("deallocate answered %+v, %d and %d bytes used", a, h.used("gpu-0"), h.used("gpu-1"))
	}
	call[*schemas.GetOperationReply](t, h.house, schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: id, WaitMs: 60000}) // awaits its end
	op := call[*schemas.GetTransferReply](t, h.house, schemas.ActionGetTransfer, &schemas.GetTransferRequest{TransferID: id}).Operation
	if op.Status != schemas.StatusFailed || op.Error.ErrorCode != schemas.CodeTransferFailed {
		t.Errorf("the transfer is %+v", op)
	}
}

// A transfer stands in line for its target's memory like any request, and can be cancelled there.
func TestTransferWaitsInLine(t *testing.T) {
	h, _, _ := two(t, nil)
	g := h.allocate(scratch("gpu-0", 400*mib))
	full := h.allocate(scratch("gpu-1", 800*mib))
	send := func(id string) reply {
		return h.send(&actors.Command{Action: schemas.ActionTransfer, Data: &schemas.TransferRequest{AllocationID: g.AllocationID, TargetDeviceID: "gpu-1"}, RequestID: id, Wait: time.Second})
	}
	first := send("t1")
	h.inLine()
	h.pass(time.Second)
	p := (<-first).data.(*schemas.Pending)
	if p.Status != schemas.StatusQueued || p.Position != 1 {
		t.Errorf("the transfer answered %+v", p)
	}
	q := call[*schemas.GetQueueReply](t, h.house, schemas.ActionGetQueue, &schemas.GetQueueRequest{DeviceID: "gpu-1"}).Waiting
	if len(q) != 1 || q[0].OperationID != p.OperationID {
		t.Errorf("the queue is %+v", q)
	}
	c := call[*schemas.CancelTransferReply](t, h.house, schemas.ActionCancelTransfer, &schemas.CancelTransferRequest{TransferID: p.OperationID})
	if c.Operation.Status != schemas.StatusCancelled {
		t.Errorf("cancel answered %+v", c)
	}
	second := send("t2")
	h.inLine()
	h.deallocate(full.AllocationID)
	a := <-second
	if a.err != nil || !h.there(a.data.(*schemas.TransferReply).AllocationID) {
		t.Errorf("once there is room the transfer answered %+v", a)
	}
}

// inLine waits until somebody stands in gpu-1's queue and the followers know.
func (h *timed) inLine() {
	h.t.Helper()
	h.events.await(h.t, "somebody waits", func(e schemas.Event) bool {
		return e.Event == schemas.EventQueued
	})
	h.pass(0)
}

// Progress is told of at most ten times a second.
func TestTransferProgress(t *testing.T) {
	h, _, dev := two(t, nil)
	g := h.allocate(scratch("gpu-0", 40*mib)) // ten turns
	dev.closed.Store(true)
	r := h.send(&actors.Command{Action: schemas.ActionTransfer, Data: &schemas.TransferRequest{AllocationID: g.AllocationID, TargetDeviceID: "gpu-1"}, RequestID: "t"})
	for range 9 {
		<-dev.at
		h.pass(60 * time.Millisecond)
		dev.pass <- struct{}{}
	}
	<-dev.at
	dev.open()
	if a := <-r; a.err != nil {
		t.Fatal(a.err)
	}
	h.pass(0)
	want := []schemas.EventKind{schemas.EventStarted, schemas.EventProgress, schemas.EventProgress, schemas.EventProgress, schemas.EventProgress, schemas.EventCompleted}
	if kinds := h.transferEvents(); !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
}

// The outcome of a transfer is remembered, and a copy that nobody heard of is undone.
func TestTransferIsIdempotent(t *testing.T) {
	h, _, _ := two(t, nil)
	g := h.allocate(scratch("gpu-0", 4*mib))
	send := func(in *schemas.TransferRequest, id string) answer {
		return <-h.send(&actors.Command{Action: schemas.ActionTransfer, Data: in, RequestID: id, Chosen: true})
	}
	in := &schemas.TransferRequest{AllocationID: g.AllocationID, TargetDeviceID: "gpu-1"}
	first := send(in, "t")
	one := first.data.(*schemas.TransferReply)
	two := send(in, "t").data.(*schemas.TransferReply)
	if !two.Replayed || two.AllocationID != one.AllocationID || two.TransferID != one.TransferID || h.used("gpu-1") != 4*mib {
		t.Errorf("again: %+v, at first %+v", two, one)
	}
	first.undo()
	h.pass(0)
	if h.there(one.AllocationID) || !h.there(g.AllocationID) {
		t.Error("a copy that nobody heard of is still there, or its source is not")
	}
	in.Move = true
	if moved := send(in, "m"); moved.undo != nil {
		t.Error("a move can be undone although nothing is left of its source")
	}
}

// A crash in the middle of a move: the half-made target is undone, the source is whole. A crash
// after the target was made whole: the source is released.
func TestTakeOverOfATransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := shelf{}
		world := func(c *actors.Config) {
			c.Keeper, c.Inherited = kept, maps.Clone(kept)
			c.Watch = func(*os.File, func()) (func(), error) { return func() {}, nil }
		}
		first, _, dev := two(t, nil, world)
		g := first.allocate(schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 40 * mib, Class: schemas.ClassState})
		first.paint(g.AllocationID, 3)
		dev.closed.Store(true)
		first.send(&actors.Command{Action: schemas.ActionTransfer, Data: &schemas.TransferRequest{AllocationID: g.AllocationID, TargetDeviceID: "gpu-1", Move: true}, RequestID: "t"})
		<-dev.at
		synctest.Wait()
		after := map[string][]byte{} // what the crash leaves
		for actor, mem := range first.ledger {
			after[actor] = bytes.Clone(mem)
		}
		go dev.open()
		first.close()

		first.ledger = after
		next, _, _ := two(t, first, world)
		synctest.Wait()
		if next.used("gpu-1") != 0 {
			t.Error("a half-made target is still there")
		}
		if !bytes.Equal(next.content(g.AllocationID, 40*mib), bytes.Repeat([]byte{3}, 40*mib)) {
			t.Error("the source is not whole")
		}
		next.close()
	})
}

// Small grants are moved together; whoever maps one keeps it where it is.
func TestDefragment(t *testing.T) {
	h, dev, _ := two(t, nil)
	var ids []string
	for i := range 40 { // some to each segment
		g := h.allocate(scratch("gpu-0", 300_000))
		h.paint(g.AllocationID, i+1)
		ids = append(ids, g.AllocationID)
	}
	var stay []int
	for i := range ids {
		if i%5 == 0 {
			stay = append(stay, i)
		} else {
			h.deallocate(ids[i])
		}
	}
	dry := <-h.send(&actors.Command{Action: schemas.ActionDefragment, Data: &schemas.DefragmentRequest{DeviceID: "gpu-0", Strategy: schemas.DefragmentFull}, RequestID: "p", DryRun: true})
	if dry.err != nil || dry.data.(*schemas.DryRunReply).Plan.Outcome != schemas.PlanGranted {
		t.Fatalf("the dry run answered %+v", dry)
	}
	none := call[*schemas.DefragmentReply](t, h.house, schemas.ActionDefragment, &schemas.DefragmentRequest{DeviceID: "gpu-0", MaxBytesToMove: ptr[int64](0)})
	if none.MovedBytes != 0 || none.Efficiency != nil || none.Before != none.After {
		t.Errorf("with nothing to move: %+v", none)
	}

	w, err := h.hello(dataplane.Hello{Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	handle := call[*schemas.GetHandleReply](t, h.house, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: ids[0]}).Handle
	f := h.mapped(w.SessionID, handle.Claim)
	defer f.Close()

	dev.closed.Store(true)
	running := h.send(&actors.Command{Action: schemas.ActionDefragment, Data: &schemas.DefragmentRequest{DeviceID: "gpu-0", Strategy: schemas.DefragmentFull}, RequestID: "d"})
	<-dev.at
	h.fails(schemas.CodeBusy, schemas.ActionDefragment, &schemas.DefragmentRequest{DeviceID: "gpu-0"})
	dev.open()
	a := <-running
	if a.err != nil {
		t.Fatal(a.err)
	}
	r := a.data.(*schemas.DefragmentReply)
	if r.MovedBytes == 0 || r.ReleasedBytes == 0 || r.SegmentsReleased == 0 || r.Efficiency == nil || r.After.Segments >= r.Before.Segments ||
		r.After.FragmentationPercentage > r.Before.FragmentationPercentage {
		t.Errorf("defragment answered %+v", r)
	}
	for _, i := range stay {
		if !bytes.Equal(h.content(ids[i], 300_000), bytes.Repeat([]byte{byte(i + 1)}, 300_000)) {
			t.Errorf("grant %d is not what it was", i)
		}
	}
	h.item(schemas.EventMoved, "")
	for _, kind := range []schemas.EventKind{schemas.EventStarted, schemas.EventCompleted} {
		h.events.await(t, string(kind), func(e schemas.Event) bool {
			o, ok := e.Data.(*schemas.OptimizationEvent)
			return ok && e.Event == kind && (kind == schemas.EventStarted || o.FreedBytes == r.ReleasedBytes && len(o.Steps) > 0)
		})
	}
	again := call[*schemas.DefragmentReply](t, h.house, schemas.ActionDefragment, &schemas.DefragmentRequest{DeviceID: "gpu-0", Strategy: schemas.DefragmentFull})
	if again.MovedBytes != 0 {
		t.Errorf("done twice it moves %d bytes again", again.MovedBytes)
	}
}

// A defragmentation that is cancelled stops before it has done all, and what it did is whole.
func TestDefragmentIsCancelled(t *testing.T) {
	h, dev, _ := two(t, nil)
	var ids []string
	for i := range 40 {
		g := h.allocate(scratch("gpu-0", 300_000))
		h.paint(g.AllocationID, i+1)
		ids = append(ids, g.AllocationID)
	}
	for i := range ids {
		if i%5 != 0 {
			h.deallocate(ids[i])
		}
	}
	dev.closed.Store(true)
	r := h.send(&actors.Command{Action: schemas.ActionDefragment, Data: &schemas.DefragmentRequest{DeviceID: "gpu-0", Strategy: schemas.DefragmentFull}, RequestID: "d", Wait: time.Second})
	<-dev.at
	h.pass(0) // so that the wait has begun
	h.pass(time.Second)
	id := (<-r).data.(*schemas.Pending).OperationID
	c := h.send(&actors.Command{Action: schemas.ActionCancelOperation, Data: &schemas.CancelOperationRequest{OperationID: id, WaitMs: 10000}, RequestID: "c"})
	h.pass(0)
	dev.open()
	if a := <-c; a.err != nil || a.data.(*schemas.CancelOperationReply).Operation.Status != schemas.StatusCancelled {
		t.Errorf("cancel answered %+v", a)
	}
	for i := 0; i < len(ids); i += 5 {
		if !bytes.Equal(h.content(ids[i], 300_000), bytes.Repeat([]byte{byte(i + 1)}, 300_000)) {
			t.Errorf("grant %d is not what it was", i)
		}
	}
}
