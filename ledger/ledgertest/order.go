package ledgertest

import (
	"fmt"
	"slices"

	"github.com/isobar-project/isobar/ledger"
)

// inOrder checks that those who left the line to be served stood before all who stay. Who
// comes into the line moves the others of his tenant back, and who leaves it unserved moves
// them forward: of these nothing is known here (package admission has the tests of the order
// itself).
func (m *Machine) inOrder() error {
	if m.moves {
		return nil
	}
	still, refused := map[ledger.Ticket]bool{}, map[ledger.Ticket]bool{}
	m.Core.Waiting(func(_ int, r *ledger.Request) { still[r.Ticket()], refused[r.Ticket()] = !r.Held(), r.Held() })
	for _, o := range m.Outcomes {
		refused[o.Ticket] = refused[o.Ticket] || o.Kind == ledger.OutcomeRefused
	}
	known, moved := map[ledger.Ticket]bool{0: true}, map[string]bool{}
	for _, w := range m.before {
		known[w.ticket] = true
		moved[w.tenant] = moved[w.tenant] || refused[w.ticket]
	}
	for t, in := range still {
		if in && !known[t] {
			return nil // somebody has come
		}
	}
	if slices.ContainsFunc(m.held, func(r *ledger.Request) bool { return !r.Held() }) {
		return nil // or has come back, and may have been served
	}
	var stays waiting
	for _, w := range m.before {
		switch {
		case still[w.ticket]:
			stays = w
		case stays.ticket != 0 && !refused[w.ticket] && !moved[w.tenant] && !moved[stays.tenant] && !w.Passed():
			return fmt.Errorf("request %d was served before request %d, which is before it in line", w.ticket, stays.ticket)
		}
	}
	return nil
}
