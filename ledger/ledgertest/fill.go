package ledgertest

import "github.com/google/uuid"

// Overwritten notes that a transfer has written all that its target's client can see: the bytes
// are the target's owner's from now on.
func (m *Machine) Overwritten(id uuid.UUID) {
	l := m.Live[id]
	for _, s := range l.Segments {
		m.Segments[s].Content = l.Domain
	}
}
