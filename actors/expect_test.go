package actors_test

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// pending gives a command that waits, and returns what it is answered after a second.
func (h *timed) pending(id string, action schemas.Action, data any) *schemas.Pending {
	h.t.Helper()
	r := h.send(&actors.Command{Action: action, RequestID: id, Wait: time.Second, Data: data})
	h.pass(0)
	h.pass(time.Second)
	a := <-r
	p, ok := a.data.(*schemas.Pending)
	if !ok {
		h.t.Fatalf("%s is answered %+v, %v", id, a.data, a.err)
	}
	return p
}

// How long a request waits is when the leases before it end, as far as they suffice.
func TestQueuedRequestsSayHowLong(t *testing.T) {
	h := openTimed(t, nil)
	first := h.allocate(schemas.AllocateRequest{SizeBytes: 512 * mib, LeaseSeconds: ptr[int64](100)})
	h.allocate(schemas.AllocateRequest{SizeBytes: 512 * mib, LeaseSeconds: ptr[int64](300)})
	wait := func(id string, patience int64) *schemas.Pending {
		t.Helper()
		return h.pending(id, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 400 * mib, TimeoutSeconds: ptr(patience)})
	}
	a := wait("a", 1000)
	is(t, "the first", []any{a.Status, a.Position, a.EstimatedMs}, []any{schemas.StatusQueued, 1, 99_000.0})
	b := wait("b", 1000)
	is(t, "the second", []any{b.Position, b.EstimatedMs}, []any{2, 298_000.0})
	c := wait("c", 100)
	is(t, "one that gives up before", []any{c.Position, c.EstimatedMs}, []any{3, 0.0})

	h.pass(7 * time.Second)
	op := func(id string) schemas.Operation {
		t.Helper()
		return call[*schemas.GetOperationReply](t, h.house, schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: id}).Operation
	}
	is(t, "later", op(a.OperationID).EstimatedMs, 90_000.0)
	h.deallocate(first.AllocationID)
	h.events.await(t, "the first is granted", func(e schemas.Event) bool {
		x, ok := e.Data.(*schemas.AllocationBatch)
		return ok && x.Items[0].Event == schemas.EventAllocated && x.Items[0].RequestID == "a"
	})
	h.pass(0)
	second := op(b.OperationID)
	is(t, "moved up", []any{second.Position, second.EstimatedMs}, []any{1, 290_000.0})
}

// How long a load takes is known from the last one.
func TestLoadsSayHowLong(t *testing.T) {
	slow := &slowFill{filled: make(chan struct{}, 64), may: make(chan struct{})}
	h := openTimed(t, nil, func(c *actors.Config) {
		slow.Driver = c.Devices[0].Driver
		c.Devices[0].Driver = slow
	})
	load := func(name string, seed uint64) *schemas.Pending {
		t.Helper()
		r := h.send(&actors.Command{Action: schemas.ActionLoadModel, RequestID: name, Wait: time.Second, Data: &schemas.LoadModelRequest{Name: name, Path: h.model(name, seed)}})
		<-slow.filled // so that the clock goes on only when the bytes are on their way
		h.pass(0)
		h.pass(time.Second)
		return (<-r).data.(*schemas.Pending)
	}
	first := load("a", 1)
	is(t, "nothing is known", first.EstimatedMs, 0.0)
	h.pass(time.Second)
	slow.may <- struct{}{}
	done := call[*schemas.GetOperationReply](t, h.house, schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: first.OperationID, WaitMs: 60_000})
	is(t, "the first", done.Operation.Status, schemas.StatusCompleted)
	second := load("b", 2)
	if second.EstimatedMs < 1000 || second.EstimatedMs > 4000 {
		t.Errorf("the second load says %v ms, the first took 2 s", second.EstimatedMs)
	}
	close(slow.may)
}
