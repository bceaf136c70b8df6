package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
)

// victims are the names of what a plan would let go, in order.
func (b *bench) victims(w catalog.Want) string {
	b.t.Helper()
	w.Device = "ram-0"
	plan, whose := b.c.Plan(w, b.now.Boot)
	var names []string
	for i := range plan.Victims {
		names = append(names, whose[i].Model.Name)
	}
	return strings.Join(names, " ")
}

func TestAClientChoosesTheOrder(t *testing.T) {
	b := newBench(t, 1<<20)
	for _, name := range []string{"first", "second", "third"} {
		b.now.Boot = b.now.Boot.Add(time.Second)
		b.loaded(catalog.LoadRequest{Path: name, Name: name}, name)
	}
	use := func(name string) {
		b.now.Boot = b.now.Boot.Add(time.Second)
		b.load("again", catalog.LoadRequest{Name: name})
		b.said = nil
	}
	for _, name := range []string{"second", "second", "third", "first", "first", "first"} {
		use(name)
	}
	for strategy, want := range map[string]string{"lru": "second third first", "lfu": "third second first", "fifo": "first second third"} {
		if got := b.victims(catalog.Want{Bytes: 1 << 30, Strategy: strategy}); got != want {
			t.Errorf("%s lets go %s, want %s", strategy, got, want)
		}
	}
	if b.victims(catalog.Want{Bytes: 1 << 30, Strategy: "random"}) != b.victims(catalog.Want{Bytes: 1 << 30}) {
		t.Error("a strategy that nobody made is not the default one")
	}
}

func TestWhatAClientMayLeaveOut(t *testing.T) {
	b := newBench(t, 1<<20)
	b.loaded(catalog.LoadRequest{Path: "ours", Name: "ours"}, "c1")
	kept := b.loaded(catalog.LoadRequest{Path: "kept", Name: "kept"}, "c2")
	b.loaded(catalog.LoadRequest{Path: "named", Name: "named"}, "c3")
	b.loaded(catalog.LoadRequest{Path: "theirs", Name: "theirs", Tenant: "blue", Shared: true}, "c4")
	b.loaded(catalog.LoadRequest{Path: "pinned", Name: "pinned", Pinned: true}, "c5")
	w := catalog.Want{Bytes: 1 << 30, Force: true, Tenant: "red", Names: map[string]bool{"named": true}, Grants: map[uuid.UUID]bool{kept: true}}
	if got := b.victims(w); got != "ours" {
		t.Errorf("%s go, want ours alone", got)
	}
	w.Tenant, w.Names, w.Grants, w.MaxVictims = "", nil, nil, 3
	if got := b.victims(w); len(strings.Fields(got)) != 3 || strings.Contains(got, "pinned") {
		t.Errorf("%s go, want three, none of them pinned", got)
	}
	// What one plan says of models says nothing to the next, nor to who checks them.
	if got := b.victims(catalog.Want{Bytes: 1 << 30, LastVictim: kept}); !strings.HasSuffix(got, "kept") || len(strings.Fields(got)) != 4 {
		t.Errorf("%s go, want four, the one that was kept last", got)
	}
	if got := b.victims(catalog.Want{Bytes: 1 << 30}); strings.HasSuffix(got, "kept") || len(strings.Fields(got)) != 4 {
		t.Errorf("%s go, want four, in order", got)
	}
	if err := b.c.Check(); err != nil {
		t.Error(err)
	}
}

func TestForceEndsReferences(t *testing.T) {
	b := newBench(t, 1<<20)
	id := b.loaded(file, "c1")
	b.load("holder", catalog.LoadRequest{Reference: &catalog.Reference{ID: "r1", Lease: time.Hour}, Keep: true})
	b.said = nil
	cp, _ := b.c.ByGrant(id)
	if b.victims(catalog.Want{Bytes: 1}) != "" || b.victims(catalog.Want{Bytes: 1, Force: true}) != "m" {
		t.Error("a reference holds it, and force alone takes it")
	}
	b.do(func() {
		if b.c.Evict(cp, "room", b.now) {
			t.Error("it goes without force")
		}
	})
	b.do(func() {
		if !b.c.EvictByForce(cp, time.Second, "room", b.now) || b.c.EvictByForce(cp, time.Second, "room", b.now) {
			t.Error("force takes it once")
		}
	})
	b.says("step release")
	if s := b.steps[len(b.steps)-1]; !s.Force || s.Deadline != time.Second || cp.Readers() != 0 {
		t.Errorf("step %+v with %d readers", s, cp.Readers())
	}
	b.do(func() { b.c.Released(id, 4096, 0, true, b.now) })
	pinned := b.loaded(catalog.LoadRequest{Path: "p", Name: "p", Pinned: true}, "c2")
	cp, _ = b.c.ByGrant(pinned)
	b.do(func() {
		if b.c.EvictByForce(cp, 0, "room", b.now) {
			t.Error("a pinned model goes by force")
		}
	})
}
