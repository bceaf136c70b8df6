package ledger_test

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
)

// What waits is expected when the leases before it end, the shortest first.
func TestExpectations(t *testing.T) {
	const page = 4096
	m, err := ledgertest.NewMachine(ledgertest.Settings(1000*page), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ref string, pages int64, lease, patience time.Duration) (ticket ledger.Ticket) {
		t.Helper()
		if err := m.Call(func() {
			ticket = m.Core.Allocate(&ledger.Request{Ref: ref, Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassReservation, Size: pages * page,
				Lease: lease, Patience: patience}, m.Now)
		}); err != nil {
			t.Fatal(err)
		}
		return ticket
	}
	ask("long", 400, 10*time.Minute, 0)
	ask("short", 400, time.Minute, 0)
	ask("none", 100, 0, 0)
	a := ask("a", 300, 0, time.Hour)
	b := ask("b", 300, 0, time.Hour)
	c := ask("c", 400, 0, time.Hour)
	d := ask("d", 50, 0, time.Second)
	for _, x := range []struct {
		ticket   ledger.Ticket
		position int
		in       time.Duration // 0: not known
	}{{a, 1, time.Minute}, {b, 2, 10 * time.Minute}, {c, 3, 0}, {d, 4, 0}} {
		e, ok := m.Core.Expect(x.ticket, m.Now)
		if in := e.At.Sub(m.Now.Boot); !ok || e.Position != x.position || e.At != 0 && in != x.in || e.At == 0 && x.in != 0 || e.Reason == "" {
			t.Errorf("the request at %d is expected %+v (in %v), not in %v", x.position, e, in, x.in)
		}
	}
	if _, ok := m.Core.Expect(99, m.Now); ok {
		t.Error("a request that nobody made is expected")
	}
}
