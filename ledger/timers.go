package ledger

import (
	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
)

type timerKind uint8

const (
	timerQueue   timerKind = iota // a waiting request's deadline
	timerLease                    // a lease may have run out
	timerRevoke                   // a revocation's deadline
	timerProof                    // try again to prove a release
	timerEnd                      // a process was asked to end, and may still be there
	timerSettle                   // clear pooled memory if the device is quiet
	timerWane                     // give back pooled memory that a resting device does not need
	timerHolders                  // look again for who holds a grant
	timerGuard                    // what was just loaded is kept no longer
)

// timer is a point in time at which something may be due. A timer is never cancelled:
// when it fires, the state says whether there is still something to do.
type timer struct {
	at     clock.Instant
	kind   timerKind
	ticket Ticket
	grant  uuid.UUID
}

// timers is a binary heap of them, the earliest first.
type timers struct {
	h     []timer
	sweep int // the length at which what is over is swept out
}

// minSweep is the fewest timers worth sweeping.
const minSweep = 4096

func (t *timers) set(x timer) {
	t.h = append(t.h, x)
	for i := len(t.h) - 1; i > 0; {
		up := (i - 1) / 2
		if t.h[up].at <= t.h[i].at {
			break
		}
		t.h[up], t.h[i] = t.h[i], t.h[up]
		i = up
	}
}

func (t *timers) next() (clock.Instant, bool) {
	if len(t.h) == 0 {
		return 0, false
	}
	return t.h[0].at, true
}

func (t *timers) due(now clock.Instant) (timer, bool) {
	if len(t.h) == 0 || t.h[0].at > now {
		return timer{}, false
	}
	first, last := t.h[0], len(t.h)-1
	t.h[0] = t.h[last]
	t.h = t.h[:last]
	t.down(0)
	return first, true
}

func (t *timers) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(t.h); c++ {
			if t.h[c].at < t.h[least].at {
				least = c
			}
		}
		if least == i {
			return
		}
		t.h[least], t.h[i] = t.h[i], t.h[least]
		i = least
	}
}

// keep drops the timers that have nothing to do any more.
func (t *timers) keep(live func(timer) bool) {
	kept := t.h[:0]
	for _, x := range t.h {
		if live(x) {
			kept = append(kept, x)
		}
	}
	t.h = kept
	for i := len(t.h)/2 - 1; i >= 0; i-- {
		t.down(i)
	}
}

// at sets a timer, and sweeps out those that are over where they have become many: a
// grant with a lease of an hour may live for a millisecond.
func (d *Device) at(x timer) {
	d.timers.set(x)
	if len(d.timers.h) < max(minSweep, d.timers.sweep) {
		return
	}
	waiting := map[Ticket]bool{}
	for _, r := range d.waiters() {
		waiting[r.ticket] = true
	}
	d.timers.keep(func(x timer) bool {
		g := d.grants[x.grant]
		switch x.kind {
		case timerQueue, timerGuard:
			return waiting[x.ticket]
		case timerLease:
			return g != nil && g.release == nil && g.LeaseEnds == x.at
		case timerRevoke, timerProof, timerEnd:
			return g != nil && g.release != nil
		case timerHolders:
			return g != nil
		}
		return true
	})
	d.timers.sweep = 2 * len(d.timers.h)
}

// Tick does what is due: ends waits, leases and revocations whose time has come.
func (d *Device) Tick(now Now) {
	d.begin()
	for {
		t, ok := d.timers.due(now.Boot)
		if !ok {
			break
		}
		switch t.kind {
		case timerQueue:
			d.pump(now) // what has ended in this very tick counts too
			if r := d.waits(t.ticket); r != nil {
				held := r.held
				d.unqueue(r)
				if held {
					d.refuse(r, d.guardedBy(r, d.quotaExceeded(r, r.need), now))
				} else {
					d.refuse(r, d.guardedBy(r, d.outOfMemory(r, max(r.need, r.Size)), now))
				}
				d.pump(now)
			}
		case timerGuard:
			d.guardEnds(t.ticket, now)
		case timerLease:
			if g := d.grants[t.grant]; g != nil && g.release == nil && g.leased() && g.LeaseEnds <= now.Boot && !d.absent.away {
				d.beginRelease(g, WhyLease, 0, nil, now)
			}
		case timerRevoke:
			switch g := d.grants[t.grant]; {
			case g == nil || g.release == nil:
			case g.release.owes:
				d.toZombie(g, now)
			case g.release.doomed == nil:
				d.overdue(g, now)
			}
		case timerEnd:
			if g := d.grants[t.grant]; g != nil && g.release != nil && g.Status == StatusZombie {
				d.end(g, true)
			}
		case timerSettle:
			d.settle(now)
		case timerWane:
			d.shrink(now)
		case timerHolders:
			if g := d.grants[t.grant]; g != nil {
				d.lookAgain(g)
			}
		case timerProof:
			if g := d.grants[t.grant]; g != nil && g.release != nil {
				d.tryFree(g, now)
			}
		}
	}
	d.pump(now)
}

// overdue is a revocation's deadline: who still holds the bytes makes them zombies. A
// proof under way decides by itself, because the deadline has passed when it comes back.
func (d *Device) overdue(g *Grant, now Now) {
	d.tryFree(g, now)
	if rel := g.release; !rel.proving && rel.doomed == nil && g.Status == StatusRevoking && len(g.Mappers) > 0 {
		d.toZombie(g, now)
	} else if g.Status == StatusZombie && len(g.Mappers) > 0 {
		d.tooLate(g, now) // a predecessor's: nobody has been asked by this process
	}
}
