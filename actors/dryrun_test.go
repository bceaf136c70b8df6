package actors_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// A dry run answers what the command itself is answered, whether it may be carried out, is
// refused, or names what does not exist; and it changes nothing, so that both can be asked
// one after the other.
func TestADryRunIsWhatBecomesOfIt(t *testing.T) {
	h := openTimed(t, nil)
	h.command("red", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "held", Path: h.model("held", 1)})
	h.command("red", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "free", Path: h.model("free", 2)})
	acquired, ok := h.command("red", "", schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: "held", LeaseSeconds: ptr[int64](60)}).data.(*schemas.AcquireModelReply)
	if !ok {
		t.Fatal("not acquired")
	}
	g := h.command("red", "", schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: mib}).data.(*schemas.AllocateReply)
	none := uuid.NewString()
	for _, c := range []struct {
		name   string
		tenant string
		action schemas.Action
		data   any
	}{
		{"release of an unknown reference", "red", schemas.ActionReleaseModel, &schemas.ReleaseModelRequest{ReferenceID: none}},
		{"release of another tenant's reference", "blue", schemas.ActionReleaseModel, &schemas.ReleaseModelRequest{ReferenceID: acquired.ReferenceID}},
		{"renewal of an unknown reference", "red", schemas.ActionRenew, &schemas.RenewRequest{ReferenceIDs: []string{none}, LeaseSeconds: 1}},
		{"renewal of a reference", "red", schemas.ActionRenew, &schemas.RenewRequest{ReferenceIDs: []string{acquired.ReferenceID}, LeaseSeconds: 60}},
		{"renewal of a grant", "red", schemas.ActionRenew, &schemas.RenewRequest{AllocationIDs: []string{g.AllocationID}, LeaseSeconds: 60}},
		{"renewal of another tenant's grant", "blue", schemas.ActionRenew, &schemas.RenewRequest{AllocationIDs: []string{g.AllocationID}, LeaseSeconds: 60}},
		{"unload of a model in use", "red", schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "held"}},
		{"unload of all, one in use", "red", schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: schemas.ModelNameAll}},
		{"unload of an unknown model", "red", schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "none"}},
		{"unload", "red", schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "free"}},
		{"acquisition of an unknown model", "red", schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: "none", LeaseSeconds: ptr[int64](1)}},
		{"acquisition", "red", schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: "free", LeaseSeconds: ptr[int64](1)}},
		{"load of another file", "red", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "held", Path: h.model("other", 3)}},
		{"release of a reference", "red", schemas.ActionReleaseModel, &schemas.ReleaseModelRequest{ReferenceID: acquired.ReferenceID}},
		{"deallocation of an unknown grant", "red", schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: none}},
		{"deallocation of another tenant's grant", "blue", schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID}},
		{"deallocation", "red", schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID}},
		{"limits that leave nothing", "red", schemas.ActionSetLimits, &schemas.SetLimitsRequest{DeviceID: "gpu-0", ReserveBytes: ptr[int64](1 << 40)}},
		{"limits", "red", schemas.ActionSetLimits, &schemas.SetLimitsRequest{DeviceID: "gpu-0", LimitBytes: ptr[int64](512 * mib)}},
		{"a grant that can never be", "red", schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 1 << 40}},
		{"a grant", "red", schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: mib}},
	} {
		plan := <-h.send(&actors.Command{Tenant: c.tenant, Action: c.action, RequestID: "dry", DryRun: true, Data: c.data})
		real := h.command(c.tenant, "", c.action, c.data)
		switch p, planned := plan.data.(*schemas.DryRunReply); {
		case !planned && (plan.err == nil || real.err == nil || plan.err.Code != real.err.Code):
			t.Errorf("%s: the dry run answers %+v, %v; the command %+v, %v", c.name, plan.data, plan.err, real.data, real.err)
		case planned && (p.Plan.Outcome == schemas.PlanGranted) != (real.err == nil):
			t.Errorf("%s: the dry run says %+v; the command answers %+v, %v", c.name, p.Plan, real.data, real.err)
		}
	}
}
