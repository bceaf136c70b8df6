package ledger_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
)

// crashes takes the ledger after every store of a call, and examines them after it.
type crashes struct {
	cuts   []ledgertest.Cut
	before ledgertest.Recorded
	seen   int
	lives  int // of how many cuts one is lived on with
}

func (c *crashes) watch(h *history) {
	h.Region.SetObserver(func(int) { c.cuts = append(c.cuts, h.Cut()) })
	c.before = c.read(h, h.Mem)
	h.crash = c
}

func (c *crashes) read(h *history, mem []byte) ledgertest.Recorded {
	r, err := ledgertest.Read(mem)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// examine checks every cut of the last call: what was answered before is there, what was
// answered never is not, and what belongs together is there together.
func (c *crashes) examine(h *history) {
	after := c.read(h, h.Mem)
	if len(after.Grants) != len(h.Live) {
		h.t.Fatalf("%d grants were answered, %d are on record", len(h.Live), len(after.Grants))
	}
	for id := range h.Live {
		if _, ok := after.Grants[id]; !ok {
			h.t.Fatalf("grant %s was answered and is not on record", id)
		}
	}
	for _, cut := range c.cuts {
		c.seen++
		at := c.read(h, cut.Mem)
		between(h, at.Grants, c.before.Grants, after.Grants)
		between(h, at.Answers, c.before.Answers, after.Answers)
		for k, a := range at.Answers {
			if _, old := c.before.Answers[k]; old {
				continue
			}
			if _, ok := at.Grants[a.Grant]; a.Action == "allocate" && !ok {
				h.t.Fatalf("the answer %q tells of grant %s, which is not there", k, a.Grant)
			}
			if a.Action == "deallocate" && at.Grants[uuid.MustParse(a.Model)] == ledger.StatusActive {
				h.t.Fatalf("the answer %q tells of the end of grant %s, which lives", k, a.Model)
			}
		}
		for id := range at.Grants {
			for k, a := range after.Answers {
				if _, ok := at.Answers[k]; a.Grant == id && !ok && c.before.Grants[id] == "" {
					h.t.Fatalf("grant %s is there without the answer %q", id, k)
				}
			}
		}
		c.restart(h, cut, at)
	}
	c.cuts, c.before = c.cuts[:0], after
}

// between checks that a cut has all that was and stays, and nothing that neither was nor
// comes to be.
func between[K comparable, V any](h *history, at, before, after map[K]V) {
	for k := range before {
		if _, stays := after[k]; stays {
			if _, ok := at[k]; !ok {
				h.t.Fatalf("%v is lost", k)
			}
		}
	}
	for k := range at {
		_, was := before[k]
		if _, comes := after[k]; !was && !comes {
			h.t.Fatalf("%v was never committed", k)
		}
	}
}

// restart takes over from a cut, and with some of them lives on to the end.
func (c *crashes) restart(h *history, cut ledgertest.Cut, at ledgertest.Recorded) {
	next, rep, err := h.TakeOver(cut)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(rep.Lost) > 0 || len(rep.Answers) != len(at.Answers) {
		h.t.Fatalf("the take-over reports %+v", rep)
	}
	for id, status := range at.Grants {
		g, ok := next.Core.Grant(id)
		if status == ledger.StatusActive && (!ok || g.Status != status && g.Class != ledger.ClassWeights) && !slices.Contains(rep.Undone, id) {
			h.t.Fatalf("grant %s did not survive: %+v", id, g)
		}
	}
	if c.seen%c.lives != 0 {
		return
	}
	later := &history{Machine: next, t: h.t, owed: map[any]*ledger.Request{}, sessions: maps.Clone(h.sessions), n: 1 << 20}
	for range 6 {
		later.step()
	}
	later.end()
}

// A crash after any store of any history leaves a ledger from which a successor goes on.
func TestCrashAtEveryStore(t *testing.T) {
	seen := 0
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t, 48<<10)
		c := &crashes{lives: 23}
		c.watch(h)
		for range rapid.IntRange(5, 25).Draw(t, "steps") {
			h.step()
		}
		seen += c.seen
	})
	t.Logf("%d crashes", seen)
}
