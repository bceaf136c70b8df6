package catalog_test

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
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

// BenchmarkPlan is the choice among 10,000 models of a device, for one of them, for 5 % of
// all bytes, and for one where their tenant may lose half of all, with everything that the catalog knows of them.
func BenchmarkPlan(b *testing.B) {
	const models = 10_000
	region, err := store.Format(make([]byte, 64<<20), "pool")
	if err != nil {
		b.Fatal(err)
	}
	c := catalog.New(region, policy(b), uuid.New)
	random := rand.New(rand.NewSource(1))
	now := ledger.Now{Boot: clock.Instant(time.Hour), Wall: time.Unix(1000, 0)}
	var all int64
	for i := range models {
		name, bytes := fmt.Sprintf("model-%d", i), 1e8+random.Int63n(7e9)
		var cp *catalog.Copy
		step := func() {
			for _, s := range c.Take().Steps {
				cp = s.Copy
			}
		}
		c.Load(catalog.LoadRequest{Ref: name, Tenant: "red", Name: name, Path: name, Device: "gpu-0"}, now)
		step()
		c.Inspected(cp, nil, catalog.Description{Path: name, ContentID: name, Bytes: bytes, Segments: []int64{bytes}}, nil, now)
		step()
		c.Granted(cp, uuid.New(), bytes, nil, 0, now)
		step()
		now.Boot = now.Boot.Add(time.Duration(random.Int63n(int64(time.Second))))
		c.Filled(cp, nil, now)
		step()
		c.SealDone(cp, nil, now)
		c.Take()
		all += bytes
	}
	floor := []ledger.TenantFigures{{Quota: ledger.Quota{Tenant: "red", Floor: all / 2}, Used: all}}
	for name, w := range map[string]catalog.Want{
		"one": {Bytes: 1e9}, "5%": {Bytes: all / 20}, "one of a tenant with a floor": {Bytes: 1e9, Quotas: floor},
	} {
		w.Device = "gpu-0"
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if plan, _ := c.Plan(w, now.Boot); plan.Shortfall > 0 || len(plan.Victims) == 0 {
					b.Fatalf("%d victims, short of %d", len(plan.Victims), plan.Shortfall)
				}
			}
		})
	}
}
