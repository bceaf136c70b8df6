package actors_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// mainMemory is a device that passes for main memory.
type mainMemory struct{ *gated }

func (m mainMemory) Info() device.Info {
	i := m.gated.Info()
	i.Type = device.RAM
	return i
}

// tiered opens a house with gpu-0 above ram-0, whose writes can be stopped.
func tiered(t *testing.T, before *timed, change ...func(*actors.Config)) (h *timed, gpu, ram *gated) {
	t.Helper()
	gpu, ram = newGated(t, "gpu-0"), newGated(t, "ram-0")
	h = openTimed(t, before, append([]func(*actors.Config){func(c *actors.Config) {
		c.Devices = []actors.DeviceConfig{{Driver: gpu}, {Driver: mainMemory{ram}}}
	}}, change...)...)
	return h, gpu, ram
}

func (h *timed) load(name, device string) *schemas.LoadModelReply {
	h.t.Helper()
	a := h.command("", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: h.model(name, 1), DeviceID: device})
	if a.err != nil {
		h.t.Fatal(a.err)
	}
	return a.data.(*schemas.LoadModelReply)
}

func demotion(name string) *schemas.UnloadModelRequest {
	return &schemas.UnloadModelRequest{Name: name, To: schemas.UnloadToRAM}
}

// lies is where copies of a model lie, by device.
func (h *timed) lies(name string) map[string]schemas.Residency {
	h.t.Helper()
	r := call[*schemas.GetModelInfoReply](h.t, h.house, schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{Name: name})
	out := map[string]schemas.Residency{}
	for _, x := range r.Models[0].Residency {
		out[x.DeviceID] = x
	}
	return out
}

func (h *timed) modelEvent(kind schemas.EventKind, device string) *schemas.ModelEvent {
	h.t.Helper()
	return h.events.await(h.t, string(kind), func(e schemas.Event) bool {
		m, ok := e.Data.(*schemas.ModelEvent)
		return ok && e.Event == kind && m.DeviceID == device
	}).Data.(*schemas.ModelEvent)
}

// weights are the bytes of a model's copy, as one who maps it sees them.
func (h *timed) weights(r schemas.Residency) []byte {
	h.t.Helper()
	return h.content(r.AllocationID, r.SizeBytes)
}

// A demoted model lies in main memory, whole, and is loaded from there without its file.
func TestDemotionAndPromotion(t *testing.T) {
	h, _, _ := tiered(t, nil)
	path := h.model("m", 1)
	first := h.load("m", "gpu-0")
	is(t, "the first load", []any{first.SourceTier, first.Tier}, []any{schemas.TierDisk, schemas.TierVRAM})
	want := h.weights(h.lies("m")["gpu-0"])

	dry := <-h.send(&actors.Command{Action: schemas.ActionUnloadModel, Data: demotion("m"), RequestID: "dry", DryRun: true})
	is(t, "foreseen", dry.data.(*schemas.DryRunReply).Plan.Outcome, schemas.PlanGranted)
	r := h.command("", "down", schemas.ActionUnloadModel, demotion("m")).data.(*schemas.UnloadModelReply)
	is(t, "demoted", []any{r.Unloaded, r.ModelsUnloaded, r.FreedBytes, r.Confirmed}, []any{true, []string{"m"}, first.Model.Residency[0].SizeBytes, true})
	again := h.command("", "down", schemas.ActionUnloadModel, demotion("m")).data.(*schemas.UnloadModelReply)
	is(t, "replayed", []any{again.Replayed, again.FreedBytes}, []any{true, r.FreedBytes})
	lies := h.lies("m")
	is(t, "lies on", []any{len(lies), lies["ram-0"].Tier, h.used("gpu-0")}, []any{1, schemas.TierRAM, int64(0)})
	if !bytes.Equal(h.weights(lies["ram-0"]), want) {
		t.Error("the copy in main memory is not the model")
	}
	if s := call[*schemas.ModelStatusReply](t, h.house, schemas.ActionModelStatus, &schemas.ModelStatusRequest{DeviceID: "ram-0"}); s.LoadedModels["m"].State != schemas.ModelSealed {
		t.Errorf("model_status says %+v", s.LoadedModels)
	}
	is(t, "down", h.modelEvent(schemas.EventModelLoaded, "ram-0").SourceTier, schemas.TierVRAM)
	is(t, "down", h.modelEvent(schemas.EventModelDemoted, "gpu-0").FreedBytes, r.FreedBytes)
	once := h.command("", "", schemas.ActionUnloadModel, demotion("m")).data.(*schemas.UnloadModelReply)
	is(t, "demoted twice", []any{once.Unloaded, once.FreedBytes, once.Confirmed, len(h.lies("m"))}, []any{false, int64(0), true, 1})

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	up := h.command("", "up", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m"}).data.(*schemas.LoadModelReply) // to where it was
	is(t, "promoted", []any{up.SourceTier, up.Tier, up.Handle != nil}, []any{schemas.TierRAM, schemas.TierVRAM, true})
	if !bytes.Equal(h.weights(h.lies("m")["gpu-0"]), want) {
		t.Error("the promoted copy is not the model")
	}
	is(t, "up", h.modelEvent(schemas.EventModelPromoted, "gpu-0").SourceTier, schemas.TierRAM)
	is(t, "kept warm", len(h.lies("m")), 2)
	again2 := h.command("", "up", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m"}).data.(*schemas.LoadModelReply)
	is(t, "replayed", []any{again2.Replayed, again2.SourceTier}, []any{true, schemas.TierRAM})

	// With the copy there already nothing is copied; not kept warm, it goes.
	h.command("", "", schemas.ActionUnloadModel, demotion("*"))
	cold := h.command("", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", DeviceID: "gpu-0", KeepWarm: ptr(false)}).data.(*schemas.LoadModelReply)
	is(t, "promoted", cold.SourceTier, schemas.TierRAM)
	h.events.await(t, "the warm copy goes", func(e schemas.Event) bool {
		m, ok := e.Data.(*schemas.ModelEvent)
		return ok && e.Event == schemas.EventModelUnloaded && m.DeviceID == "ram-0"
	})
	is(t, "not kept warm", []any{len(h.lies("m")), h.used("ram-0")}, []any{1, int64(0)})
}

// Main memory without room refuses a demotion, and the model stays; with models that nobody
// reads it makes room.
func TestDemotionWithoutRoom(t *testing.T) {
	h, _, _ := tiered(t, nil, func(c *actors.Config) { c.Devices[1].ReliefOff = true }) // else pressure makes room
	h.load("m", "gpu-0")
	all := h.allocate(scratch("ram-0", 1<<30)).AllocationID
	dry := <-h.send(&actors.Command{Action: schemas.ActionUnloadModel, Data: demotion("m"), RequestID: "dry", DryRun: true})
	is(t, "foreseen", dry.data.(*schemas.DryRunReply).Plan.Outcome, schemas.PlanRefused)
	h.fails(schemas.CodeOutOfMemory, schemas.ActionUnloadModel, demotion("m"))
	is(t, "lies on", []any{len(h.lies("m")), h.lies("m")["gpu-0"].Tier}, []any{1, schemas.TierVRAM})
	h.deallocate(all)
	h.load("other", "ram-0")
	h.pass(eviction.MinGrace) // else it is kept because it was just loaded
	h.allocate(scratch("ram-0", 1<<30-4*mib))
	dry = <-h.send(&actors.Command{Action: schemas.ActionUnloadModel, Data: demotion("m"), RequestID: "dry", DryRun: true})
	if p := dry.data.(*schemas.DryRunReply).Plan; p.Outcome != schemas.PlanGranted || len(p.Evict) != 1 || p.Evict[0].Model != "other" {
		t.Errorf("foreseen is %+v", p)
	}
	if a := h.command("", "", schemas.ActionUnloadModel, demotion("m")); a.err != nil {
		t.Fatal(a.err)
	}
	is(t, "lies on", []any{h.lies("m")["ram-0"].Tier, len(h.lies("m")), len(h.lies("other"))}, []any{schemas.TierRAM, 1, 0})
}

// Two demotions of a model are one; one that is cancelled leaves the other, and both nothing.
func TestDemotionIsSharedAndCancelled(t *testing.T) {
	h, _, ram := tiered(t, nil)
	h.load("m", "gpu-0")
	ram.closed.Store(true)
	send := func(id string) (string, chan answer) {
		r := h.send(&actors.Command{Action: schemas.ActionUnloadModel, Data: demotion("m"), RequestID: id, Wait: time.Second})
		h.pass(0)
		h.pass(time.Second)
		p, ok := (<-r).data.(*schemas.Pending)
		if !ok {
			t.Fatal("the demotion does not wait")
		}
		return p.OperationID, r
	}
	a, _ := send("a")
	<-ram.at
	b, _ := send("b")
	cancel := func(id string) chan answer {
		return h.send(&actors.Command{Action: schemas.ActionCancelOperation, Data: &schemas.CancelOperationRequest{OperationID: id, WaitMs: 60_000}, RequestID: "c"})
	}
	status := func(r chan answer) schemas.OperationStatus {
		return (<-r).data.(*schemas.CancelOperationReply).Operation.Status
	}
	is(t, "the first", status(cancel(a)), schemas.StatusCancelled)
	c := cancel(b)
	h.pass(0)
	ram.open()
	is(t, "the second", status(c), schemas.StatusCancelled)
	is(t, "left", []any{len(h.lies("m")), h.used("ram-0")}, []any{1, int64(0)})

	// Whoever loads it meanwhile has it, and readers keep it unless force is used.
	ram.closed.Store(true)
	r := h.send(&actors.Command{Action: schemas.ActionUnloadModel, Data: demotion("m"), RequestID: "d", Wait: time.Hour})
	<-ram.at
	h.fails(schemas.CodeModelInUse, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "m", DeviceID: "gpu-0"})
	ref := call[*schemas.AcquireModelReply](t, h.house, schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: "m", DeviceID: "gpu-0", LeaseSeconds: ptr[int64](60)})
	ram.open()
	if x := <-r; x.err == nil || x.err.Code != schemas.CodeModelInUse {
		t.Errorf("with a reader: %+v, %v", x.data, x.err)
	}
	h.events.await(t, "the copy goes", func(e schemas.Event) bool {
		m, ok := e.Data.(*schemas.ModelEvent)
		return ok && e.Event == schemas.EventModelUnloaded && m.DeviceID == "ram-0"
	})
	is(t, "left", []any{len(h.lies("m")), h.used("ram-0")}, []any{1, int64(0)})
	h.fails(schemas.CodeModelInUse, schemas.ActionUnloadModel, demotion("m"))
	call[*schemas.ReleaseModelReply](t, h.house, schemas.ActionReleaseModel, &schemas.ReleaseModelRequest{ReferenceID: ref.ReferenceID})

	// Dropped by force meanwhile, there is nothing left to be demoted. It takes several chunks.
	h.command("", "", schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "m"})
	path := filepath.Join(h.roots, "large.safetensors")
	if err := weightstest.Sized(12*mib, 1).WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	call[*schemas.LoadModelReply](t, h.house, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "large", Path: path, DeviceID: "gpu-0"})
	ram.closed.Store(true)
	r = h.send(&actors.Command{Action: schemas.ActionUnloadModel, Data: demotion("large"), RequestID: "e", Wait: time.Hour})
	<-ram.at
	drop := h.send(&actors.Command{Action: schemas.ActionUnloadModel, Data: &schemas.UnloadModelRequest{Name: "large", DeviceID: "gpu-0", Force: true}, RequestID: "f", Wait: time.Hour})
	h.pass(0)
	ram.open()
	if x := <-r; x.err == nil || x.err.Code != schemas.CodeModelNotFound {
		t.Errorf("of a model that goes: %+v, %v", x.data, x.err)
	}
	is(t, "dropped", (<-drop).data.(*schemas.UnloadModelReply).FreedBytes > 0, true)
	is(t, "left", []any{len(h.lies("large")), h.used("ram-0"), h.used("gpu-0")}, []any{0, int64(0), int64(0)})
}

// A file that has changed meanwhile is read: what is in main memory is the old version.
func TestPromotionOfAChangedFile(t *testing.T) {
	h, _, _ := tiered(t, nil)
	h.load("m", "gpu-0")
	h.command("", "", schemas.ActionUnloadModel, demotion("m"))
	path := h.model("m", 2)
	r := h.command("", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", Path: path}).data.(*schemas.LoadModelReply)
	is(t, "loaded", []any{r.SourceTier, r.Model.Version, r.Tier}, []any{schemas.TierDisk, "2", schemas.TierVRAM})
}

// A node without main memory says so.
func TestDemotionWithoutMainMemory(t *testing.T) {
	h, _, _ := two(t, nil)
	h.load("m", "gpu-0")
	h.fails(schemas.CodeInvalidDevice, schemas.ActionUnloadModel, demotion("m"))
	is(t, "lies on", len(h.lies("m")), 1)
}
