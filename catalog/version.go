package catalog

import (
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// successor makes the next version of a model. From now on the name means the new one;
// the old one is superseded when the first copy of the new one is sealed, and is what the
// name means again if none ever is.
func (c *Catalog) successor(old *Model) *Model {
	next := &Model{ID: c.next, Identity: old.Identity, Type: old.Type, Shared: old.Shared, Pinned: old.Pinned,
		Priority: old.Priority, asked: old.asked, prev: old, copies: map[string]*Copy{}}
	next.Version++
	next.ContentID = ""
	c.next++
	c.list(next)
	c.models[nameKey(next.Tenant, next.Name)] = next
	return next
}

// Seen takes what the shell found when it looked at the file of a model anew, and reports
// whether its content is another than was loaded.
func (c *Catalog) Seen(m *Model, contentID string, stamp any) (changed bool) {
	c.begin()
	if m.ContentID == contentID {
		m.Stamp = stamp
	}
	return m.ContentID != contentID
}

// version makes a new object when the file behind a known name has changed: readers of
// the old one keep it, everybody else gets the new one.
func (c *Catalog) version(cp *Copy, d Description) {
	old := cp.Model
	if old.ContentID == "" || old.ContentID == d.ContentID {
		return
	}
	delete(old.copies, cp.Device)
	next := c.models[nameKey(old.Tenant, old.Name)]
	switch {
	case next == nil:
		next = c.successor(old)
	case next == old || next.copies[cp.Device] != nil || next.ContentID != "" && next.ContentID != d.ContentID:
		next = c.successor(next)
	}
	cp.Model = next
	next.copies[cp.Device] = cp
	if len(old.copies) == 0 && old.rec == 0 {
		c.drop(old) // it never came to be
	}
}

// unchanged answers a load of a new version that turns out to be the old one.
func (c *Catalog) unchanged(cp *Copy, d Description, now ledger.Now) bool {
	m := cp.Model
	if m.prev == nil || m.prev.ContentID != d.ContentID || len(m.copies) > 1 {
		return false
	}
	there := m.prev.copies[cp.Device]
	if there == nil || there.State != Sealed {
		return false
	}
	waiters := cp.waiters
	cp.State, cp.waiters = Failed, nil
	delete(c.loading, cp)
	delete(m.copies, cp.Device)
	c.drop(m)
	for _, r := range waiters {
		c.deliver(there, r, true, now)
	}
	return true
}

// supersede records, in the transaction that seals a new version, that older ones have
// lost their name.
func (c *Catalog) supersede(tx *store.Tx, m *Model) {
	for old := m.prev; old != nil; old = old.prev {
		old.Superseded = true
		c.touchedModel(old)
		switch {
		case old.rec == 0:
		case old.nowhere():
			tx.Delete(old.rec)
		default:
			tx.Update(old.rec, old.record())
		}
	}
}

// reinstate undoes supersede after a failed commit.
func (m *Model) reinstate() {
	for old := m.prev; old != nil; old = old.prev {
		old.Superseded = false
	}
}

// succeed lets go of what a sealed version supersedes and nobody reads.
func (c *Catalog) succeed(m *Model, now ledger.Now) {
	old := m.prev
	m.prev = nil
	for old != nil {
		prev := old.prev
		old.prev = nil
		if old.nowhere() {
			old.rec = 0 // deleted by supersede
			c.drop(old)
		}
		for _, d := range sorted(old.copies) {
			c.settle(old.copies[d], now)
		}
		old = prev
	}
}
