package ledger_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/schemas"
)

// gaps is a device of one tenant with a segment of 64 KiB that is half free, in holes of 5 KiB:
// the device has no more, or the tenant may not have more.
type gaps struct {
	*ledgertest.Machine
	t     *testing.T
	owner ledger.Owner
	stay  []*ledgertest.Live
}

func newGaps(t *testing.T, quota bool) *gaps {
	t.Helper()
	limit := int64(64 << 10)
	if quota {
		limit *= 4
	}
	cfg := ledgertest.Settings(limit)
	cfg.Warm = nil
	m, err := ledgertest.NewMachine(cfg, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	g := &gaps{m, t, ledger.Owner{Tenant: "red", UID: 7}, nil}
	if quota {
		hard := int64(64 << 10)
		g.do(func() { m.Core.SetQuota(ledger.QuotaChange{Tenant: "red", Hard: &hard}, m.Now) })
	}
	var claims []string
	for i := range 12 {
		g.do(func() {
			m.Core.Allocate(&ledger.Request{Ref: i, Size: 5000, Owner: g.owner, Class: ledger.ClassState}, m.Now)
		})
		g.settle()
		claims = append(claims, m.Final[i].Claim)
	}
	for i, claim := range claims {
		for _, l := range m.Grants() {
			switch {
			case l.Claim != claim:
			case i%2 == 0:
				g.stay = append(g.stay, l)
			default:
				g.do(func() { m.Core.Release(ledger.ReleaseRequest{Grant: l.ID, Tenant: "red"}, m.Now) })
			}
		}
	}
	g.settle()
	return g
}

func (g *gaps) do(f func()) {
	g.t.Helper()
	if err := g.Call(f); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gaps) settle() {
	g.t.Helper()
	if err := g.Settle(); err != nil {
		g.t.Fatal(err)
	}
}

// ask asks for two holes in one, and says what became of it.
func (g *gaps) ask(ref string, patience time.Duration) ledger.Outcome {
	g.t.Helper()
	r := &ledger.Request{Ref: ref, Size: 10000, Owner: g.owner, Class: ledger.ClassScratch, Patience: patience}
	plan := g.Core.Plan(r, g.Now)
	g.do(func() { g.Core.Allocate(r, g.Now) })
	g.settle()
	o := g.Final[ref]
	if (plan.Outcome == "granted") != (o.Kind == ledger.OutcomeGranted) {
		g.t.Errorf("%s: the dry run said %q (%s), it became %d", ref, plan.Outcome, plan.Reason, o.Kind)
	}
	return o
}

// maps has a session map a grant.
func (g *gaps) maps(l *ledgertest.Live) {
	g.t.Helper()
	g.do(func() {
		g.Core.Map(ledger.MapRequest{Session: "s1", PID: ledgertest.PID("s1"), UID: 7, Digest: ledger.DigestOf(l.Claim), Mode: ledger.ReadWrite}, g.Now)
	})
	g.settle()
}

func (g *gaps) unmap(l *ledgertest.Live) {
	g.t.Helper()
	g.LetGo("s1", l.Segments)
	g.do(func() { g.Core.Unmap("s1", l.ID, g.Now) })
	g.settle()
}

// A request that fits its owner's segment by the bytes, but not in one piece, is granted there
// where there is no other memory: blocks that nobody maps are moved for it. With all of
// them mapped it is refused.
func TestBlocksAreMovedTogetherForARequest(t *testing.T) {
	for _, quota := range []bool{false, true} {
		t.Run(fmt.Sprintf("quota %v", quota), func(t *testing.T) {
			g := newGaps(t, quota)
			segments := len(g.Segments)
			if o := g.ask("with", 0); o.Kind != ledger.OutcomeGranted || len(g.Segments) != segments {
				t.Fatalf("it became %+v with %d segments", o.Err, len(g.Segments))
			}
			moved := 0
			for _, l := range g.stay {
				if grant, ok := g.Core.Grant(l.ID); ok {
					for _, i := range grant.History() {
						if i.Event == "moved" {
							moved++
						}
					}
				}
			}
			if moved != 1 {
				t.Errorf("%d grants were moved, where one is enough", moved)
			}

			g = newGaps(t, quota)
			for _, l := range g.stay {
				g.maps(l)
			}
			want := schemas.CodeOutOfMemory
			if quota {
				want = schemas.CodeQuotaExceeded
			}
			g.ask("without", 0)
			g.do(func() { g.Core.NoRoom(g.Final["without"].Ticket, g.Now) })
			if o := g.Final["without"]; o.Kind != ledger.OutcomeRefused || o.Err.Code != want {
				t.Fatalf("with every block mapped it became %+v", o)
			}
		})
	}
}

// One that waits is granted once blocks may be moved; a grant that is mapped while its block
// is being copied keeps its place.
func TestAWaitingRequestHasBlocksMoved(t *testing.T) {
	g := newGaps(t, false)
	for _, l := range g.stay {
		g.maps(l)
	}
	if o := g.ask("waits", time.Hour); o.Kind != ledger.OutcomeQueued {
		t.Fatalf("it became %+v", o)
	}
	release := func() {
		t.Helper()
		for _, l := range g.stay {
			g.unmap(l)
		}
		if o := g.Final["waits"]; o.Kind != ledger.OutcomeQueued {
			t.Fatalf("it is looked at again too soon, and became %+v", o)
		}
		if err := g.Advance(2 * time.Second); err != nil {
			t.Fatal(err)
		}
		if len(g.Tasks) == 0 || g.Tasks[0].Kind != ledger.JobVacate || g.Tasks[0].Prove {
			t.Fatalf("under way is %+v", g.Tasks)
		}
	}
	release()
	for _, l := range g.stay {
		g.do(func() {
			_, claim, err := g.Core.Handle(l.ID, "red", g.Now)
			if err != nil {
				t.Fatal(err)
			}
			l.Claim = claim
		})
		g.do(func() {
			g.Core.Map(ledger.MapRequest{Session: "s1", PID: ledgertest.PID("s1"), UID: 7, Digest: ledger.DigestOf(l.Claim), Mode: ledger.ReadWrite}, g.Now)
		})
	}
	g.settle()
	if o := g.Final["waits"]; o.Kind != ledger.OutcomeQueued {
		t.Fatalf("with every block mapped while they were copied it became %+v", o)
	}
	release()
	g.settle()
	if o := g.Final["waits"]; o.Kind != ledger.OutcomeGranted {
		t.Fatalf("in the end it became %+v", o)
	}
}
