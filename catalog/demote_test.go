package catalog_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/schemas"
)

// tiered is a bench with a model on gpu-0, above ram-0, loaded in 100 ms.
func tiered(t *testing.T) (b *bench, onGPU uuid.UUID) {
	t.Helper()
	b = newBench(t, 1<<20)
	b.c.Warm("ram-0")
	b.load("a", catalog.LoadRequest{Path: "m", Device: "gpu-0"})
	cp := b.last()
	b.inspected(cp, "c1")
	onGPU = b.granted(cp)
	b.filled(cp)
	b.now.Boot = b.now.Boot.Add(100 * time.Millisecond)
	b.sealed(cp)
	b.said = nil
	return b, onGPU
}

func (b *bench) demote(ref string, force bool) {
	b.t.Helper()
	b.do(func() {
		b.c.Unload(catalog.UnloadRequest{Ref: ref, Tenant: "red", Name: "m", Force: force, Demote: map[string]string{"gpu-0": "ram-0"}}, b.now)
	})
}

func (b *bench) released(id uuid.UUID) {
	b.t.Helper()
	b.do(func() { b.c.Released(id, 4096, 0, true, b.now) })
}

// down takes the model to main memory and returns its copy there.
func (b *bench) down(onGPU uuid.UUID) *catalog.Copy {
	b.t.Helper()
	b.demote("d", false)
	b.says("step allocate")
	cp := b.last()
	b.granted(cp)
	b.says("step copy")
	b.filled(cp)
	b.sealed(cp)
	b.says("step seal", "step release")
	b.released(onGPU)
	b.says("d unloaded [m] freed=4096 confirmed=true")
	return cp
}

func TestDownAndUp(t *testing.T) {
	b, onGPU := tiered(t)
	warm := b.down(onGPU)
	if warm.Home != "gpu-0" || warm.Cost != 100*time.Millisecond || warm.Model.Loads != 1 || b.c.Reclaimable("ram-0") != 4096 {
		t.Fatalf("the copy in main memory is %+v", warm)
	}
	b.demote("again", false)
	b.says("again unloaded [] freed=0 confirmed=true")

	b.load("dry", catalog.LoadRequest{Device: "gpu-0", DryRun: true})
	b.says("dry planned")
	b.load("up", catalog.LoadRequest{Device: "gpu-0"})
	b.says("step allocate")
	cp := b.last()
	id := b.granted(cp)
	if b.c.Reclaimable("ram-0") != 0 || b.c.EvictByForce(warm, 0, "room", b.now) {
		t.Fatal("a copy that is being read may be evicted")
	}
	b.do(func() { b.c.Unload(catalog.UnloadRequest{Ref: "u", Tenant: "red", Name: "m", Device: "ram-0"}, b.now) })
	b.says("step copy", "u refused MODEL_IN_USE")
	b.filled(cp)
	b.now.Boot = b.now.Boot.Add(10 * time.Millisecond)
	b.sealed(cp)
	b.says("step seal", "up loaded v1 hit=false")
	if cp.Origin != "ram-0" || cp.Cost != 100*time.Millisecond || cp.Model.WarmCost != cp.Took || cp.Model.Loads != 2 {
		t.Fatalf("the promoted copy is %+v of %+v", cp, cp.Model)
	}
	plan, _ := b.c.Plan(catalog.Want{Device: "gpu-0", Bytes: 1}, b.now.Boot)
	if len(plan.Victims) != 1 || plan.Victims[0].Cost != cp.Took.Seconds() {
		t.Fatalf("to have it again would cost %+v", plan.Victims)
	}

	// What a successor finds it keeps: where it came from, and what it cost.
	c, rep, err := catalog.Restore(b.mem, policy(t), uuid.New, map[uuid.UUID]string{id: "gpu-0", warm.Grant: "ram-0"}, nil, b.now)
	if err != nil || rep.Models != 2 {
		t.Fatalf("restored %+v, %v", rep, err)
	}
	was, _ := c.ByGrant(warm.Grant)
	if was.Home != "gpu-0" || was.Model.WarmCost != cp.Took || was.Model.Usable("") == was {
		t.Fatalf("restored is %+v", was)
	}

	// Somebody wants it in main memory: then it stays there.
	b.load("here", catalog.LoadRequest{})
	b.says("here loaded v1 hit=true")
	if warm.Home != "" {
		t.Fatal("it is there for itself, and called warm")
	}
}

func TestADemotionThatFails(t *testing.T) {
	full := schemas.Errorf(schemas.CodeOutOfMemory, "full")
	cancelled := schemas.Errorf(schemas.CodeCancelled, "by its client")
	for _, c := range []struct {
		name string
		run  func(b *bench, cp *catalog.Copy, onGPU uuid.UUID)
		want []string
	}{
		{"no room", func(b *bench, cp *catalog.Copy, _ uuid.UUID) {
			b.do(func() { b.c.Refused(cp, full, b.now) })
		}, []string{"d refused OUT_OF_MEMORY", "e refused OUT_OF_MEMORY"}},
		{"no room, and one was cancelled", func(b *bench, cp *catalog.Copy, _ uuid.UUID) {
			b.do(func() { b.c.Cancel("d", cancelled, b.now) })
			b.do(func() { b.c.Refused(cp, full, b.now) })
		}, []string{"d refused CANCELLED", "e refused OUT_OF_MEMORY"}},
		{"a copy that fails", func(b *bench, cp *catalog.Copy, _ uuid.UUID) {
			id := b.granted(cp)
			b.do(func() { b.c.Filled(cp, schemas.Errorf(schemas.CodeTransferFailed, "broken"), b.now) })
			b.released(id)
		}, []string{"step copy", "step release", "d refused TRANSFER_FAILED", "e refused TRANSFER_FAILED"}},
		{"both cancelled", func(b *bench, cp *catalog.Copy, _ uuid.UUID) {
			id := b.granted(cp)
			b.do(func() { b.c.Cancel("e", cancelled, b.now) })
			b.do(func() { b.c.Cancel("d", cancelled, b.now) })
			b.filled(cp)
			b.released(id)
		}, []string{"step copy", "e refused CANCELLED", "step stop", "step release", "d refused CANCELLED"}},
		{"a reader came", func(b *bench, cp *catalog.Copy, _ uuid.UUID) {
			b.granted(cp)
			b.filled(cp)
			b.load("r", catalog.LoadRequest{Device: "gpu-0", Reference: &catalog.Reference{ID: "r", Session: "s"}})
			b.sealed(cp)
			b.released(cp.Grant)
		}, []string{"step copy", "step seal", "r acquired", "step release", "d refused MODEL_IN_USE", "e refused MODEL_IN_USE"}},
		{"a mapper came first", func(b *bench, cp *catalog.Copy, onGPU uuid.UUID) {
			b.granted(cp)
			b.filled(cp)
			b.sealed(cp)
			b.do(func() { b.c.ReleaseRefused(onGPU, schemas.Errorf(schemas.CodeModelInUse, "mapped"), b.now) })
			b.released(cp.Grant)
		}, []string{"step copy", "step seal", "step release", "step release", "d refused MODEL_IN_USE", "e refused MODEL_IN_USE"}},
	} {
		b, onGPU := tiered(t)
		b.demote("d", false)
		cp := b.last()
		b.demote("e", false)
		b.said = nil
		c.run(b, cp, onGPU)
		if !slices.Equal(b.said, c.want) {
			t.Errorf("%s: it says %q, want %q", c.name, b.said, c.want)
		}
		m, err := b.c.Find("red", "m")
		if err != nil || m.Usable("gpu-0") == nil || m.Copy("ram-0") != nil {
			t.Errorf("%s: the model is %+v, %v", c.name, m, err)
		}
	}
}

// Dropped by force while it is on its way up, a model is loaded from nowhere.
func TestAPromotionThatLosesItsSource(t *testing.T) {
	b, onGPU := tiered(t)
	warm := b.down(onGPU)
	b.load("up", catalog.LoadRequest{Device: "gpu-0"})
	cp := b.last()
	id := b.granted(cp)
	b.do(func() {
		b.c.Unload(catalog.UnloadRequest{Ref: "u", Tenant: "red", Name: "m", Device: "ram-0", Force: true}, b.now)
	})
	b.do(func() { b.c.Filled(cp, schemas.Errorf(schemas.CodeTransferFailed, "interrupted"), b.now) })
	b.released(id)
	b.released(warm.Grant)
	b.says("step allocate", "step copy", "step release", "step release", "up refused MODEL_NOT_FOUND", "u unloaded [m] freed=4096 confirmed=true")
}

func TestACopyThatIsNotKeptWarm(t *testing.T) {
	b, onGPU := tiered(t)
	warm := b.down(onGPU)
	b.load("up", catalog.LoadRequest{Device: "gpu-0", Cold: true})
	cp := b.last()
	b.granted(cp)
	b.filled(cp)
	b.sealed(cp)
	b.says("step allocate", "step copy", "step seal", "step release", "up loaded v1 hit=false")
	if warm.State != catalog.Revoking {
		t.Fatalf("the warm copy is %s", warm.State)
	}
	b.demote("d", false)
	b.says("d refused BUSY") // until it is gone
}
