package ledger

import (
	"github.com/google/uuid"
)

// A reservation may follow a process: then it counts what was promised or what that
// process and its descendants use of the device, whichever is more, and it ends with
// that process. What the tree uses is part of what the driver shows as outside use; the
// reservation absorbs it, so that no byte counts twice.

// Use is what the process tree of a reservation uses of this device.
type Use struct {
	Grant uuid.UUID
	Bytes int64
}

// Counted is what a grant counts in the books, in bytes.
func (g *Grant) Counted() int64 { return max(g.Granted, g.Uses) }

// Absorb takes what the process trees of reservations use. The figures must have been
// read together with the sample that SetOutside is given next, before anything else: only
// then is it known what of the outside is theirs. Reservations that are not named keep
// their figure.
func (d *Device) Absorb(uses []Use) {
	d.begin()
	for _, u := range uses {
		g := d.grants[u.Grant]
		if g == nil || g.Follows.PID == 0 || g.Uses == u.Bytes || u.Bytes < 0 || u.Bytes > maxBytes {
			continue
		}
		before := g.Counted()
		d.absorbed += u.Bytes - g.Uses
		g.Uses = u.Bytes
		if by := g.Counted() - before; by != 0 {
			d.reserve(g, by)
			d.changed("reservation", nil)
		}
	}
	d.paired = true
}

// weigh recomputes what of the outside counts as foreign, and reports whether that changed.
//
// A sample without a look at the trees can be newer than what they are known to use. Had a
// tree shrunk meanwhile, what it freed would hide as much of what others took: until
// the next look foreign only grows.
func (d *Device) weigh() bool {
	foreign := max(0, d.outside-d.absorbed-(d.cfg.Physical-d.books.limit))
	if !d.paired && d.absorbed > 0 {
		foreign = max(foreign, d.books.foreign)
	}
	if foreign == d.books.foreign {
		return false
	}
	d.books.foreign = foreign
	return true
}

// letGo ends a reservation's count: what its tree still uses is other people's from now
// on, until a sample shows that it is gone.
func (d *Device) letGo(g *Grant) {
	d.reserve(g, -g.Counted())
	d.absorbed -= g.Uses
	if g.Uses > 0 {
		d.weigh()
	}
}
