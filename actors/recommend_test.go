package actors_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// recommended finds the one recommendation of a kind; nil if there is none.
func (h *timed) recommended(kind string) *schemas.Recommendation {
	h.t.Helper()
	var found *schemas.Recommendation
	for _, r := range call[*schemas.OptimizationRecsReply](h.t, h.house, schemas.ActionOptimizationRecs, &schemas.OptimizationRecsRequest{}).Recommendations {
		if r.Kind != kind {
			continue
		}
		if found != nil {
			h.t.Fatalf("two recommendations of kind %s", kind)
		}
		if r.Reason == "" {
			h.t.Errorf("%s without a reason", kind)
		}
		found = &r
	}
	return found
}

// apply sends a recommendation of a kind as it stands, which must be there, and then no more.
func (h *timed) apply(kind string) (*schemas.Recommendation, any) {
	h.t.Helper()
	r := h.recommended(kind)
	if r == nil {
		h.t.Fatalf("nothing of kind %s is recommended", kind)
	}
	spec, _ := schemas.Lookup(r.Command.Action)
	raw, err := json.Marshal(r.Command.Data)
	if err != nil {
		h.t.Fatal(err)
	}
	in := spec.NewRequest()
	if err := json.Unmarshal(raw, in); err != nil {
		h.t.Fatal(err)
	}
	a := <-h.send(&actors.Command{Action: r.Command.Action, Data: in, RequestID: "r"})
	if a.err != nil {
		h.t.Fatalf("%s: %v", kind, a.err)
	}
	h.pass(0)
	if h.recommended(kind) != nil {
		h.t.Errorf("%s is recommended once more", kind)
	}
	return r, a.data
}

func (h *timed) bytes() schemas.MemoryInfo { h.t.Helper(); return h.info(h.t) }

// shop is a timed house with a folder of models.
func shop(t *testing.T, change ...func(*actors.Config)) (*timed, func(name string, pinned bool)) {
	t.Helper()
	dir := t.TempDir()
	roots, err := weights.NewRoots(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := openTimed(t, nil, append(change, func(c *actors.Config) { c.Roots = roots })...)
	return h, func(name string, pinned bool) {
		t.Helper()
		path := filepath.Join(dir, name+".safetensors")
		if err := weightstest.Sized(mib, 1).WriteSafetensors(path); err != nil {
			t.Fatal(err)
		}
		call[*schemas.LoadModelReply](t, h.house, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: path, Pinned: pinned, Priority: 3})
	}
}

func TestAnIdleModelIsUnloaded(t *testing.T) {
	h, load := shop(t)
	load("m", false)
	if h.recommended("unload_idle_model") != nil {
		t.Error("a model just loaded is not idle")
	}
	h.pass(10 * time.Minute)
	before := h.bytes().UsedMemory
	r, _ := h.apply("unload_idle_model")
	if freed := before - h.bytes().UsedMemory; freed != r.ExpectedBytes || freed <= 0 {
		t.Errorf("%d bytes freed, %d promised", freed, r.ExpectedBytes)
	}
}

func TestAPinThatServesNobodyEnds(t *testing.T) {
	h, load := shop(t)
	load("m", true)
	h.pass(time.Hour)
	before := h.bytes().ReclaimableMemory
	r, data := h.apply("set_unpinned")
	if m := data.(*schemas.LoadModelReply).Model; m.Pinned || h.bytes().ReclaimableMemory-before != r.ExpectedBytes || r.ExpectedBytes <= 0 {
		t.Errorf("%+v, %d bytes promised, %d reclaimable", m, r.ExpectedBytes, h.bytes().ReclaimableMemory)
	}
}

func TestAModelThatComesAgainAndAgainIsPinned(t *testing.T) {
	h, load := shop(t)
	load("m", false)
	for range 2 {
		if h.recommended("set_pinned") != nil {
			t.Error("it has hardly been loaded")
		}
		call[*schemas.UnloadModelReply](t, h.house, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "m"})
		call[*schemas.LoadModelReply](t, h.house, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m"})
	}
	if _, data := h.apply("set_pinned"); !data.(*schemas.LoadModelReply).Model.Pinned {
		t.Error("it is not pinned")
	}
}

func TestIdleMemoryIsTrimmed(t *testing.T) {
	h := openTimed(t, nil, func(c *actors.Config) { c.Devices[0].PoolBytes = 256 * mib })
	g := h.allocate(schemas.AllocateRequest{SizeBytes: 128 * mib})
	h.deallocate(g.AllocationID)
	h.pass(0)
	r, data := h.apply("trim_pool")
	if freed := data.(*schemas.OptimizeReply).FreedBytes; freed != r.ExpectedBytes || freed != 128*mib {
		t.Errorf("%d bytes freed, %d promised", freed, r.ExpectedBytes)
	}
}

func TestALimitIsRaisedAndLowered(t *testing.T) {
	h := openTimed(t, nil)
	limit := func() int64 { return h.bytes().TotalMemory }
	call[*schemas.SetLimitsReply](t, h.house, schemas.ActionSetLimits, &schemas.SetLimitsRequest{DeviceID: "gpu-0", LimitBytes: ptr[int64](512 * mib)})
	g := h.allocate(schemas.AllocateRequest{SizeBytes: 460 * mib})
	h.pass(0)
	before := limit()
	r := h.recommended("raise_limit")
	if r == nil {
		t.Fatal("no higher limit is recommended")
	}
	call[*schemas.SetLimitsReply](t, h.house, schemas.ActionSetLimits, &schemas.SetLimitsRequest{DeviceID: "gpu-0", LimitBytes: ptr(r.Command.Data["limit_bytes"].(int64))})
	if limit()-before != r.ExpectedBytes || r.ExpectedBytes < 51*mib {
		t.Errorf("%d more, %d promised", limit()-before, r.ExpectedBytes)
	}
	h.deallocate(g.AllocationID)

	h = openTimed(t, nil)
	h.allocate(schemas.AllocateRequest{SizeBytes: 100 * mib, Class: schemas.ClassState, Persistent: true})
	for range 62 {
		h.pass(time.Minute)
		h.analytics(schemas.AnalyticsRequest{}) // it has looked
	}
	before = limit()
	r, _ = h.apply("lower_limit")
	if before-limit() != r.ExpectedBytes || limit() != 256*mib {
		t.Errorf("the limit is %d, %d were promised", limit(), r.ExpectedBytes)
	}
}

func levelBelowHigh(l schemas.PressureLevel) bool {
	return l == schemas.PressureLow || l == schemas.PressureModerate
}

// A limit that costs loading is raised, as far as that helps and the device has the bytes.
func TestALimitIsRaisedForWhatLoadingCosts(t *testing.T) {
	var slow *paced
	h, load := shop(t, func(c *actors.Config) {
		slow = &paced{Driver: c.Devices[0].Driver, clock: c.Clock.(*clock.Manual)}
		c.Devices[0].Driver = slow
	})
	limit := func(bytes int64) {
		call[*schemas.SetLimitsReply](t, h.house, schemas.ActionSetLimits, &schemas.SetLimitsRequest{DeviceID: "gpu-0", LimitBytes: &bytes})
	}
	limit(20 * mib)
	names := strings.Split("abcdefghijkl", "")
	for i, name := range slices.Concat(names, names, names) {
		h.pass(time.Second)
		slow.next.Store(int64(time.Second))
		if i < len(names) {
			load(name, false)
		} else {
			call[*schemas.LoadModelReply](t, h.house, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name})
		}
		slow.next.Store(0)
	}
	for range 60 { // pressure makes room, and is over
		if h.pass(time.Second); levelBelowHigh(h.level()) {
			break
		}
	}
	r := h.recommended("raise_limit")
	if r == nil || !strings.Contains(r.Reason, "of 36 requests for models") || r.ExpectedBytes <= 0 {
		t.Fatalf("recommended %+v", r)
	}
	if to := r.Command.Data["limit_bytes"].(int64); to != 20*mib+r.ExpectedBytes || to > 40*mib {
		t.Errorf("recommended %+v", r)
	}
	limit(1 << 30)
	if r := h.recommended("raise_limit"); r != nil {
		t.Errorf("with room for everything %+v", r)
	}
}

func TestALeakIsGivenBack(t *testing.T) {
	h := openTimed(t, nil)
	h.allocate(schemas.AllocateRequest{SizeBytes: 64 * mib})
	h.pass(15 * time.Minute)
	r, data := h.apply("leak_suspect")
	if freed := data.(*schemas.DeallocateReply).FreedBytes; freed != r.ExpectedBytes || freed != 64*mib {
		t.Errorf("%d bytes freed, %d promised", freed, r.ExpectedBytes)
	}
}

func TestAZombieIsReleasedWhenItsHolderLetsGo(t *testing.T) {
	h := openTimed(t, nil)
	w, err := h.hello(dataplane.Hello{Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	g := h.allocate(schemas.AllocateRequest{SizeBytes: 64 * mib})
	f := h.mapped(w.SessionID, g.Handle.Claim)
	forced := h.send(&actors.Command{Action: schemas.ActionDeallocate, RequestID: "r",
		Data: &schemas.DeallocateRequest{AllocationID: g.AllocationID, Force: true, DeadlineMs: ptr[int64](1)}})
	h.pass(0)
	h.pass(time.Second)
	if r, ok := (<-forced).data.(*schemas.DeallocateReply); !ok || r.ZombieBytes != 64*mib {
		t.Fatalf("released %+v", r)
	}
	r := h.recommended("release_zombie")
	if r == nil || r.ExpectedBytes != 64*mib || r.Command.Data["allocation_id"] != g.AllocationID {
		t.Fatalf("recommended %+v", r)
	}
	f.Close()
	h.unmap(w.SessionID, g.AllocationID)
	h.events.await(t, "its bytes are back", func(e schemas.Event) bool {
		b, ok := e.Data.(*schemas.AllocationBatch)
		return ok && b.Items[0].Event == schemas.EventConfirmed || ok && b.Items[len(b.Items)-1].Event == schemas.EventConfirmed
	})
	if h.recommended("release_zombie") != nil || h.bytes().ZombieMemory != 0 {
		t.Error("it is a zombie still")
	}
}
