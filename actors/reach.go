package actors

import (
	"time"

	"github.com/isobar-project/isobar/actors/seam"
)

// backGrace is the least that a lease lasts once clients can reach the node again: they
// connect anew within seconds, and renew what they hold.
const backGrace = 30 * time.Second

// Reach says whether clients can reach the node. While they cannot the clock of leases
// stands still; sessions of the data socket, which need no NATS, go on. It does not block,
// and may be called from any goroutine; said again it changes nothing.
func (h *House) Reach(reachable bool) {
	now := h.now()
	for _, d := range h.devices {
		d.tell(seam.SystemLane, func() {
			if reachable {
				d.core.Back(backGrace, now)
			} else {
				d.core.Away(now)
			}
			d.flush()
		})
	}
	p := h.pool
	p.tell(seam.SystemLane, func() {
		if reachable {
			p.core.Back(backGrace, now)
		} else {
			p.core.Away(now)
		}
		p.flush()
	})
}
