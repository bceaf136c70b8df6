package ledger

import (
	"sort"

	"github.com/isobar-project/isobar/clock"
)

// Expectation is what can be said of a request that is not decided yet.
type Expectation struct {
	Position int // in line; 0: it is not in line any more
	Reason   string
	// At is when there will be room for it, as far as that is known: bytes that are being
	// revoked come back at their deadline at the latest, leases end when they end. 0: it is
	// not known, or not before the request's own deadline.
	At clock.Instant
}

// Expect says when a request can expect to be granted, if nobody lets go of anything before
// he must, and whether it is still undecided. It takes time in proportion to the grants.
func (d *Device) Expect(t Ticket, now Now) (Expectation, bool) {
	if r := d.pending[t]; r != nil && !r.gone {
		return Expectation{Reason: "memory is being prepared"}, true
	}
	r := d.waits(t)
	if r == nil {
		return Expectation{}, false
	}
	e := Expectation{Position: 1, Reason: r.reason}
	if r.guard != nil && !r.guard.Short {
		e.At = max(now.Boot, r.guard.Until)
	}
	if r.held {
		return e, true // its tenant's quota decides, not the room
	}
	lacks := -d.books.spare()
	for i, s := range d.line.All() {
		if lacks += d.least(s.Of); s.Of == r {
			e.Position = i + 1
			break
		}
	}
	if e.At == 0 {
		e.At = d.roomAt(lacks, now)
	}
	if e.At > r.deadline {
		e.At = 0
	}
	return e, true
}

// roomAt is when so many more bytes will have come back; 0: that is not known.
func (d *Device) roomAt(lacks int64, now Now) clock.Instant {
	type end struct {
		at    clock.Instant
		bytes int64
	}
	var ends []end
	for _, g := range d.grants {
		switch {
		case g.Status == StatusZombie:
		case g.release != nil:
			ends = append(ends, end{max(now.Boot, g.release.deadline), g.Granted})
		case g.leased() && g.LeaseEnds != 0 && !d.absent.away:
			ends = append(ends, end{max(now.Boot, g.LeaseEnds), g.Counted()})
		}
	}
	sort.Slice(ends, func(i, j int) bool { return ends[i].at < ends[j].at })
	for _, e := range ends {
		if lacks -= e.bytes; lacks <= 0 {
			return e.at
		}
	}
	return 0
}
