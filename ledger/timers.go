package ledger

import (
	"container/heap"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
)

type timerKind uint8

const (
	timerQueue  timerKind = iota // a waiting request's deadline
	timerLease                   // a lease may have run out
	timerRevoke                  // a revocation's deadline
	timerProof                   // try again to prove a release
	timerScrub                   // clear pooled memory if the device is quiet
)

// timer is a point in time at which something may be due. A timer is never cancelled:
// when it fires, the state says whether there is still something to do.
type timer struct {
	at     clock.Instant
	kind   timerKind
	ticket Ticket
	grant  uuid.UUID
}

type timers struct{ h timerHeap }

func (t *timers) set(x timer) { heap.Push(&t.h, x) }

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
	return heap.Pop(&t.h).(timer), true
}

type timerHeap []timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
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
			for _, r := range d.queue {
				if r.ticket == t.ticket {
					d.unqueue(r)
					d.refuse(r, d.outOfMemory(r, r.need))
					break
				}
			}
		case timerLease:
			if g := d.grants[t.grant]; g != nil && g.release == nil && g.LeaseEnds != 0 && g.LeaseEnds <= now.Boot {
				d.beginRelease(g, WhyLease, 0, nil, now)
			}
		case timerRevoke:
			if g := d.grants[t.grant]; g != nil && g.release != nil && g.release.doomed == nil {
				d.overdue(g, now)
			}
		case timerScrub:
			d.scrub(now)
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
	}
}
