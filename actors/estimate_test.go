package actors_test

import (
	"testing"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// memoryOf is what the device has.
func (h *timed) memoryOf(device string) schemas.MemoryInfo {
	h.t.Helper()
	return call[*schemas.GetStatusReply](h.t, h.house, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: device}).MemoryInfo
}

// What a client says that its model will take is reserved before the files are read, and
// corrected to what they say: too little, too much or just right, the model is loaded, and
// counts what it takes. What could never fit is refused unread, as its dry run says.
func TestDeclaredSizes(t *testing.T) {
	h := openTimed(t, nil)
	before := h.memoryOf("gpu-0")
	for _, c := range []struct {
		name   string
		bytes  int64
		refuse bool
	}{{"none", 0, false}, {"little", 1, false}, {"much", 900 * mib, false}, {"impossible", 2 << 30, true}} {
		in := &schemas.LoadModelRequest{Name: c.name, Path: h.model(c.name, 1), EstimatedSizeBytes: &c.bytes}
		plan := <-h.send(&actors.Command{Tenant: "red", Action: schemas.ActionLoadModel, DryRun: true, Data: in})
		if p, ok := plan.data.(*schemas.DryRunReply); !ok || (p.Plan.Outcome == schemas.PlanRefused) != c.refuse {
			t.Errorf("%s: the dry run answers %+v, %v", c.name, plan.data, plan.err)
		}
		a := h.command("red", "", schemas.ActionLoadModel, in)
		if c.refuse {
			if a.err == nil || a.err.Code != schemas.CodeOutOfMemory {
				t.Errorf("%s: %+v, %v", c.name, a.data, a.err)
			}
			continue
		}
		r, ok := a.data.(*schemas.LoadModelReply)
		if !ok {
			t.Fatalf("%s: %v", c.name, a.err)
		}
		m := h.memoryOf("gpu-0")
		if took := m.UsedMemory - before.UsedMemory; took != r.Model.Residency[0].SizeBytes || m.ReservedMemory != before.ReservedMemory {
			t.Errorf("%s: %d bytes more are used, %d reserved, of a model of %d", c.name, took, m.ReservedMemory, r.Model.SizeBytes)
		}
		h.command("red", "", schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: c.name})
	}
	if after := h.memoryOf("gpu-0"); after.UsedMemory != before.UsedMemory {
		t.Errorf("%d bytes are used, %d were", after.UsedMemory, before.UsedMemory)
	}
}

// A load that comes to nothing leaves no reservation.
func TestReservationsOfLoadsThatComeToNothing(t *testing.T) {
	h := openTimed(t, nil)
	before := h.memoryOf("gpu-0")
	much := int64(512 * mib)
	a := h.command("red", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", Path: h.roots + "/nowhere.safetensors", EstimatedSizeBytes: &much})
	if a.err == nil {
		t.Fatal("a file that is not there was loaded")
	}
	if m := h.memoryOf("gpu-0"); m.UsedMemory != before.UsedMemory || m.ReservedMemory != before.ReservedMemory {
		t.Errorf("%d bytes are reserved", m.ReservedMemory)
	}
}
