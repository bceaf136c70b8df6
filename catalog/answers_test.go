package catalog_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

func TestARetriedLoadIsAnsweredAcrossARestart(t *testing.T) {
	b := newBench(t, 1<<20)
	id := b.loaded(catalog.LoadRequest{Path: "m", Key: "red\x00k", Answer: func(cp *catalog.Copy) ledger.AnswerRecord {
		return ledger.AnswerRecord{Key: "red\x00k", Action: "memory.load_model", Grant: cp.Grant}
	}}, "c1")
	half := b.loaded(catalog.LoadRequest{Name: "going", Path: "g"}, "c2")
	cp, _ := b.c.ByGrant(half)
	b.do(func() { b.c.Evict(cp, "room", b.now) })
	orphan := uuid.UUID{1}
	c, rep, err := catalog.Restore(b.mem, policy(t), uuid.New, map[uuid.UUID]string{id: "ram-0", half: "ram-0", orphan: "ram-0"}, nil, b.now)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Models != 2 || len(rep.Lost) != 0 || len(rep.Answers) != 1 || rep.Answers[0].Grant != id || len(rep.Orphans) != 1 || rep.Orphans[0] != orphan {
		t.Fatalf("restored %+v", rep)
	}
	b.c, b.said = c, nil
	b.do(func() { b.c.Resume(b.now) })
	b.says("step release") // the eviction goes on
	b.load("a", file)
	b.says("a loaded v1 hit=true")
	b.do(func() { b.c.ForgetAnswers([]string{"red\x00k", "unknown"}) })
	// The memory of the other is gone: the model is known, and its loss is told.
	c, rep, err = catalog.Restore(b.mem, policy(t), uuid.New, nil, nil, b.now)
	if err != nil || len(rep.Lost) != 1 || rep.Lost[0] != "m" || len(rep.Answers) != 0 {
		t.Fatalf("restored %+v, %v", rep, err)
	}
	b.c, b.said = c, nil
	b.load("b", catalog.LoadRequest{})
	b.says("step inspect")
}

func TestProgressIsToldTenTimesASecond(t *testing.T) {
	b := newBench(t, 1<<20)
	b.load("a", file)
	cp := b.last()
	b.inspected(cp, "c1")
	b.granted(cp)
	events := 0
	for i := range 100 {
		b.now.Boot = b.now.Boot.Add(10 * time.Millisecond)
		b.c.Progress(cp, int64(i), b.now)
		events += len(b.c.Take().Events)
	}
	if events > 10 || events < 9 || cp.Done() != 99 {
		t.Fatalf("%d events of 100 reports in a second", events)
	}
}

// The device puts the allocation in line after the load was given up: it is taken back.
func TestALoadGivenUpBeforeItWaitsIsTakenBack(t *testing.T) {
	b := newBench(t, 1<<20)
	b.load("a", file)
	cp := b.last()
	b.inspected(cp, "c1")
	b.do(func() { b.c.Cancel("a", schemas.Errorf(schemas.CodeCancelled, "by its client"), b.now) })
	b.said = nil
	b.do(func() { b.c.Waiting(cp, 1, "no room") })
	b.says("step abandon")
	b.do(func() { b.c.Refused(cp, schemas.Errorf(schemas.CodeCancelled, "taken back"), b.now) })
	b.says("a refused CANCELLED")
	// Whatever else comes in is of a load that has failed already.
	b.do(func() { b.c.Refused(cp, schemas.Errorf(schemas.CodeCancelled, "taken back"), b.now) })
	b.says()
}

func TestAnUnloadOfSeveralIsConfirmedOnlyIfAllAre(t *testing.T) {
	b := newBench(t, 1<<20)
	x := b.loaded(catalog.LoadRequest{Device: "ram-0", Path: "m"}, "c1")
	y := b.loaded(catalog.LoadRequest{Device: "sim-0", Path: "m"}, "c1")
	b.do(func() { b.c.Unload(catalog.UnloadRequest{Ref: "u", Tenant: "red", Name: "m", Force: true}, b.now) })
	b.said = nil
	b.do(func() { b.c.Released(x, 0, 4096, false, b.now) })
	b.do(func() { b.c.Released(y, 4096, 0, true, b.now) })
	b.says("u unloaded [m] freed=4096 confirmed=false")
}

// A new version that cannot be recorded leaves the old one its name.
func TestAFullLedgerLeavesTheOldVersion(t *testing.T) {
	b := newBench(t, 16<<10)
	old := b.loaded(file, "c1")
	b.load("a", catalog.LoadRequest{Path: "m", Changed: true})
	cp := b.last()
	b.inspected(cp, "c2")
	id := b.granted(cp)
	b.filled(cp)
	for i := 0; b.c.KeepAnswer(fmt.Sprint("k", i), ledger.AnswerRecord{Key: fmt.Sprint("k", i)}, b.now) == nil; i++ {
	}
	b.said = nil
	b.sealed(cp)
	b.says("step release")
	if was, _ := b.c.ByGrant(old); was.Model.Superseded {
		t.Fatal("a version that was never there took the name")
	}
	b.do(func() { b.c.Released(id, 4096, 0, true, b.now) })
	b.says("a refused BUSY")
	b.load("b", file)
	b.says("b loaded v1 hit=true")
}
