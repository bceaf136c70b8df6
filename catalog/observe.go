package catalog

import "github.com/isobar-project/isobar/ledger"

// Observe has f called after every store to the region; see store.Region.SetObserver.
func (c *Catalog) Observe(f func()) { c.region.SetObserver(func(int) { f() }) }

// Bearers calls f with every session that holds a reference.
func (c *Catalog) Bearers(f func(ledger.SessionID)) {
	for id, cp := range c.byRef {
		if s := cp.refs[id].Session; s != "" {
			f(s)
		}
	}
}
