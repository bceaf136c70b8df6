package gputest

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// model writes the file of a model.
func (h *host) model(name string, bytes int64, seed byte) string {
	h.t.Helper()
	path := filepath.Join(h.dir, "models", name+".safetensors")
	must(h.t, weightstest.Sized(bytes, uint64(seed)).WriteSafetensors(path))
	return path
}

func (h *host) load(name string, bytes int64, seed byte) *schemas.LoadModelReply {
	h.t.Helper()
	no := false
	return done[schemas.LoadModelReply](h, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: h.model(name, bytes, seed), DeviceID: "gpu-0", KeepWarm: &no})
}

// Memory of a GPU is granted, shared and read as it was written; a model is loaded there, and
// makes room for another; and all of it is as it was after the node has been killed.
func TestAGPUIsADevice(t *testing.T) {
	h := start(t, place(t))
	d := h.device("gpu-1")
	if d.Type != schemas.DeviceTypeVRAM || d.UUID == "" || d.Driver == "" || d.GranularityBytes != 2*mib || d.Health != schemas.HealthHealthy || !slices.Equal(d.Peers, []string{"gpu-0"}) {
		t.Errorf("listed as %+v", d)
	}
	if m := h.memory("gpu-0"); m.Type != schemas.DeviceTypeVRAM || m.TotalMemory != gpuBytes-4*mib || m.PhysicalMemory != gpuBytes {
		t.Errorf("its memory is %+v", m)
	}
	x := consume(t, h)
	small, large := h.allocate("gpu-0", mib), h.allocate("gpu-0", 16*mib)
	for i, g := range []*schemas.AllocateReply{small, large} {
		if g.Handle.Kind != schemas.HandleCUDAVMM {
			t.Fatalf("the handle is %+v", g.Handle)
		}
		x.tell(order{Do: "map", Claim: g.Handle.Claim})
		x.tell(order{Do: "check", ID: g.AllocationID})
		x.tell(order{Do: "write", ID: g.AllocationID, Seed: byte(7 + i)})
	}
	read := h.load("read", 36*mib, 3)
	x.tell(order{Do: "map", Claim: read.Handle.Claim, Model: true})
	x.tell(order{Do: "model", ID: read.AllocationIDs[0], Bytes: 36 * mib, Seed: 3})

	// One that nobody reads makes room for the next.
	h.load("idle", 36*mib, 4)
	next := h.load("next", 36*mib, 5)
	if len(next.Evicted) != 1 || next.Evicted[0].Model != "idle" {
		t.Fatalf("made room by %+v", next.Evicted)
	}
	before := h.memory("gpu-0")
	// Main memory keeps it where the way down was worth it, which is a matter of time.
	kept := len(done[schemas.GetModelInfoReply](h, schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{Name: "idle"}).Models[0].Residency)

	h.kill()
	h = start(t, h.dir)
	if r := x.tell(order{Do: "resumed"}); r.Resumed != 1 || len(r.Lost) != 0 {
		t.Fatalf("the reader: %+v", r)
	}
	if r := h.info.Info.Restored; r.Grants != 4+kept || r.Models != 2+kept || len(r.LostGrants)+len(r.LostModels) != 0 {
		t.Errorf("taken over: %+v", r)
	}
	if after := h.memory("gpu-0"); after.UsedMemory-after.ForeignMemory != before.UsedMemory-before.ForeignMemory || after.ModelMemory != before.ModelMemory {
		t.Errorf("before %+v, after %+v", before, after)
	}
	y := consume(t, h)
	for i, g := range []*schemas.AllocateReply{small, large} {
		x.tell(order{Do: "check", ID: g.AllocationID, Seed: byte(7 + i)})
		again := done[schemas.GetHandleReply](h, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: g.AllocationID})
		y.tell(order{Do: "map", Claim: again.Handle.Claim})
		y.tell(order{Do: "check", ID: g.AllocationID, Seed: byte(7 + i)})
	}
	x.tell(order{Do: "model", ID: read.AllocationIDs[0], Bytes: 36 * mib, Seed: 3})
	handle := done[schemas.GetHandleReply](h, schemas.ActionGetHandle, &schemas.GetHandleRequest{ModelName: "next"}).Handle
	id := y.tell(order{Do: "map", Claim: handle.Claim, Model: true}).ID
	y.tell(order{Do: "model", ID: id, Bytes: 36 * mib, Seed: 5})

	// Everybody goes, and everything is given back.
	x.kill()
	y.kill()
	done[schemas.UnloadModelReply](h, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "*", Force: true})
	for _, g := range []*schemas.AllocateReply{small, large} {
		call[schemas.DeallocateReply](h, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID, Force: true})
	}
	h.empty()
	h.stop()
}

// The bytes of a consumer that was killed are granted to who waits for them; not before its
// process has ended. (Memory of the same owner need not be cleared.)
func TestAKilledConsumersBytesAreGranted(t *testing.T) {
	h := start(t, place(t))
	x, y := consume(t, h), consume(t, h)
	g := done[schemas.AllocateReply](h, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 100 * mib, SessionID: x.session})
	x.tell(order{Do: "map", Claim: g.Handle.Claim})
	x.tell(order{Do: "write", ID: g.AllocationID, Seed: 9})
	refused[schemas.AllocateReply](h, schemas.CodeOutOfMemory, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 100 * mib, TimeoutSeconds: new(int64)})
	x.kill()
	next := h.allocate("gpu-0", 100*mib)
	y.tell(order{Do: "map", Claim: next.Handle.Claim})
	y.tell(order{Do: "write", ID: next.AllocationID, Seed: 4})
	y.tell(order{Do: "check", ID: next.AllocationID, Seed: 4})
	h.stop()
}

// The target of a transfer holds what was transferred, and nothing else of what its memory held
// before, whether it was made for it or another's before.
func TestTransfersFillTheirTargets(t *testing.T) {
	h := start(t, place(t))
	x := consume(t, h)
	const n = 17 * mib // of a segment of 18 MiB
	from := h.allocate("gpu-1", n)
	x.tell(order{Do: "map", Claim: from.Handle.Claim})
	x.tell(order{Do: "write", ID: from.AllocationID, Seed: 5})
	for range 2 {
		r := done[schemas.TransferReply](h, schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: from.AllocationID, TargetDeviceID: "gpu-0"}, client.WithWait(patience))
		handle := done[schemas.GetHandleReply](h, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: r.AllocationID}).Handle
		x.tell(order{Do: "map", Claim: handle.Claim})
		x.tell(order{Do: "filled", ID: r.AllocationID, Bytes: n, Seed: 5})
	}
	h.stop()
}
