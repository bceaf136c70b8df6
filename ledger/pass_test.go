package ledger_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
)

const page = 4096

// lineUp is a device on which models are being released for one who waits.
type lineUp struct {
	*ledgertest.Machine
	t *rapid.T
}

func (l lineUp) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l lineUp) ask(ref, tenant string, class ledger.Class, pages int64) *ledger.Request {
	r := &ledger.Request{Ref: ref, Owner: ledger.Owner{Tenant: tenant, UID: 7}, Class: class, Size: pages * page, Patience: time.Hour}
	if class == ledger.ClassWeights {
		r.Segments, r.Model, r.Unclaimed = []int64{pages * page}, ref, true
	}
	l.must(l.Call(func() { l.Core.Allocate(r, l.Now) }))
	return r
}

// waits reports whether a request is still in line.
func (l lineUp) waits(r *ledger.Request) (waits bool) {
	l.Core.Waiting(func(_ int, x *ledger.Request) { waits = waits || x == r })
	return waits
}

// return of a model's bytes, the rest of what is to be done at once.
func (l lineUp) comes(grant string) {
	for _, t := range slices.Clone(l.Tasks) {
		if g, ok := l.Core.Grant(t.Grant); ok && g.Model == grant && t.Kind == ledger.JobDestroy {
			l.Do(t, nil)
			l.must(l.Tell(t))
		}
	}
	l.make()
}

// make does all that is to be made and cleared.
func (l lineUp) make() {
	for {
		i := slices.IndexFunc(l.Tasks, func(t *ledgertest.Task) bool { return t.Kind == ledger.JobCreate || t.Kind == ledger.JobClear })
		if i < 0 {
			return
		}
		l.Do(l.Tasks[i], nil)
		l.must(l.Tell(l.Tasks[i]))
	}
}

// Small requests pass those that wait only where these are served no later for it: whatever
// comes back first, and whichever of it never, at each moment those who were there are
// still waiting beside others who pass exactly if they are without them.
func TestPassingDelaysNobody(t *testing.T) {
	var histories, passed, waited int
	rapid.Check(t, func(t *rapid.T) {
		histories++
		type request struct {
			tenant string
			class  ledger.Class
			pages  int64
		}
		tenants, classes := []string{"red", "blue"}, []ledger.Class{ledger.ClassScratch, ledger.ClassReservation, ledger.ClassWeights}
		draw := func(what string, most int64) request {
			return request{rapid.SampledFrom(tenants).Draw(t, what+"'s tenant"), rapid.SampledFrom(classes).Draw(t, what+"'s class"), rapid.Int64Range(1, most).Draw(t, what+"'s pages")}
		}
		models := rapid.SliceOfN(rapid.Int64Range(5, 40), 1, 7).Draw(t, "models")
		owners := make([]string, len(models))
		for i := range owners {
			owners[i] = rapid.SampledFrom(tenants).Draw(t, "owner")
		}
		order := rapid.Permutation(indices(len(models))).Draw(t, "order of return")
		order = order[:rapid.IntRange(1, len(order)).Draw(t, "going")]
		head := draw("head", 40)
		head.pages += 60
		var small []request
		for range rapid.IntRange(1, 6).Draw(t, "small ones") {
			small = append(small, draw("small one", 12))
		}
		floor := rapid.SampledFrom([]int64{0, 0, 10, 30}).Draw(t, "blue's floor") * page
		most := rapid.SampledFrom([]int64{0, 0, 60}).Draw(t, "limit of models") * page
		// run plays it, with those who pass or without them, and says after which return the
		// head was served.
		run := func(others bool) (served []bool) {
			m, err := ledgertest.NewMachine(ledgertest.Settings(128*page), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			l := lineUp{m, t}
			for i, pages := range models {
				l.ask(fmt.Sprint("m", i), owners[i], ledger.ClassWeights, pages)
			}
			l.make()
			if m.Core.Figures().Waiting > 0 {
				return nil // there is no room for so many
			}
			l.must(l.CallOver(func() {
				m.Core.SetLimits(nil, &most, nil, m.Now)
				m.Core.SetQuota(ledger.QuotaChange{Tenant: "blue", Floor: &floor}, m.Now)
			}))
			h := l.ask("head", head.tenant, head.class, head.pages)
			l.make()
			for _, g := range m.Grants() {
				if slices.ContainsFunc(order, func(i int) bool { return g.Model == fmt.Sprint("m", i) }) {
					l.must(m.Call(func() {
						m.Core.Release(ledger.ReleaseRequest{Grant: g.ID, Tenant: g.Owner.Tenant, Why: ledger.WhyEvicted}, m.Now)
					}))
				}
			}
			for i, s := range small {
				if !others {
					break
				}
				r := l.ask(fmt.Sprint("small", i), s.tenant, s.class, s.pages)
				l.make()
				if r.Passed() {
					passed++
				}
			}
			for _, i := range order {
				served = append(served, !l.waits(h))
				l.comes(fmt.Sprint("m", i))
			}
			served = append(served, !l.waits(h))
			if !served[0] {
				waited++
			}
			return served
		}
		if alone, beside := run(false), run(true); !slices.Equal(alone, beside) {
			t.Fatalf("alone the head is served %v, beside others %v", alone, beside)
		}
	})
	t.Logf("%d histories, in %d the head waited, %d requests passed", histories, waited/2, passed)
	if passed == 0 {
		t.Error("nobody ever passed")
	}
}

func indices(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}
