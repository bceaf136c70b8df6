package catalog_test

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// bench drives a catalog by hand and writes down what it wants and says.
type bench struct {
	t      *testing.T
	c      *catalog.Catalog
	mem    []byte
	now    ledger.Now
	grants int
	said   []string
	steps  []catalog.Step
	kept   []uuid.UUID
}

func newBench(t *testing.T, bytes int) *bench {
	b := &bench{t: t, mem: make([]byte, bytes), now: ledger.Now{Boot: clock.Instant(time.Hour), Wall: time.Unix(1000, 0)}}
	region, err := store.Format(b.mem, "pool")
	if err != nil {
		t.Fatal(err)
	}
	b.c = catalog.New(region, policy(t), uuid.New)
	return b
}

var stepNames = map[catalog.StepKind]string{catalog.StepInspect: "inspect", catalog.StepAllocate: "allocate", catalog.StepFill: "fill", catalog.StepCopy: "copy",
	catalog.StepSeal: "seal", catalog.StepRelease: "release", catalog.StepAbandon: "abandon", catalog.StepStop: "stop"}

var outcomeNames = map[catalog.OutcomeKind]string{catalog.OutcomeLoaded: "loaded", catalog.OutcomePlanned: "planned", catalog.OutcomeRefused: "refused",
	catalog.OutcomeUnloaded: "unloaded", catalog.OutcomeAcquired: "acquired"}

func (b *bench) do(f func()) {
	b.t.Helper()
	f()
	if err := b.c.Check(); err != nil {
		b.t.Fatal(err)
	}
	e := b.c.Take()
	b.kept = append(b.kept, e.Kept...)
	for _, s := range e.Steps {
		b.said = append(b.said, "step "+stepNames[s.Kind])
		b.steps = append(b.steps, s)
	}
	for _, o := range e.Outcomes {
		switch o.Kind {
		case catalog.OutcomeProgress:
		case catalog.OutcomeRefused:
			b.said = append(b.said, fmt.Sprintf("%v refused %s", o.Ref, o.Err.Code))
		case catalog.OutcomeLoaded:
			b.said = append(b.said, fmt.Sprintf("%v loaded v%s hit=%v", o.Ref, o.Copy.Model.VersionString(), o.Hit))
		case catalog.OutcomeUnloaded:
			b.said = append(b.said, fmt.Sprintf("%v unloaded %v freed=%d confirmed=%v", o.Ref, o.Names, o.Freed, o.Confirmed))
		default:
			b.said = append(b.said, fmt.Sprintf("%v %s", o.Ref, outcomeNames[o.Kind]))
		}
	}
}

// says checks what was wanted and said since the last time.
func (b *bench) says(want ...string) {
	b.t.Helper()
	if len(b.said)+len(want) > 0 && !reflect.DeepEqual(b.said, want) {
		b.t.Fatalf("it says %q, want %q", b.said, want)
	}
	b.said = nil
}

func (b *bench) load(ref string, r catalog.LoadRequest) {
	b.t.Helper()
	r.Ref = ref
	if r.Tenant == "" {
		r.Tenant = "red"
	}
	if r.Name == "" {
		r.Name = "m"
	}
	if r.Device == "" {
		r.Device = "ram-0"
	}
	b.do(func() { b.c.Load(r, b.now) })
}

func (b *bench) last() *catalog.Copy { return b.steps[len(b.steps)-1].Copy }

func (b *bench) inspected(cp *catalog.Copy, content string) {
	b.t.Helper()
	b.do(func() {
		b.c.Inspected(cp, nil, catalog.Description{Path: "/models/m", ContentID: content, Bytes: 1000, Segments: []int64{1000}}, nil, b.now)
	})
}

func (b *bench) granted(cp *catalog.Copy) uuid.UUID {
	b.t.Helper()
	b.grants++
	id := uuid.UUID{15: byte(b.grants)}
	b.do(func() { b.c.Granted(cp, id, 4096, nil, 0, b.now) })
	return id
}

func (b *bench) filled(cp *catalog.Copy) { b.do(func() { b.c.Filled(cp, nil, b.now) }) }
func (b *bench) sealed(cp *catalog.Copy) { b.do(func() { b.c.SealDone(cp, nil, b.now) }) }

// loaded brings a model to a device, and forgets what was said of it.
func (b *bench) loaded(r catalog.LoadRequest, content string) uuid.UUID {
	b.t.Helper()
	b.load("load", r)
	cp := b.last()
	b.inspected(cp, content)
	cp = b.last()
	id := b.granted(cp)
	b.filled(cp)
	b.sealed(cp)
	b.said = nil
	return id
}

var file = catalog.LoadRequest{Path: "m"}

func TestTheFirstLoadWinsAndOthersWait(t *testing.T) {
	b := newBench(t, 1<<20)
	b.load("first", file)
	cp := b.last()
	b.says("step inspect")
	b.load("second", catalog.LoadRequest{})
	b.says()
	b.inspected(cp, "c1")
	b.says("step allocate")
	b.granted(cp)
	b.says("step fill")
	b.filled(cp)
	b.says("step seal")
	b.load("third", file)
	b.sealed(cp)
	b.says("first loaded v1 hit=false", "second loaded v1 hit=true", "third loaded v1 hit=true")
	b.load("fourth", file)
	b.says("fourth loaded v1 hit=true")
	if hits, all := b.c.HitRate(); hits != 1 || all != 4 {
		t.Fatalf("%d hits of %d", hits, all)
	}
}

func TestAnUnknownModelNeedsAPath(t *testing.T) {
	b := newBench(t, 1<<20)
	b.load("a", catalog.LoadRequest{})
	b.says("a refused MODEL_NOT_FOUND")
}

func TestAnotherFileUnderAResidentNameIsAConflict(t *testing.T) {
	b := newBench(t, 1<<20)
	b.loaded(file, "c1")
	b.load("a", catalog.LoadRequest{Path: "other"})
	b.says("a refused MODEL_CONFLICT")
	// The path as it was written, and as it was resolved, are the same file.
	b.load("b", catalog.LoadRequest{Path: "/models/m"})
	b.says("b loaded v1 hit=true")
}

func TestALoadIsGivenUpAtEachStep(t *testing.T) {
	cancelled := schemas.Errorf(schemas.CodeCancelled, "by its client")
	for at, want := range []string{"inspect", "allocate", "fill", "seal"} {
		t.Run(want, func(t *testing.T) {
			b := newBench(t, 1<<20)
			b.load("a", file)
			cp := b.last()
			id := uuid.Nil
			steps := []func(){func() { b.inspected(cp, "c1") }, func() { id = b.granted(cp) }, func() { b.filled(cp) }, func() { b.sealed(cp) }}
			for _, f := range steps[:at] {
				f()
			}
			b.said = nil
			b.do(func() { b.c.Cancel("a", cancelled, b.now) })
			if at < 2 {
				b.says("step abandon")
			} else {
				b.says("step stop")
			}
			b.load("b", file)
			b.says("b refused BUSY")
			// What was under way ends, one way or the other.
			steps[at]()
			if id != uuid.Nil {
				b.says("step release")
				b.do(func() { b.c.Released(id, 4096, 0, true, b.now) })
			}
			b.says("a refused CANCELLED")
			if _, err := b.c.Find("red", "m"); err == nil {
				t.Fatal("a model of which nothing was ever loaded is known")
			}
			b.load("c", file)
			b.says("step inspect")
		})
	}
}

func TestOneOfSeveralWaitersLeaves(t *testing.T) {
	b := newBench(t, 1<<20)
	b.load("a", file)
	b.load("b", file)
	cp := b.last()
	b.said = nil
	b.do(func() { b.c.Cancel("a", schemas.Errorf(schemas.CodeCancelled, "by its client"), b.now) })
	b.says("a refused CANCELLED")
	b.inspected(cp, "c1")
	b.granted(cp)
	b.filled(cp)
	b.said = nil
	b.sealed(cp)
	b.says("b loaded v1 hit=false")
}

func TestARefusedAllocationFailsTheLoad(t *testing.T) {
	b := newBench(t, 1<<20)
	b.load("a", file)
	b.load("b", file)
	cp := b.last()
	b.inspected(cp, "c1")
	b.said = nil
	b.do(func() { b.c.Refused(cp, schemas.Errorf(schemas.CodeOutOfMemory, "no room"), b.now) })
	b.says("a refused OUT_OF_MEMORY", "b refused OUT_OF_MEMORY")
}

func TestWhoReadsAModelKeepsIt(t *testing.T) {
	b := newBench(t, 1<<20)
	id := b.loaded(file, "c1")
	cp, _ := b.c.ByGrant(id)
	if b.c.Reclaimable("ram-0") != 4096 {
		t.Fatal("an unread model is not reclaimable")
	}
	b.do(func() { b.c.Mapped(ledger.Reader{Grant: id, Session: "s1", PID: 1001}, b.now) })
	if b.c.Reclaimable("ram-0") != 0 || b.c.Evict(cp, "room", b.now) {
		t.Fatal("a model that is read was evicted")
	}
	unload := catalog.UnloadRequest{Ref: "u", Tenant: "red", Name: "m"}
	b.do(func() { b.c.Unload(unload, b.now) })
	b.says("u refused MODEL_IN_USE")
	unload.Force = true
	b.do(func() { b.c.Unload(unload, b.now) })
	b.says("step release")
	b.load("a", file)
	b.says("a refused BUSY")
	// It is pinned by its reader past the deadline, and free at last.
	b.do(func() { b.c.Released(id, 0, 4096, false, b.now) })
	b.says("u unloaded [m] freed=0 confirmed=false")
	b.do(func() { b.c.Released(id, 4096, 0, true, b.now) })
	b.says()
	b.load("b", catalog.LoadRequest{})
	b.says("step inspect")
}

func TestAReferenceKeepsAModelUntilItsLeaseEnds(t *testing.T) {
	b := newBench(t, 1<<20)
	id := b.loaded(catalog.LoadRequest{Path: "m", Pinned: false, Priority: 3}, "c1")
	b.load("a", catalog.LoadRequest{Reference: &catalog.Reference{ID: "r", Lease: time.Second}, Keep: true})
	b.says("a acquired")
	cp, _ := b.c.ByGrant(id)
	if cp.Model.Priority != 3 {
		t.Fatal("acquiring a model changed its priority")
	}
	if b.c.Evict(cp, "room", b.now) {
		t.Fatal("an acquired model was evicted")
	}
	if at, ok := b.c.Next(); !ok || at != b.now.Boot.Add(time.Second) {
		t.Fatalf("next at %d", at)
	}
	if _, err := b.c.Renew("red", "r", catalog.Reference{Lease: 2 * time.Second}, b.now); err != nil {
		t.Fatal(err)
	}
	b.now.Boot = b.now.Boot.Add(time.Second)
	b.do(func() { b.c.Tick(b.now) })
	if cp.Readers() != 1 {
		t.Fatal("a renewed lease ran out")
	}
	b.now.Boot = b.now.Boot.Add(time.Second)
	b.do(func() { b.c.Tick(b.now) })
	b.do(func() {
		if !b.c.Evict(cp, "room", b.now) {
			t.Fatal("nobody holds it, and it is not evictable")
		}
	})
	b.says("step release")
	// The device refuses: somebody mapped it in the meantime. It stays.
	b.do(func() { b.c.ReleaseRefused(id, schemas.Errorf(schemas.CodeModelInUse, "mapped"), b.now) })
	b.load("b", file)
	b.says("b loaded v1 hit=true")
}

func TestAChangedFileIsANewVersion(t *testing.T) {
	b := newBench(t, 1<<20)
	old := b.loaded(file, "c1")
	b.do(func() { b.c.Mapped(ledger.Reader{Grant: old, Session: "s1", PID: 1001}, b.now) })
	b.load("a", catalog.LoadRequest{Path: "m", Changed: true})
	b.says("step inspect")
	cp := b.last()
	b.inspected(cp, "c2")
	b.granted(cp)
	b.filled(cp)
	b.said = nil
	b.sealed(cp)
	b.says("a loaded v2 hit=false")
	first, _ := b.c.ByGrant(old)
	if !first.Model.Superseded {
		t.Fatal("the old version still has its name")
	}
	plan, whose := b.c.Plan(catalog.Want{Device: "ram-0", Bytes: 8192, Force: true}, b.now.Boot)
	if len(whose) != 2 || whose[0].Model.Superseded || whose[1] != first || plan.Victims[1].Key != "ram-0/red/m@1" || !math.IsInf(plan.Victims[1].Value, -1) {
		t.Errorf("with force, the new version goes first, which nobody reads: %+v", plan)
	}
	b.load("b", file)
	b.says("b loaded v2 hit=true")
	// Its reader lets go: nobody else can come by it.
	b.do(func() { b.c.Mapped(ledger.Reader{Grant: old, Session: "s1", PID: 1001, Gone: true}, b.now) })
	b.says("step release")
	b.do(func() { b.c.Released(old, 4096, 0, true, b.now) })
	b.said = nil
	b.do(func() { b.c.Unload(catalog.UnloadRequest{Ref: "u", Tenant: "red", Name: "*"}, b.now) })
	b.says("step release")
}

func TestATouchedFileIsTheSameVersion(t *testing.T) {
	b := newBench(t, 1<<20)
	b.loaded(file, "c1")
	b.load("a", catalog.LoadRequest{Path: "m", Changed: true})
	b.said = nil
	b.inspected(b.last(), "c1")
	b.says("a loaded v1 hit=true")
}

func TestAFailedNewVersionLeavesTheOldOne(t *testing.T) {
	b := newBench(t, 1<<20)
	b.loaded(file, "c1")
	b.load("a", catalog.LoadRequest{Path: "m", Changed: true})
	cp := b.last()
	b.inspected(cp, "c2")
	b.said = nil
	b.do(func() { b.c.Refused(cp, schemas.Errorf(schemas.CodeOutOfMemory, "no room"), b.now) })
	b.says("a refused OUT_OF_MEMORY")
	b.load("b", file)
	b.says("b loaded v1 hit=true")
}

func TestAnotherTenantsModels(t *testing.T) {
	b := newBench(t, 1<<20)
	b.loaded(catalog.LoadRequest{Path: "m", Shared: true}, "c1")
	b.load("shared", catalog.LoadRequest{Tenant: "blue"})
	b.says("shared loaded v1 hit=true")
	b.do(func() { b.c.Unload(catalog.UnloadRequest{Ref: "u", Tenant: "blue", Name: "m", Force: true}, b.now) })
	b.says("u refused FORBIDDEN")
	b.load("own", catalog.LoadRequest{Tenant: "blue", Path: "their own"})
	b.says("step inspect")
	b.load("red", catalog.LoadRequest{Name: "private", Path: "p"})
	b.said = nil
	b.load("blue", catalog.LoadRequest{Tenant: "blue", Name: "private"})
	b.says("blue refused MODEL_NOT_FOUND")
}

func TestUnloadingAllGathersTheEnds(t *testing.T) {
	b := newBench(t, 1<<20)
	x := b.loaded(catalog.LoadRequest{Name: "x", Path: "x"}, "c1")
	y := b.loaded(catalog.LoadRequest{Name: "y", Path: "y"}, "c2")
	b.load("z", catalog.LoadRequest{Name: "z", Path: "z"})
	z := b.last()
	b.said = nil
	b.do(func() { b.c.Unload(catalog.UnloadRequest{Ref: "u", Tenant: "red", Name: "*"}, b.now) })
	b.says("step release", "step release", "step abandon")
	b.do(func() { b.c.Released(y, 4096, 0, true, b.now) })
	b.do(func() { b.c.Released(x, 4096, 0, true, b.now) })
	b.says()
	b.inspected(z, "c3")
	b.says("z refused MODEL_NOT_FOUND", "u unloaded [x y z] freed=8192 confirmed=true")
	b.do(func() { b.c.Unload(catalog.UnloadRequest{Ref: "v", Tenant: "red", Name: "*"}, b.now) })
	b.says("v unloaded [] freed=0 confirmed=true")
}

func TestDryRuns(t *testing.T) {
	b := newBench(t, 1<<20)
	b.load("a", catalog.LoadRequest{Path: "m", DryRun: true})
	b.says("step inspect")
	r := b.steps[0].Request
	b.do(func() { b.c.Inspected(nil, r, catalog.Description{Segments: []int64{7}}, nil, b.now) })
	b.says("a planned")
	if _, err := b.c.Find("red", "m"); err == nil {
		t.Fatal("a dry run left a model")
	}
	b.loaded(file, "c1")
	b.load("b", catalog.LoadRequest{DryRun: true})
	b.says("b planned")
}

func TestThePlanSparesWhatIsReadPinnedOrWanted(t *testing.T) {
	b := newBench(t, 1<<20)
	ids := map[string]uuid.UUID{}
	for _, name := range []string{"read", "pinned", "free"} {
		ids[name] = b.loaded(catalog.LoadRequest{Name: name, Path: name, Pinned: name == "pinned"}, name)
	}
	b.do(func() { b.c.Mapped(ledger.Reader{Grant: ids["read"], Session: "s1", PID: 1}, b.now) })
	plan, whose := b.c.Plan(catalog.Want{Device: "ram-0", Bytes: 5000}, b.now.Boot)
	if len(plan.Victims) != 1 || whose[0].Model.Name != "free" || plan.Shortfall != 5000-4096 {
		t.Fatalf("the plan is %+v", plan)
	}
}

// A ledger that is full refuses the load, gives its bytes back, and stays consistent.
func TestAFullLedgerRefusesTheLoad(t *testing.T) {
	b := newBench(t, 16<<10)
	for i := range 100 {
		r := catalog.LoadRequest{Name: fmt.Sprint("m", i), Path: fmt.Sprint("p", i)}
		b.load("a", r)
		cp := b.last()
		b.inspected(cp, fmt.Sprint("c", i))
		id := b.granted(cp)
		b.filled(cp)
		b.said = nil
		b.sealed(cp)
		if b.said[0] != "step release" {
			continue
		}
		b.said = nil
		b.do(func() { b.c.Released(id, 4096, 0, true, b.now) })
		b.says("a refused BUSY")
		b.load("b", catalog.LoadRequest{Name: "m0"})
		b.says("b loaded v1 hit=true")
		return
	}
	t.Fatal("the ledger never fills up")
}

// The pool may hear from others before it has carried out what its catalog wanted.
func TestEachStepIsTakenOnce(t *testing.T) {
	b := newBench(t, 1<<20)
	b.c.Load(catalog.LoadRequest{Ref: "a", Tenant: "red", Name: "m", Path: "m", Device: "ram-0"}, b.now)
	b.c.Touch(uuid.UUID{1}, b.now)
	if steps := b.c.Take().Steps; len(steps) != 1 || steps[0].Kind != catalog.StepInspect {
		t.Fatalf("steps %+v", steps)
	}
	if again := b.c.Take().Steps; len(again) != 0 {
		t.Fatalf("taken again: %+v", again)
	}
}

// While no client can reach the node its references stay, and afterwards for a grace.
func TestAReferenceOutlastsAnAbsence(t *testing.T) {
	b := newBench(t, 1<<20)
	id := b.loaded(catalog.LoadRequest{Path: "m"}, "c1")
	b.load("a", catalog.LoadRequest{Reference: &catalog.Reference{ID: "r", Lease: time.Minute}, Keep: true})
	b.says("a acquired")
	cp, _ := b.c.ByGrant(id)
	later := func(d time.Duration) {
		b.now.Boot = b.now.Boot.Add(d)
		b.do(func() { b.c.Tick(b.now) })
	}
	b.c.Away(b.now)
	later(time.Hour)
	if _, ok := b.c.Next(); ok || cp.Readers() != 1 {
		t.Fatal("the lease's clock did not stand still")
	}
	b.do(func() { b.c.Back(2*time.Minute, b.now) })
	if at, ok := b.c.Next(); !ok || at != b.now.Boot.Add(2*time.Minute) {
		t.Fatalf("next at %d", at)
	}
	later(2 * time.Minute)
	if cp.Readers() != 0 {
		t.Fatal("the lease goes on for ever")
	}
}
