package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/schemas"
)

// guess is a device of a hundred pages, and loads whose size is not known yet.
type guess struct {
	*ledgertest.Machine
	t *testing.T
}

func newGuess(t *testing.T) guess {
	cfg := ledgertest.Settings(100 * page)
	cfg.Warm = nil
	m, err := ledgertest.NewMachine(cfg, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return guess{m, t}
}

func (g guess) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// load asks for a model of about so many pages; ask for memory at once.
func (g guess) load(name, tenant string, pages int64) *ledger.Request {
	return g.request(&ledger.Request{Ref: name, Owner: ledger.Owner{Tenant: tenant}, Class: ledger.ClassWeights, Model: name, Unclaimed: true,
		Size: pages * page, Estimated: true, Patience: time.Minute})
}

func (g guess) ask(ref, tenant string, pages int64) *ledger.Request {
	return g.request(&ledger.Request{Ref: ref, Owner: ledger.Owner{Tenant: tenant}, Class: ledger.ClassReservation, Size: pages * page, Patience: time.Minute})
}

func (g guess) request(r *ledger.Request) *ledger.Request {
	g.t.Helper()
	g.must(g.Call(func() { g.Core.Allocate(r, g.Now) }))
	return r
}

func (g guess) measured(r *ledger.Request, pages int64) {
	g.t.Helper()
	g.must(g.Measure(r.Ticket(), []int64{pages * page}))
	g.must(g.Settle())
}

// line is who waits, in order.
func (g guess) line() string {
	var refs []string
	g.Core.Waiting(func(_ int, r *ledger.Request) { refs = append(refs, fmt.Sprint(r.Ref)) })
	return strings.Join(refs, " ")
}

func (g guess) granted(ref string) bool { return g.Final[ref].Kind == ledger.OutcomeGranted }

// What a load may take is reserved before its files are read; what was too much can be had
// again as soon as that is known.
func TestAnEstimateIsReserved(t *testing.T) {
	g := newGuess(t)
	m := g.load("m", "red", 60)
	if f := g.Core.Figures(); f.Reserved != 60*page || f.Free != 40*page {
		t.Fatalf("reserved %d, free %d", f.Reserved, f.Free)
	}
	g.ask("b", "red", 50)
	if g.granted("b") {
		t.Fatal("what is reserved was given to another")
	}
	g.measured(m, 40)
	if f := g.Core.Figures(); !g.granted("m") || !g.granted("b") || f.Free != 10*page {
		t.Fatalf("after the correction %+v, waiting %q", f, g.line())
	}
}

// An overrun is paid before anything else is granted, whoever is before others in line.
func TestAnOverrunIsPaidFirst(t *testing.T) {
	g := newGuess(t)
	g.ask("a", "red", 50)
	m := g.load("m", "red", 50)
	g.ask("urgent", "blue", 30)
	g.must(g.Call(func() {
		g.Core.Allocate(&ledger.Request{Ref: "more urgent", Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassReservation, Size: 10 * page, Priority: 9, Patience: time.Minute}, g.Now)
	}))
	g.measured(m, 70)
	if got := g.line(); !strings.HasPrefix(got, "m ") {
		t.Fatalf("waiting are %s", got)
	}
	if f := g.Core.Figures(); f.Deficit != 20*page || f.Reserved != 50*page {
		t.Fatalf("the deficit is %d pages, %d are reserved", f.Deficit/page, f.Reserved/page)
	}
	// Twenty pages and more are free, and nobody else gets them.
	g.must(g.Call(func() {
		g.Core.Release(ledger.ReleaseRequest{Grant: g.Final["a"].Grant.ID, Tenant: "red", Why: ledger.WhyDeallocated}, g.Now)
	}))
	g.must(g.Settle())
	if !g.granted("m") || !g.granted("urgent") || g.line() != "more urgent" { // red has paid for its overrun
		t.Fatalf("the load is granted: %v; waiting are %q", g.granted("m"), g.line())
	}
}

// A load that waits is corrected in its place.
func TestAnEstimateIsCorrectedInLine(t *testing.T) {
	g := newGuess(t)
	g.ask("a", "red", 90)
	m := g.load("m", "red", 50)
	g.ask("b", "red", 20)
	g.measured(m, 10)
	if !g.granted("m") || g.line() != "b" {
		t.Fatalf("waiting are %q", g.line())
	}
	n := g.load("n", "red", 5)
	g.must(g.Measure(n.Ticket(), []int64{200 * page}))
	if o := g.Final["n"]; o.Kind != ledger.OutcomeRefused || !errors.Is(o.Err, schemas.Errorf(schemas.CodeOutOfMemory, "")) {
		t.Fatalf("what can never fit became %+v", o)
	}
}

// A reservation that is given up leaves nothing behind, nor does a load of nothing.
func TestAnEstimateIsTakenBack(t *testing.T) {
	g := newGuess(t)
	before := g.Core.Figures()
	m := g.load("m", "red", 60)
	g.must(g.Call(func() { g.Core.Cancel(m.Ticket(), schemas.Errorf(schemas.CodeCancelled, "by its client"), g.Now) }))
	g.measured(m, 60) // too late
	n := g.load("n", "red", 60)
	g.must(g.Measure(n.Ticket(), nil))
	if o := g.Final["n"]; o.Kind != ledger.OutcomeRefused {
		t.Fatalf("a model of nothing became %+v", o)
	}
	if got := g.Core.Figures(); got != before || !g.Core.Idle() {
		t.Fatalf("the figures are %+v, were %+v", got, before)
	}
}

// Models that are being made count against the limit for models, so that two that fit alone
// are not both promised.
func TestModelsBeingLoadedCountAgainstTheirLimit(t *testing.T) {
	for _, estimated := range []bool{false, true} {
		g := newGuess(t)
		most := int64(50 * page)
		g.must(g.Call(func() { g.Core.SetLimits(nil, &most, nil, g.Now) }))
		for _, name := range []string{"m", "n"} {
			r := &ledger.Request{Ref: name, Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassWeights, Model: name, Unclaimed: true, Patience: time.Minute,
				Size: 30 * page, Estimated: estimated}
			if !estimated {
				r.Segments = []int64{30 * page}
			}
			g.request(r)
		}
		if g.line() != "n" {
			t.Fatalf("waiting are %q", g.line())
		}
	}
}
