package gputest

import (
	"slices"
	"testing"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// CUresults that are injected.
const (
	invalidValue = 1
	outOfMemory  = 2
	launchFailed = 719 // ends the process's context
)

// Whatever call of the driver fails once: the command is refused with the right code or done
// all the same, nothing of it is left, and the next one works, there and on the other device.
func TestWhatFailsIsRolledBack(t *testing.T) {
	h := start(t, place(t))
	x := consume(t, h)
	allocate := func(h *host) error {
		_, err := call[schemas.AllocateReply](h, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 40 * mib})
		return err
	}
	for _, c := range []struct {
		name, call string
		n, code    int
		times      int // that it fails
		want       schemas.Code
	}{
		{"no memory for once", "cuMemCreate", 1, outOfMemory, 1, ""}, // tried again
		{"an address that is refused", "cuMemMap", 1, invalidValue, 1, schemas.CodeInternalError},
		{"a descriptor that is refused", "cuMemExportToShareableHandle", 1, invalidValue, 1, schemas.CodeInternalError},
		{"access that is refused", "cuMemSetAccess", 1, invalidValue, 1, schemas.CodeInternalError},
		{"a clear that fails", "cuMemsetD8Async", 1, invalidValue, 1, schemas.CodeInternalError},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.t, x.t = t, t
			h.breaks(breakage{Fail: c.call, N: c.n, Code: c.code})
			err := allocate(h)
			switch fail, _ := err.(*schemas.Error); {
			case c.want == "" && err != nil, c.want != "" && (fail == nil || fail.Code != c.want):
				t.Fatalf("%v, not %q", err, c.want)
			}
			if c.want == "" {
				done[schemas.CleanupReply](h, schemas.ActionCleanup, &schemas.CleanupRequest{DeviceID: "gpu-0", Force: true, Confirm: true})
			}
			h.empty()
			h.works(x, "gpu-0")
			h.works(x, "gpu-1")
			h.empty()
		})
	}
	h.t, x.t = t, t

	// A load that fails in the midst leaves nothing, and can be tried again.
	path := h.model("m", 24*mib, 1)
	h.breaks(breakage{Fail: "cuMemcpyHtoDAsync_v2", N: 3, Code: invalidValue})
	no := false
	in := &schemas.LoadModelRequest{Name: "m", Path: path, DeviceID: "gpu-0", KeepWarm: &no}
	refused[schemas.LoadModelReply](h, schemas.CodeInternalError, schemas.ActionLoadModel, in)
	h.empty()
	r := done[schemas.LoadModelReply](h, schemas.ActionLoadModel, in)
	x.tell(order{Do: "map", Claim: r.Handle.Claim, Model: true})
	x.tell(order{Do: "model", ID: r.AllocationIDs[0], Bytes: 24 * mib, Seed: 1})
	x.tell(order{Do: "unmap", ID: r.AllocationIDs[0]})
	done[schemas.UnloadModelReply](h, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "m"})
	h.empty()

	// While one GPU's driver sits in an unmap, that GPU and the other go on.
	g := h.allocate("gpu-0", 20*mib)
	h.breaks(breakage{Hold: "cuMemUnmap", On: true})
	done[schemas.DeallocateReply](h, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID})
	for _, id := range []string{"gpu-0", "gpu-1"} {
		h.allocate(id, 16*mib)
	}
	h.breaks(breakage{Hold: "cuMemUnmap", On: false})
	done[schemas.CleanupReply](h, schemas.ActionCleanup, &schemas.CleanupRequest{Force: true, Confirm: true})
	h.empty()
	h.stop()
}

// A GPU that falls off the bus is lost alone: the node stays, says so, and serves the others.
func TestAGPUFallsOffTheBus(t *testing.T) {
	h := start(t, place(t))
	x := consume(t, h)
	h.allocate("gpu-0", 20*mib)
	kept := h.allocate("gpu-1", 20*mib)
	x.tell(order{Do: "map", Claim: kept.Handle.Claim})
	x.tell(order{Do: "write", ID: kept.AllocationID, Seed: 5})
	h.breaks(breakage{Lose: true, Lost: 0})
	until(t, "the loss is noticed", func() bool { return h.device("gpu-0").Health == schemas.HealthLost })
	if d := h.device("gpu-0"); len(d.HealthReasons) == 0 {
		t.Errorf("it says no reason: %+v", d)
	}
	refused[schemas.AllocateReply](h, schemas.CodeDeviceLost, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 4 * mib})
	x.tell(order{Do: "check", ID: kept.AllocationID, Seed: 5})
	h.works(x, "gpu-1")
	done[schemas.AllocateReply](h, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: mib})
	st := done[schemas.GetStatusReply](h, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: schemas.DeviceIDAll})
	if !slices.ContainsFunc(st.Warnings, func(w schemas.HealthWarning) bool {
		return w.Code == schemas.WarnDeviceLost && w.DeviceID == "gpu-0" && w.Fix != ""
	}) {
		t.Errorf("no warning of it: %+v", st.Warnings)
	}
}

// An error that ends the process's context ends the process, and the next node has the device
// and every byte again. Where that is of no use it is not done for ever.
func TestAStickyErrorIsTakenOver(t *testing.T) {
	h := start(t, place(t))
	x := consume(t, h)
	g := h.allocate("gpu-0", 20*mib)
	x.tell(order{Do: "map", Claim: g.Handle.Claim})
	x.tell(order{Do: "write", ID: g.AllocationID, Seed: 6})
	for range 2 {
		h.breaks(breakage{Fail: "cuMemCreate", N: 1, Code: launchFailed})
		_, _ = call[schemas.AllocateReply](h, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 4 * mib}) // refused, or the node has gone
		if code := h.ended(); code != node.ExitLost {
			t.Fatalf("the node ended with code %d", code)
		}
		h = start(t, h.dir)
		if r := x.tell(order{Do: "resumed"}); r.Resumed != 1 || len(r.Lost) != 0 {
			t.Fatalf("the reader: %+v", r)
		}
		x.tell(order{Do: "check", ID: g.AllocationID, Seed: 6})
		h.works(x, "gpu-0")
	}
	h.breaks(breakage{Fail: "cuMemCreate", N: 1, Code: launchFailed})
	refused[schemas.AllocateReply](h, schemas.CodeDeviceLost, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 4 * mib})
	h.works(x, "gpu-1")
	if d := h.device("gpu-0"); d.Health != schemas.HealthLost {
		t.Errorf("the third time: %+v", d)
	}
}
