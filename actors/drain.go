package actors

import (
	"context"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/ledger"
)

// Stays is what a drained node leaves for the next one.
type Stays struct {
	Grants, Models int
	Bytes          int64
}

// Drain takes no more grants and releases what has no living owner and is not
// persistent; all releases everything. It returns when every release is confirmed, or
// with ctx's error and what stays at that moment. What is kept of absent devices stays too,
// unless all goes.
func (h *House) Drain(ctx context.Context, all bool) (Stays, error) {
	h.draining.Store(true)
	done := make(chan Stays, len(h.devices))
	for _, d := range h.devices {
		d.tell(seam.SystemLane, func() { d.drain(all, done) })
	}
	var sum Stays
	for _, k := range h.absent.kept {
		if !all {
			sum.Grants += max(1, k.Grants) // of an unreadable ledger there is something
			sum.Models += k.Models
			sum.Bytes += k.Bytes
		}
	}
	for range h.devices {
		select {
		case s := <-done:
			sum.Grants += s.Grants
			sum.Models += s.Models
			sum.Bytes += s.Bytes
		case <-ctx.Done():
			return sum, ctx.Err()
		}
	}
	if all {
		return sum, h.dropAbsent()
	}
	return sum, nil
}

// drain begins the device's releases; drained is called after each flush from then on.
func (d *deviceActor) drain(all bool, done chan Stays) {
	d.core.Drain(all, d.house.now())
	d.draining = done
	d.flush()
	d.checkDrained()
}

// checkDrained reports the drain's end once no release is under way.
func (d *deviceActor) checkDrained() {
	if d.draining == nil || !d.core.Idle() {
		return
	}
	var s Stays
	d.core.Grants(func(g *ledger.Grant) {
		s.Grants++
		s.Bytes += g.Granted
		if g.Class == ledger.ClassWeights {
			s.Models++
		}
	})
	d.draining <- s
	d.draining = nil
}
