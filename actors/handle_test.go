package actors_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// model writes a small model's file and returns its path.
func (h *timed) model(name string, seed uint64) string {
	h.t.Helper()
	path := filepath.Join(h.roots, name+".safetensors")
	if err := weightstest.Sized(4*mib, seed).WriteSafetensors(path); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *timed) command(tenant, id string, action schemas.Action, data any) answer {
	return <-h.send(&actors.Command{Tenant: tenant, Action: action, RequestID: id, Chosen: id != "", Data: data})
}

// A load that is answered as completed has a handle: at first, when it is asked again, and
// when its operation is fetched, whoever the model belongs to.
func TestACompletedLoadHasAHandle(t *testing.T) {
	slow := &slowFill{filled: make(chan struct{}, 64), may: make(chan struct{})}
	h := openTimed(t, nil, func(c *actors.Config) {
		slow.Driver = c.Devices[0].Driver
		c.Devices[0].Driver = slow
	})
	load := &schemas.LoadModelRequest{Name: "m", Path: h.model("m", 1), Shared: true}
	r := h.send(&actors.Command{Tenant: "red", Action: schemas.ActionLoadModel, RequestID: "first", Wait: time.Second, Data: load})
	<-slow.filled
	h.pass(time.Second)
	pending, ok := (<-r).data.(*schemas.Pending)
	if !ok {
		t.Fatalf("the load is not pending: %+v", pending)
	}
	joined := h.send(&actors.Command{Tenant: "blue", Action: schemas.ActionLoadModel, RequestID: "second", Chosen: true, Wait: time.Hour, Data: load})
	h.pass(0)
	close(slow.may)
	completed := func(what string, a answer) {
		t.Helper()
		l, ok := a.data.(*schemas.LoadModelReply)
		if !ok || !l.Loaded || l.Handle == nil {
			t.Fatalf("%s: %+v, %v", what, a.data, a.err)
		}
	}
	completed("the second client", <-joined)
	fetch := func() *schemas.GetOperationReply {
		t.Helper()
		a := h.command("red", "", schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: pending.OperationID, WaitMs: 60_000})
		if a.err != nil {
			t.Fatal(a.err)
		}
		return a.data.(*schemas.GetOperationReply)
	}
	completed("the operation", answer{data: fetch().Operation.Result})
	again := func() answer { return h.command("blue", "second", schemas.ActionLoadModel, load) }
	completed("asked again", again())

	if a := h.command("red", "", schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "m"}); a.err != nil {
		t.Fatal(a.err)
	}
	if a := again(); a.err == nil || a.err.Code != schemas.CodeStaleHandle {
		t.Fatalf("asked again of a model that is gone: %+v, %v", a.data, a.err)
	}
	if op := fetch().Operation; op.Status != schemas.StatusFailed || op.Result != nil || op.Error == nil || op.Error.ErrorCode != schemas.CodeStaleHandle {
		t.Fatalf("the operation of a model that is gone: %+v", op)
	}
}
