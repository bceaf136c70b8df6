package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/schemas"
)

// What a device grants its successor takes over: nothing comes on record that a take-over
// would call impossible, also where nobody has looked at a request before.
func TestWhatIsGrantedCanBeTakenOver(t *testing.T) {
	for name, c := range map[string]struct {
		r       ledger.Request
		refused bool
	}{
		"no class":         {r: ledger.Request{Size: 4096}},
		"an unknown class": {r: ledger.Request{Size: 4096, Class: "colour"}, refused: true},
		"a negative lease": {r: ledger.Request{Size: 4096, Class: ledger.ClassScratch, Lease: -time.Second}, refused: true},
		"no bytes":         {r: ledger.Request{Class: ledger.ClassScratch}, refused: true},
		"a reservation":    {r: ledger.Request{Size: 1, Class: ledger.ClassReservation}},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ledgertest.NewMachine(ledgertest.Settings(1<<20), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			c.r.Ref, c.r.Owner = "r", ledger.Owner{Tenant: "red", UID: 7}
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			plan := m.Core.Plan(&c.r, m.Now)
			must(m.Call(func() { m.Core.Allocate(&c.r, m.Now) }))
			must(m.Settle())
			o := m.Final["r"]
			if c.refused {
				if plan.Outcome != "refused" || o.Kind != ledger.OutcomeRefused || !errors.Is(o.Err, schemas.Errorf(schemas.CodeInvalidRequest, "")) {
					t.Fatalf("%+v, planned %+v", o, plan)
				}
				return
			}
			if plan.Outcome != "granted" || o.Kind != ledger.OutcomeGranted {
				t.Fatalf("%+v, planned %+v", o, plan)
			}
			if _, rep, err := m.TakeOver(m.Cut()); err != nil || rep.Grants != 1 {
				t.Fatalf("taken over: %+v, %v", rep, err)
			}
		})
	}
}
