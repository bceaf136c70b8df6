package ledger

import (
	"time"

	"github.com/isobar-project/isobar/clock"
)

// absence stops the clock of leases while no client can reach the node: nobody is to lose
// memory for a renewal that could not arrive.
type absence struct {
	away  bool
	since clock.Instant
}

// Away stops the clock of leases. Said again it changes nothing.
func (d *Device) Away(now Now) {
	if !d.absent.away {
		d.absent = absence{away: true, since: now.Boot}
	}
}

// Back lets the clock of leases go on: each lasts longer by the time away, and ends no
// sooner than after grace, in which clients come back and renew.
func (d *Device) Back(grace time.Duration, now Now) {
	d.begin()
	if !d.absent.away {
		return
	}
	away := now.Boot.Sub(d.absent.since)
	d.absent = absence{}
	for _, g := range d.grants {
		if g.release != nil || !g.leased() {
			continue
		}
		g.LeaseEnds = max(g.LeaseEnds.Add(away), now.Boot.Add(grace))
		d.rewrite(g)
		d.at(timer{at: g.LeaseEnds, kind: timerLease, grant: g.ID})
		g.note("lease extended", now.Wall, "nobody could reach the node for "+away.Round(time.Millisecond).String())
	}
}
