package actors_test

import (
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// operation asks for an operation by the request_id of its command.
func (h *timed) operation(tenant, requestID string) (schemas.Operation, *schemas.Error) {
	h.t.Helper()
	a := h.command(tenant, "", schemas.ActionGetOperation, &schemas.GetOperationRequest{RequestID: requestID})
	if a.err != nil {
		return schemas.Operation{}, a.err
	}
	return a.data.(*schemas.GetOperationReply).Operation, nil
}

// Who lost the answer to a command that was answered at once finds it by its request_id.
func TestOperationsOfCommandsAnsweredAtOnce(t *testing.T) {
	h := openTimed(t, nil)
	red := func(id string, action schemas.Action, data any) answer { return h.command("red", id, action, data) }
	red("slab", schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 64 << 10}) // the next one lies in its segment
	g := red("grant", schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 64 << 10}).data.(*schemas.AllocateReply)
	l := red("load", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", Path: h.model("m", 1)}).data.(*schemas.LoadModelReply)
	red("fail", schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 1 << 50})

	op, err := h.operation("red", "grant")
	if err != nil {
		t.Fatal(err)
	}
	is(t, "the operation", []any{op.Status, op.Action, op.RequestID, op.ProgressPercentage, op.Error}, []any{schemas.StatusCompleted, schemas.ActionAllocate, "grant", 100.0, (*schemas.OperationError)(nil)})
	r := op.Result.(*schemas.AllocateReply)
	if r.AllocationID != g.AllocationID || r.Handle == nil || r.Handle.Claim == g.Handle.Claim || r.Replayed {
		t.Errorf("the result is %+v, the answer was %+v", r, g)
	}
	same, _ := h.operation("red", "grant")
	if !strings.HasPrefix(op.OperationID, "test.") || same.OperationID != op.OperationID {
		t.Errorf("the operation is %s and then %s", op.OperationID, same.OperationID)
	}
	a := red("", schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: op.OperationID})
	is(t, "by its own id", a.data.(*schemas.GetOperationReply).Operation.RequestID, "grant")
	a = red("", schemas.ActionCancelOperation, &schemas.CancelOperationRequest{RequestID: "grant"})
	is(t, "cancelled too late", a.data.(*schemas.CancelOperationReply).Operation.Status, schemas.StatusCompleted)

	if op, err = h.operation("red", "load"); err != nil {
		t.Fatal(err)
	}
	if m := op.Result.(*schemas.LoadModelReply); m.Handle == nil || m.AllocationIDs[0] != l.AllocationIDs[0] {
		t.Errorf("the result of the load is %+v", m)
	}
	for _, none := range [][2]string{{"blue", "grant"}, {"red", "fail"}, {"red", "never"}} {
		if _, err := h.operation(none[0], none[1]); err == nil || err.Code != schemas.CodeOperationNotFound {
			t.Errorf("%s asks for %q: %v", none[0], none[1], err)
		}
	}

	// What was undone is no outcome; what is remembered is so for a time.
	for id, size := range map[string]int64{"at once": 64 << 10, "made": 32 * mib} {
		u := red(id, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: size})
		if _, err := h.operation("red", id); err != nil {
			t.Fatal(err)
		}
		u.undo()
		h.pass(0)
		if op, err := h.operation("red", id); err == nil {
			t.Errorf("an outcome that was undone is told: %+v", op)
		}
	}
	h.pass(11 * time.Minute)
	if op, err := h.operation("red", "grant"); err == nil {
		t.Errorf("after 11 minutes there is %+v", op)
	}
}

// The end of a lease is one time, whoever tells of it.
func TestALeaseEndsAtOneTime(t *testing.T) {
	h := open(t, gpu(t, "gpu-0", 64*mib)) // on the machine's own clock
	g := call[*schemas.AllocateReply](t, h, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 2 * mib, LeaseSeconds: ptr[int64](60)})
	r := call[*schemas.RenewReply](t, h, schemas.ActionRenew, &schemas.RenewRequest{AllocationIDs: []string{g.AllocationID}, LeaseSeconds: 600})
	for range 3 {
		a := call[*schemas.GetAllocationReply](t, h, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: g.AllocationID})
		if !a.Allocation.LeaseExpiresAt.Equal(r.Renewed[0].LeaseExpiresAt) {
			t.Errorf("renewed until %v, allocated until %v", r.Renewed[0].LeaseExpiresAt, a.Allocation.LeaseExpiresAt)
		}
	}
}

// A clear of a device is of the caller's tenant; an operator's is of everybody.
func TestWhomAClearIsOf(t *testing.T) {
	h := openTimed(t, nil)
	for _, tenant := range []string{"red", "blue"} {
		h.command(tenant, "", schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 4 * mib})
		if a := h.command(tenant, "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: tenant, Path: h.model(tenant, 1)}); a.err != nil {
			t.Fatal(a.err)
		}
	}
	clear := func(tenant string, role schemas.Role, dry bool) answer {
		return <-h.send(&actors.Command{Tenant: tenant, Role: role, Action: schemas.ActionClear, RequestID: "c", DryRun: dry, Wait: time.Minute,
			Data: &schemas.ClearRequest{DeviceID: "gpu-0", Confirm: true}})
	}
	has := func(tenant string) int {
		a := h.command(tenant, "", schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{DeviceID: "gpu-0"})
		return len(a.data.(*schemas.GetAllocationsReply).Allocations)
	}
	const each = 4*mib + 4*mib // the grant and the model
	foreseen := func(role schemas.Role, text string) {
		t.Helper()
		if p := clear("red", role, true).data.(*schemas.DryRunReply).Plan; p.Outcome != schemas.PlanGranted || !strings.Contains(p.Reason, text) {
			t.Errorf("foreseen is %+v, not %q", p, text)
		}
	}
	foreseen(schemas.RoleClient, "1 allocations of 4194304 bytes, and 4194304 bytes of the tenant's models")
	foreseen(schemas.RoleOperator, "2 allocations of 8388608 bytes, and 8388608 bytes of everybody's models")
	r := clear("red", schemas.RoleClient, false).data.(*schemas.ClearReply)
	is(t, "a client's clear", []any{r.ClearedBytes, has("red"), has("blue")}, []any{int64(each), 0, 2})
	r = clear("red", schemas.RoleOperator, false).data.(*schemas.ClearReply)
	is(t, "an operator's clear", []any{r.ClearedBytes, has("red"), has("blue")}, []any{int64(each), 0, 0})
}
