package ledger_test

import (
	"testing"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// A modest request has nothing released for it. Where it awaits a release it waits for that,
// if it does not lack more.
func TestAModestRequestAwaitsWhatIsOnItsWayBack(t *testing.T) {
	for _, c := range []struct {
		name   string
		pages  int64
		awaits bool
		want   ledger.OutcomeKind
	}{
		{"what comes back suffices", 90, true, ledger.OutcomeGranted},
		{"it lacks more", 110, true, ledger.OutcomeRefused},
		{"it does not wait", 90, false, ledger.OutcomeRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuess(t)
			m := g.load("m", "red", 60)
			g.measured(m, 60)
			id := g.Final["m"].Grant.ID
			g.must(g.Call(func() {
				g.Core.Release(ledger.ReleaseRequest{Grant: id, Tenant: "red", Why: ledger.WhyEvicted, Evict: true}, g.Now)
			}))
			g.request(&ledger.Request{Ref: "down", Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassWeights, Model: "down", Unclaimed: true,
				Segments: []int64{c.pages * page}, Modest: true, Awaits: c.awaits})
			if len(g.Wants) > 0 {
				t.Errorf("others are to go for it: %+v", g.Wants)
			}
			g.must(g.Settle())
			got := g.Final["down"]
			if got.Kind != c.want || got.Err != nil && got.Err.Code != schemas.CodeOutOfMemory {
				t.Errorf("outcome %+v", got)
			}
		})
	}
}
