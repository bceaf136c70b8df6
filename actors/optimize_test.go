package actors_test

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// stocked is a house whose one device of 64 MiB holds models of 8 MiB, loaded in the
// order of their names.
func stocked(t *testing.T, names ...string) *house {
	t.Helper()
	h := open(t, gpu(t, "gpu-0", 64*mib))
	for _, name := range names {
		h.load(t, name, false)
	}
	return h
}

func (h *house) load(t *testing.T, name string, pinned bool) *schemas.LoadModelReply {
	t.Helper()
	path := filepath.Join(h.roots, name+".safetensors")
	if err := weightstest.Sized(7*mib, 1).WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	return call[*schemas.LoadModelReply](t, h, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: path, Pinned: pinned})
}

// hold makes a reader of a model.
func (h *house) hold(t *testing.T, name string) {
	t.Helper()
	call[*schemas.AcquireModelReply](t, h, schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: name, LeaseSeconds: ptr[int64](3600)})
}

// resident names the models that are loaded.
func (h *house) resident(t *testing.T) (names []string) {
	t.Helper()
	for name := range call[*schemas.ModelStatusReply](t, h, schemas.ActionModelStatus, &schemas.ModelStatusRequest{}).LoadedModels {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (h *house) info(t *testing.T) schemas.MemoryInfo {
	t.Helper()
	return call[*schemas.GetStatusReply](t, h, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: "gpu-0"}).MemoryInfo
}

func (h *house) modelOptimize(t *testing.T, in schemas.ModelOptimizeRequest) *schemas.ModelOptimizeReply {
	t.Helper()
	if in.TargetPressureLevel == "" {
		in.TargetPressureLevel = schemas.PressureModerate
	}
	return call[*schemas.ModelOptimizeReply](t, h, schemas.ActionModelOptimize, &in)
}

func is(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s is %v, not %v", what, got, want)
	}
}

const granted = 8 * mib // of a model of 7 MiB and its header, on a device that grants 2 MiB

func TestModelOptimizeMeetsEveryTarget(t *testing.T) {
	h := stocked(t, "a", "b", "c", "d", "e")
	is(t, "used", h.info(t).UsedMemory, int64(5*granted))
	for _, step := range []struct {
		what string
		in   schemas.ModelOptimizeRequest
		gone []string
	}{
		{"nothing to do", schemas.ModelOptimizeRequest{TargetUsagePercentage: ptr(70.0)}, []string{}},
		{"a share of the limit", schemas.ModelOptimizeRequest{TargetUsagePercentage: ptr(50.0), Strategy: schemas.EvictFIFO}, []string{"a"}},
		{"at least so much", schemas.ModelOptimizeRequest{MinMemoryToFree: ptr[int64](granted + 1), Strategy: schemas.EvictFIFO, ExcludeModels: []string{"b"}},
			[]string{"c", "d"}},
		{"the larger of two", schemas.ModelOptimizeRequest{TargetUsagePercentage: ptr(20.0), MinMemoryToFree: ptr[int64](1), MaxModelsToUnload: ptr(5), Strategy: schemas.EvictFIFO}, []string{"b"}},
	} {
		before := h.info(t).UsedMemory
		r := h.modelOptimize(t, step.in)
		freed := int64(len(step.gone)) * granted
		is(t, step.what+": unloaded", r.ModelsUnloaded, step.gone)
		is(t, step.what+": freed", []int64{r.MemoryFreed, r.MemoryFreedBytes, before - h.info(t).UsedMemory}, []int64{freed, freed, freed})
		is(t, step.what+": triggered", r.OptimizationTriggered, len(step.gone) > 0)
		is(t, step.what+": steps", len(r.OptimizationDetails), len(step.gone))
		for _, s := range r.OptimizationDetails {
			if s.FreedBytes != granted || s.Kind != "drop" || s.Reason == "" {
				t.Errorf("%s: step %+v", step.what, s)
			}
		}
		if len(step.gone) > 0 && (r.PerformanceImpact.ReloadCostMs <= 0 || r.Message == "" || r.OptimizationStarted.IsZero()) {
			t.Errorf("%s: %+v", step.what, r)
		}
	}
	is(t, "resident", h.resident(t), []string{"e"})
}

func TestModelOptimizeReachesALevel(t *testing.T) {
	h := stocked(t, "a", "b", "c", "d", "e", "f") // 48 of 64 MiB: moderate
	is(t, "unloaded", h.modelOptimize(t, schemas.ModelOptimizeRequest{}).ModelsUnloaded, []string{})
	r := h.modelOptimize(t, schemas.ModelOptimizeRequest{TargetPressureLevel: schemas.PressureLow, Strategy: schemas.EvictLRU})
	is(t, "unloaded", r.ModelsUnloaded, []string{"a"}) // 40 MiB are 62.5 %, under the 65 at which moderate is left
	is(t, "strategy", r.OptimizationStrategy, schemas.EvictLRU)
}

func TestModelOptimizeSparesWhatItMust(t *testing.T) {
	h := stocked(t, "a", "b")
	h.load(t, "pinned", true)
	h.hold(t, "a")
	all := schemas.ModelOptimizeRequest{TargetUsagePercentage: ptr(0.0)}
	none := all
	none.MaxModelsToUnload = ptr(0)
	is(t, "with none allowed", h.modelOptimize(t, none).ModelsUnloaded, []string{})
	r := h.modelOptimize(t, all)
	is(t, "unloaded", r.ModelsUnloaded, []string{"b"})
	r = h.modelOptimize(t, all)
	is(t, "triggered", r.OptimizationTriggered, false)
	all.ForceOptimization = true
	r = h.modelOptimize(t, all)
	is(t, "forced", r.ModelsUnloaded, []string{"a"})
	is(t, "resident", h.resident(t), []string{"pinned"})
}

// A dry run says what the command then does, and the events tell of it.
func TestModelOptimizeAsForeseen(t *testing.T) {
	h := stocked(t, "a", "b", "c", "d")
	h.hold(t, "c")
	in := &schemas.ModelOptimizeRequest{TargetPressureLevel: schemas.PressureLow, TargetUsagePercentage: ptr(30.0), Strategy: schemas.EvictFIFO}
	foreseen := (<-h.send(&actors.Command{Action: schemas.ActionModelOptimize, Data: in, RequestID: "dry", DryRun: true})).data.(*schemas.DryRunReply).Plan
	is(t, "resident", len(h.resident(t)), 4)
	once := func() *schemas.ModelOptimizeReply {
		a := <-h.send(&actors.Command{Action: schemas.ActionModelOptimize, Data: in, RequestID: "once", Chosen: true, Digest: [32]byte{7}})
		if a.err != nil {
			t.Fatal(a.err)
		}
		return a.data.(*schemas.ModelOptimizeReply)
	}
	r := once()
	var names []string
	for _, e := range foreseen.Evict {
		names = append(names, e.Model)
		is(t, "foreseen", []any{e.FreedBytes, e.Tier}, []any{int64(granted), schemas.TierVRAM})
	}
	is(t, "unloaded", r.ModelsUnloaded, []string{"a", "b"})
	is(t, "foreseen", names, r.ModelsUnloaded)
	is(t, "outcome", foreseen.Outcome, schemas.PlanGranted)
	for _, kind := range []schemas.EventKind{schemas.EventStarted, schemas.EventCompleted} {
		e := h.events.await(t, string(kind), func(e schemas.Event) bool {
			o, ok := e.Data.(*schemas.OptimizationEvent)
			return ok && e.Event == kind && o.RequestID == "once"
		}).Data.(*schemas.OptimizationEvent)
		is(t, "event", []any{e.DeviceID, e.Strategy, len(e.Evicted), e.Reason, e.Cause}, []any{"gpu-0", schemas.EvictFIFO, 2, "a client's model_optimize", schemas.CauseOfCommand})
		if kind == schemas.EventCompleted {
			is(t, "event", []any{e.FreedBytes, e.ShortfallBytes, len(e.Steps)}, []any{int64(2 * granted), int64(0), 2})
		}
	}
	again := once()
	is(t, "replayed", []any{again.Replayed, again.ModelsUnloaded, again.MemoryFreed}, []any{true, r.ModelsUnloaded, r.MemoryFreed})
	is(t, "resident", h.resident(t), []string{"c", "d"})
}

func TestModelOptimizeOfAllDevices(t *testing.T) {
	h := open(t, gpu(t, "gpu-0", 32*mib), gpu(t, "gpu-1", 32*mib))
	path := filepath.Join(h.roots, "m.safetensors")
	if err := weightstest.Sized(7*mib, 1).WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		in := &schemas.LoadModelRequest{Name: fmt.Sprint("m", i), Path: path, DeviceID: fmt.Sprint("gpu-", i/2)}
		call[*schemas.LoadModelReply](t, h, schemas.ActionLoadModel, in)
	}
	r := h.modelOptimize(t, schemas.ModelOptimizeRequest{TargetUsagePercentage: ptr(30.0), MinMemoryToFree: ptr[int64](2*granted + 1), Strategy: schemas.EvictFIFO})
	is(t, "unloaded", r.ModelsUnloaded, []string{"m0", "m2", "m1"})
	is(t, "freed", r.MemoryFreed, int64(3*granted))
	r = h.modelOptimize(t, schemas.ModelOptimizeRequest{DeviceID: "gpu-0", TargetUsagePercentage: ptr(0.0)})
	is(t, "unloaded", r.ModelsUnloaded, []string{})
	r = h.modelOptimize(t, schemas.ModelOptimizeRequest{TargetUsagePercentage: ptr(0.0), MaxModelsToUnload: ptr(1)})
	is(t, "unloaded", r.ModelsUnloaded, []string{"m3"})
}

// A tenant's operator has its own models released, the host's anybody's.
func TestModelOptimizeOfATenant(t *testing.T) {
	h := stocked(t, "a")
	path := filepath.Join(h.roots, "a.safetensors")
	for _, tenant := range []string{"red", "blue"} {
		if a := <-h.send(&actors.Command{Action: schemas.ActionLoadModel, Tenant: tenant, RequestID: "r", Data: &schemas.LoadModelRequest{Name: tenant, Path: path}}); a.err != nil {
			t.Fatal(a.err)
		}
	}
	in := &schemas.ModelOptimizeRequest{TargetPressureLevel: schemas.PressureLow, TargetUsagePercentage: ptr(0.0), Strategy: schemas.EvictFIFO}
	a := <-h.send(&actors.Command{Action: schemas.ActionModelOptimize, Tenant: "red", RequestID: "r", Data: in})
	is(t, "unloaded for red", a.data.(*schemas.ModelOptimizeReply).ModelsUnloaded, []string{"red"})
	is(t, "unloaded for the host", h.modelOptimize(t, *in).ModelsUnloaded, []string{"a", "blue"})
}

func TestOptimizeTrimsAndReleases(t *testing.T) {
	h := stocked(t, "a", "b", "c", "d", "e")
	g := call[*schemas.AllocateReply](t, h, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 8 * mib})
	call[*schemas.DeallocateReply](t, h, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID})
	pooled := h.info(t).PooledMemory // warm segments, and the one that was given back
	if pooled < 8*mib {
		t.Fatalf("%d bytes are idle", pooled)
	}
	optimize := func(in schemas.OptimizeRequest) *schemas.OptimizeReply {
		t.Helper()
		in.DeviceID = "gpu-0"
		return call[*schemas.OptimizeReply](t, h, schemas.ActionOptimize, &in)
	}
	r := optimize(schemas.OptimizeRequest{OptimizationType: schemas.OptimizeAuto, TargetUsagePercentage: ptr(100.0)})
	is(t, "with all allowed", []any{r.FreedBytes, r.Steps, r.After.UsedMemory}, []any{int64(0), []schemas.OptimizationStep{}, int64(5 * granted)})
	r = optimize(schemas.OptimizeRequest{OptimizationType: schemas.OptimizeTrim})
	is(t, "trimmed", []any{r.FreedBytes, r.Before.PooledMemory, r.After.PooledMemory, r.After.UsedMemory}, []any{pooled, pooled, int64(0), int64(5 * granted)})
	is(t, "steps", []any{len(r.Steps), r.Steps[0].Kind, r.Steps[0].FreedBytes}, []any{1, "trim", pooled})
	keep := call[*schemas.GetAllocationsReply](t, h, schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{ModelName: "a"}).Allocations[0].AllocationID
	r = optimize(schemas.OptimizeRequest{OptimizationType: schemas.OptimizeModels, TargetUsagePercentage: ptr(40.0), PreserveAllocations: []string{keep}})
	is(t, "released", []any{r.FreedBytes, r.Before.UsedMemory, r.After.UsedMemory, len(r.Steps)}, []any{int64(2 * granted), int64(5 * granted), int64(3 * granted), 2})
	h.hold(t, "a")
	optimize(schemas.OptimizeRequest{OptimizationType: schemas.OptimizeAuto, TargetUsagePercentage: ptr(0.0)})
	is(t, "resident", h.resident(t), []string{"a"})
	r = optimize(schemas.OptimizeRequest{OptimizationType: schemas.OptimizeAuto, TargetUsagePercentage: ptr(0.0), Force: true})
	is(t, "by force", []any{r.FreedBytes, r.After.UsedMemory, r.After.ModelMemory}, []any{int64(granted), int64(0), int64(0)})
	a := <-h.send(&actors.Command{Action: schemas.ActionOptimize, RequestID: "r", Data: &schemas.OptimizeRequest{DeviceID: "gpu-0", PreserveAllocations: []string{keep}}})
	if a.err == nil || a.err.Code != schemas.CodeAllocationNotFound {
		t.Errorf("a preserved allocation that is gone: %+v", a)
	}
}

func TestOptimizeInTheBackground(t *testing.T) {
	h := stocked(t, "a", "b")
	in := &schemas.OptimizeRequest{DeviceID: "gpu-0", OptimizationType: schemas.OptimizeModels, TargetUsagePercentage: ptr(0.0), WaitForCompletion: ptr(false)}
	a := <-h.send(&actors.Command{Action: schemas.ActionOptimize, Data: in, RequestID: "later"})
	p, ok := a.data.(*schemas.Pending)
	if !ok || p.Status != schemas.StatusRunning {
		t.Fatalf("answered %+v", a)
	}
	op := call[*schemas.GetOperationReply](t, h, schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: p.OperationID, WaitMs: 10_000}).Operation
	r, ok := op.Result.(*schemas.OptimizeReply)
	if !ok || op.Status != schemas.StatusCompleted || r.FreedBytes != 2*granted {
		t.Fatalf("operation %+v", op)
	}
	foreseen := (<-h.send(&actors.Command{Action: schemas.ActionOptimize, Data: in, RequestID: "dry", DryRun: true})).data.(*schemas.DryRunReply)
	is(t, "foreseen", []any{foreseen.Plan.Outcome, foreseen.Plan.Evict}, []any{schemas.PlanGranted, []schemas.Eviction{}})
}

func TestCleanup(t *testing.T) {
	h := stocked(t, "a", "b")
	allocate := func(in schemas.AllocateRequest) string {
		in.SizeBytes = 4 * mib
		return call[*schemas.AllocateReply](t, h, schemas.ActionAllocate, &in).AllocationID
	}
	allocate(schemas.AllocateRequest{})
	allocate(schemas.AllocateRequest{Class: schemas.ClassReservation})
	stays := allocate(schemas.AllocateRequest{Class: schemas.ClassState, Persistent: true})
	if a := <-h.send(&actors.Command{Action: schemas.ActionAllocate, Tenant: "blue", RequestID: "r", Data: &schemas.AllocateRequest{SizeBytes: 4 * mib}}); a.err != nil {
		t.Fatal(a.err)
	}
	h.hold(t, "b")
	in := &schemas.CleanupRequest{Confirm: true}
	foresee := func() schemas.Plan {
		return (<-h.send(&actors.Command{Action: schemas.ActionCleanup, Data: in, RequestID: "dry", DryRun: true})).data.(*schemas.DryRunReply).Plan
	}
	is(t, "foreseen", foresee().Outcome, schemas.PlanRefused)
	if a := <-h.send(&actors.Command{Action: schemas.ActionCleanup, Data: in, RequestID: "r"}); a.err == nil || a.err.Code != schemas.CodeModelInUse {
		t.Fatalf("with a reader: %+v", a)
	}
	is(t, "resident", len(h.resident(t)), 2)
	in.Force = true
	is(t, "foreseen", []any{foresee().Outcome, len(foresee().Evict)}, []any{schemas.PlanGranted, 2})
	r := call[*schemas.CleanupReply](t, h, schemas.ActionCleanup, in)
	slices.Sort(r.ModelsUnloaded)
	is(t, "cleaned", []any{r.ModelsUnloaded, r.FreedBytes}, []any{[]string{"a", "b"}, int64(2*granted + 8*mib)})
	left := call[*schemas.GetAllocationsReply](t, h, schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{}).Allocations
	is(t, "left", []any{len(left), left[0].AllocationID}, []any{1, stays})
	is(t, "used by both tenants", h.info(t).UsedMemory, int64(8*mib))
	r = call[*schemas.CleanupReply](t, h, schemas.ActionCleanup, in)
	is(t, "cleaned again", []any{r.ModelsUnloaded, r.FreedBytes}, []any{[]string{}, int64(0)})
}
