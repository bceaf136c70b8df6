package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/schemas"
)

// order has the model's copy on gpu-0 go by way of main memory, and returns the copy that is
// made there.
func (b *bench) order(onGPU uuid.UUID) *catalog.Copy {
	b.t.Helper()
	cp, _ := b.c.ByGrant(onGPU)
	began := false
	if b.do(func() { began = b.c.EvictDown(cp, "ram-0", "somebody needs room", b.now) }); !began {
		b.t.Fatal("it is not evicted")
	}
	b.says("step allocate")
	if s := b.steps[len(b.steps)-1]; !s.Modest || s.Patience != 0 || s.Copy.Device != "ram-0" {
		b.t.Fatalf("main memory is asked by %+v", s)
	}
	return b.last()
}

// An eviction by way of main memory is a copy, and then a release; meanwhile the model can be
// evicted by nobody else. What main memory has already is not copied again.
func TestAnEvictionGoesDown(t *testing.T) {
	b, onGPU := tiered(t)
	from, _ := b.c.ByGrant(onGPU)
	down := b.order(onGPU)
	if got := b.c.Arriving("ram-0"); got != 1000 {
		t.Errorf("%d bytes are on their way to main memory, want 1000", got)
	}
	b.granted(down)
	b.says("step copy")
	if b.c.Arriving("ram-0") != 0 || b.c.Reclaimable("gpu-0") != 0 || b.c.Evict(from, "more room", b.now) || b.c.EvictDown(from, "ram-0", "more room", b.now) {
		t.Error("it may be evicted twice")
	}
	b.filled(down)
	b.sealed(down)
	b.says("step seal", "step release")
	if s := b.steps[len(b.steps)-1]; s.Grant != onGPU || s.Force || s.Why != catalog.WhyDemoted+": somebody needs room" {
		t.Fatalf("the release is %+v", s)
	}
	var kinds []string
	b.do(func() {
		b.c.Released(onGPU, 4096, 0, true, b.now)
		for _, e := range b.c.Take().Events {
			kinds = append(kinds, string(e.Kind)+" "+e.Copy.Device)
		}
	})
	if strings.Join(kinds, ", ") != "demoted gpu-0" {
		t.Errorf("it says %q", kinds)
	}
	if down.Home != "gpu-0" || down.State != catalog.Sealed {
		t.Errorf("the copy in main memory is %+v", down)
	}

	b.load("up", catalog.LoadRequest{Device: "gpu-0"})
	up := b.last()
	again := b.granted(up)
	b.filled(up)
	b.sealed(up)
	b.said = nil
	began := false
	b.do(func() { began = b.c.EvictDown(up, "ram-0", "room", b.now) })
	b.says("step release")
	if !began || up.Grant != again {
		t.Error("with its copy in main memory it is not released at once")
	}
	b.released(again)
	if b.c.EvictDown(down, "ram-0", "room", b.now) || b.c.EvictDown(from, "gpu-1", "room", b.now) {
		t.Error("what is in main memory, or has gone, is demoted")
	}
}

// What cannot be kept goes all the same; what somebody has come to use stays.
func TestAnEvictionThatCannotGoDown(t *testing.T) {
	full := schemas.Errorf(schemas.CodeOutOfMemory, "full")
	for _, c := range []struct {
		name string
		run  func(b *bench, from, down *catalog.Copy)
		want []string
		kept bool
	}{
		{"no room", func(b *bench, _, down *catalog.Copy) {
			b.do(func() { b.c.Refused(down, full, b.now) })
		}, []string{"step release"}, false},
		{"the copy fails", func(b *bench, _, down *catalog.Copy) {
			id := b.granted(down)
			b.do(func() { b.c.Filled(down, schemas.Errorf(schemas.CodeTransferFailed, "interrupted"), b.now) })
			b.released(id)
		}, []string{"step copy", "step release", "step release"}, false},
		{"it is needed at once", func(b *bench, _, down *catalog.Copy) {
			id := b.granted(down)
			b.do(func() { b.c.Hurry("gpu-1"); b.c.Hurry("gpu-0") })
			b.do(func() { b.c.Filled(down, nil, b.now) })
			b.released(id)
		}, []string{"step copy", "step stop", "step release", "step release"}, false},
		{"it is read meanwhile, and there is no room", func(b *bench, from, down *catalog.Copy) {
			b.load("r", catalog.LoadRequest{Device: "gpu-0", Reference: &catalog.Reference{ID: "r", Lease: time.Minute}})
			b.do(func() { b.c.Refused(down, full, b.now) })
		}, []string{"r acquired"}, true},
		{"it is used meanwhile", func(b *bench, from, down *catalog.Copy) {
			b.now.Boot = b.now.Boot.Add(time.Millisecond)
			b.load("r", catalog.LoadRequest{Device: "gpu-0"})
			id := b.granted(down)
			b.filled(down)
			b.sealed(down)
			b.released(id)
		}, []string{"r loaded v1 hit=true", "step copy", "step seal", "step release"}, true},
		{"its owner lets go of it", func(b *bench, from, down *catalog.Copy) {
			id := b.granted(down)
			b.do(func() { b.c.Unload(catalog.UnloadRequest{Ref: "u", Tenant: "red", Name: "m", Device: "gpu-0"}, b.now) })
			b.do(func() { b.c.Filled(down, schemas.Errorf(schemas.CodeTransferFailed, "interrupted"), b.now) })
			b.released(id)
			b.released(from.Grant)
		}, []string{"step copy", "step release", "step release", "u unloaded [m] freed=4096 confirmed=true"}, false},
		{"its owner wants it in main memory", func(b *bench, from, down *catalog.Copy) {
			b.demote("d", false)
			b.granted(down)
			b.filled(down)
			b.sealed(down)
			b.released(from.Grant)
		}, []string{"step copy", "step seal", "step release", "d unloaded [m] freed=4096 confirmed=true"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, onGPU := tiered(t)
			from, _ := b.c.ByGrant(onGPU)
			down := b.order(onGPU)
			b.kept = nil
			c.run(b, from, down)
			b.says(c.want...)
			if kept := len(b.kept) == 1 && b.kept[0] == onGPU; kept != c.kept || c.kept != (from.State == catalog.Sealed) {
				t.Errorf("%v are said to stay; it is %s", b.kept, from.State)
			}
		})
	}
}
