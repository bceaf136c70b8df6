package ledger

import (
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/heap"
)

// Owing is a segment that was destroyed and whose bytes are not back: another process still has
// them, or the driver did not take them.
type Owing struct {
	Range
	// PIDs have them; none where it is the driver that keeps them.
	PIDs []int32
	Why  string
}

// Owed is the outcome of JobDestroy for segments that are gone here and in the vault, and whose
// bytes cannot be granted again. They count as zombies, those of a grant from its deadline on,
// until Destroyed says that they are back. A segment that the core has never had, because the
// request that it was made for has failed, counts from now on.
func (d *Device) Owed(id uuid.UUID, list []Owing, now Now) {
	d.begin()
	if d.owed == nil {
		d.owed = map[heap.SegmentID]Owing{}
	}
	for _, o := range list {
		d.owed[o.Segment] = o
	}
	if g := d.grants[id]; g != nil {
		d.owes(g, list, now)
	} else {
		for _, o := range list {
			d.astray(o)
		}
	}
	d.changed("release", nil)
	d.pump(now)
}

// owes notes what is not back of a grant that is being released.
func (d *Device) owes(g *Grant, list []Owing, now Now) {
	rel := g.release
	rel.owes = true
	known := len(rel.pids)
	for _, o := range list {
		g.note("not back", now.Wall, o.Why)
		rel.pids = append(rel.pids, o.PIDs...)
	}
	slices.Sort(rel.pids)
	rel.pids = slices.Compact(rel.pids)
	switch {
	case g.Status == StatusZombie && len(rel.pids) > known:
		d.event(zombieEvent(g))
	case g.Status == StatusRevoking && rel.deadline <= now.Boot:
		d.toZombie(g, now)
	}
}

func zombieEvent(g *Grant) Event {
	return Event{Kind: EventZombie, Grant: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Purpose: g.Purpose, Size: g.Size, Bytes: g.Granted, Reason: g.release.why, PIDs: g.release.pids}
}

// astray counts a segment that is nobody's and not back.
func (d *Device) astray(o Owing) {
	s := d.segments[o.Segment]
	if s == nil {
		s = &segment{id: o.Segment, bytes: o.Bytes, doomed: true}
		d.segments[s.id] = s
	} else {
		d.books.pooled -= s.bytes
		d.books.doomed -= s.bytes
		d.trimmedOff(s, false)
		d.tidiedOff(s)
	}
	d.books.astray += s.bytes
}

// returned forgets segments of Owed that are back after all, and reports whether one was.
func (d *Device) returned(rg Range) bool {
	_, was := d.owed[rg.Segment]
	delete(d.owed, rg.Segment)
	return was
}

// lighten takes destroyed segments off a grant of which others are not back: so much can be
// granted again now.
func (d *Device) lighten(g *Grant, segs []Range) {
	var kept, gone []heap.Block
	part := int64(0)
	for _, b := range g.Blocks {
		if slices.ContainsFunc(segs, func(r Range) bool { return r.Segment == b.Segment }) {
			gone = append(gone, b)
			part += b.Bytes
		} else {
			kept = append(kept, b)
		}
	}
	d.count(g, -part)
	d.books.models -= part
	g.Blocks, g.Granted, g.release.freed = kept, g.Granted-part, g.release.freed+part
	// First the grant, then the segments: a successor finds segments without a grant, whose
	// memory is missing, and drops them.
	d.rewrite(g)
	tx := d.region.Begin()
	for _, b := range gone {
		d.heap.Free(b)
		d.heap.Remove(b.Segment)
		d.forget(tx, d.segments[b.Segment])
	}
	must(tx.Commit())
}

// Pinned says who keeps released memory from being granted again: processes, and the driver, by
// as many bytes.
func (d *Device) Pinned() (pids []int32, driver int64) {
	for _, g := range d.grants {
		if g.Status == StatusZombie {
			pids = append(pids, g.release.pids...)
		}
	}
	for id, o := range d.owed {
		pids = append(pids, o.PIDs...)
		if len(o.PIDs) == 0 {
			driver += d.segments[id].bytes
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), driver
}

// strays lists who keeps memory that is no grant's any more.
func (d *Device) strays(add func(Holding)) {
	for id, o := range d.owed {
		s := d.segments[id]
		switch {
		case !s.doomed: // it is a grant's
		case len(o.PIDs) == 0:
			add(Holding{Owner: "released memory that the driver keeps", Bytes: s.bytes})
		default:
			add(Holding{Owner: fmt.Sprintf("pid %d, which maps released memory", o.PIDs[0]), Bytes: s.bytes, Process: true})
		}
	}
}
