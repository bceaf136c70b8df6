package catalog

import (
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
)

// Away stops the clock of references' leases while no client can reach the node. Said again
// it changes nothing.
func (c *Catalog) Away(now ledger.Now) {
	if !c.away {
		c.away, c.awaySince = true, now.Boot
	}
}

// Back lets it go on: each lease lasts longer by the time away, and ends no sooner than
// after grace.
func (c *Catalog) Back(grace time.Duration, now ledger.Now) {
	c.begin()
	if !c.away {
		return
	}
	away := now.Boot.Sub(c.awaySince)
	c.away, c.awaySince = false, clock.Instant(0)
	for _, id := range sorted(c.byRef) {
		cp := c.byRef[id]
		if ref := cp.refs[id]; ref.Ends != 0 {
			ref.Ends = max(ref.Ends.Add(away), now.Boot.Add(grace))
			c.saveCopy(cp)
		}
	}
}
