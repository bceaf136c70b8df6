package ledger

import (
	"slices"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/schemas"
)

// DefragmentRequest asks for segments to be emptied by moving the blocks in them. Grants
// that somebody maps, or that the node itself is at, stay where they are.
type DefragmentRequest struct {
	Ref any // comes back with OutcomeDefragmented
	// MaxBytes is the most to copy.
	MaxBytes  int64
	Keep      map[uuid.UUID]bool // grants that stay where they are
	RequestID string
}

// Defragmented is what a defragmentation did.
type Defragmented struct {
	Before, After   heap.Stats
	Moved, Released int64 // bytes copied for good, bytes of segments given back
	Segments        int   // given back
	Steps           []Vacated
	Stopped         bool // by StopDefragment: there was perhaps more to do
}

// Vacated is one segment that was emptied.
type Vacated struct {
	Segment         heap.SegmentID
	Moved, Released int64
	Blocks          int
}

// maxSteps bounds what is told of a defragmentation one by one.
const maxSteps = 256

// defragment is one under way: one segment after the other, planned anew for each, so that
// whatever happens meanwhile is taken as it comes.
type defragment struct {
	DefragmentRequest
	room Ticket // the request for which blocks are moved together; 0: segments are emptied
	did  Defragmented
	left int64
	skip map[heap.SegmentID]bool // segments that could not be emptied
	now  *vacancy
	stop bool
	// doomed are the segments that it has emptied and the driver has not yet let go of; it
	// ends with the last.
	doomed map[heap.SegmentID]bool
	ending bool
}

// vacancy is the segment being emptied.
type vacancy struct {
	heap.Vacancy
	grants  []*Grant // of each move
	domain  string
	exports uint64 // of the segment, when the copy began
	prove   bool
	aborted bool // one of the grants cannot be moved after all
}

// PlanDefragment says what Defragment would do now: the same plan, for all segments at once.
func (d *Device) PlanDefragment(r DefragmentRequest) (out Defragmented) {
	out.Before = d.heap.Stats()
	for _, v := range d.heap.PlanDefragment(d.vacancies(r.MaxBytes, nil, r.Keep)) {
		out.Moved += v.Moved
		out.Released += v.Bytes
		out.Segments++
	}
	return out
}

// Defragmenting reports whether a defragmentation is under way.
func (d *Device) Defragmenting() bool { return d.vacant != nil }

// Defragment begins to empty segments; OutcomeDefragmented tells its end, when the driver has
// let go of what was emptied. One is made at a time: the error is BUSY, or DRAINING.
func (d *Device) Defragment(r DefragmentRequest, now Now) *schemas.Error {
	d.begin()
	switch {
	case d.draining:
		return draining()
	case d.lost:
		return d.gone()
	case d.vacant != nil:
		return schemas.Errorf(schemas.CodeBusy, "%s is being defragmented", d.cfg.Device).With("retry_after_ms", 1000)
	}
	d.vacant = &defragment{DefragmentRequest: r, left: r.MaxBytes, skip: map[heap.SegmentID]bool{}, doomed: map[heap.SegmentID]bool{}, did: Defragmented{Before: d.heap.Stats()}}
	d.vacate(now)
	return nil
}

// StopDefragment ends the one under way, if any, after what workers are at.
func (d *Device) StopDefragment() {
	d.begin()
	if d.vacant == nil {
		return
	}
	d.vacant.stop = true
	if v := d.vacant.now; v != nil {
		d.stay(v.grants[0])
	}
}

// vacancies are the bounds of a plan: what may be moved now.
func (d *Device) vacancies(bytes int64, skip map[heap.SegmentID]bool, keep map[uuid.UUID]bool) heap.Limits {
	where := d.places()
	return heap.Limits{
		MaxBytes: bytes,
		Movable: func(b heap.Block) (int64, bool) {
			g := where[at(b)]
			if g == nil || g.release != nil || g.Filling || g.Class == ClassWeights || len(g.Mappers) > 0 || g.held() || keep[g.ID] {
				return 0, false
			}
			if len(g.Blocks) > 1 {
				return d.granule, true
			}
			return g.Align, true
		},
		// Where a request is being prepared, nothing says yet whose the segment will be.
		Skip:   func(id heap.SegmentID) bool { return skip[id] || d.segments[id].promised > 0 },
		Closed: func(id heap.SegmentID) bool { return d.segments[id].promised > 0 },
	}
}

// spot is where a block begins.
type spot struct {
	segment heap.SegmentID
	offset  int64
}

func at(b heap.Block) spot { return spot{b.Segment, b.Offset} }

// places says which grant lies where.
func (d *Device) places() map[spot]*Grant {
	m := make(map[spot]*Grant, len(d.grants))
	for _, g := range d.grants {
		for _, b := range g.Blocks {
			m[at(b)] = g
		}
	}
	return m
}

// vacate has workers copy the blocks of the next segment, or ends.
func (d *Device) vacate(now Now) {
	f := d.vacant
	limits := d.vacancies(f.left, f.skip, f.Keep)
	limits.MaxVacancies = 1
	var plan []heap.Vacancy
	if !f.stop && f.room == 0 {
		plan = d.heap.PlanDefragment(limits)
	}
	if len(plan) == 0 {
		f.ending = true
		d.tidied()
		return
	}
	d.carry(&vacancy{Vacancy: plan[0], prove: d.shared[plan[0].Segment] && !d.cfg.BySessions})
}

// carry has workers make the moves of a vacancy, to places that are free.
func (d *Device) carry(v *vacancy) {
	s := d.segments[v.Segment]
	v.exports = s.exports
	where := d.places()
	for _, m := range v.Moves {
		g := where[at(m.From)]
		g.holds.vacating = v
		v.grants = append(v.grants, g)
		v.domain = d.domain(g.Owner)
		if err := d.heap.Restore(m.To); err != nil {
			panic("ledger: a place that the heap planned is taken: " + err.Error())
		}
		d.segments[m.To.Segment].promised++
		d.books.slack -= m.To.Bytes
		d.books.promised += m.To.Bytes
	}
	d.vacant.now = v
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobVacate, Ranges: []Range{{Segment: s.id, Bytes: s.bytes}}, Moves: v.Moves, Prove: v.prove})
	d.changed("", nil)
}

// tidied ends a defragmentation that has nothing left to do, once what it emptied is gone.
func (d *Device) tidied() {
	f := d.vacant
	if !f.ending || len(f.doomed) > 0 {
		return
	}
	f.did.After, f.did.Stopped = d.heap.Stats(), f.stop
	d.vacant = nil
	if f.room != 0 {
		return // who waits for it is looked at again
	}
	d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeDefragmented, Ref: f.Ref, Defragmented: f.did})
}

// tidiedOff notes that a segment which may have been emptied by one is gone.
func (d *Device) tidiedOff(s *segment) {
	if f := d.vacant; f != nil && f.doomed[s.id] {
		delete(f.doomed, s.id)
		d.tidied()
	}
}

// moves are the copies under way.
func (d *Device) moves() []heap.Move {
	if d.vacant == nil || d.vacant.now == nil {
		return nil
	}
	return d.vacant.now.Moves
}

// stay keeps a grant's blocks where they are: somebody is about to use them. The copy of a
// move under way is thrown away.
func (d *Device) stay(g *Grant) {
	if v := g.holds.vacating; v != nil && !v.aborted {
		v.aborted, d.out.Abandon = true, true
	}
}

// Vacated is the outcome of JobVacate: the copies are made and, where it was asked for, it is
// proved that nobody else can touch the segment; or not.
func (d *Device) Vacated(done bool, now Now) {
	d.begin()
	f := d.vacant
	v := f.now
	f.now = nil
	for i, m := range v.Moves {
		v.grants[i].holds.vacating = nil
		d.segments[m.To.Segment].promised--
		d.books.promised -= m.To.Bytes
	}
	s := d.segments[v.Segment]
	if !done || v.aborted || s.exports != v.exports || !d.moved(v, now) {
		f.skip[v.Segment] = true
		for _, m := range v.Moves {
			d.books.slack += m.To.Bytes
			if d.heap.Free(m.To) {
				d.recycle(d.segments[m.To.Segment])
			}
		}
	} else {
		f.left -= v.Moved
		f.did.Moved += v.Moved
		d.emptied(v, s)
	}
	for _, g := range v.grants {
		d.loosened(g, now)
	}
	d.changed("", nil)
	d.vacate(now)
	d.pump(now)
}

// moved commits the new places of all blocks of a vacancy in one transaction: a successor
// finds each grant either there or here.
func (d *Device) moved(v *vacancy, now Now) bool {
	next := map[*Grant][]heap.Block{}
	for i, m := range v.Moves {
		g := v.grants[i]
		if next[g] == nil {
			next[g] = slices.Clone(g.Blocks)
		}
		next[g][slices.Index(next[g], m.From)] = m.To
	}
	grants := inOrder(next)
	tx := d.region.Begin()
	for _, g := range grants {
		was := g.Blocks
		g.Blocks = next[g]
		tx.Update(g.rec, d.encodeGrant(g))
		g.Blocks = was
	}
	if tx.Commit() != nil {
		return false // the ledger is full: all stays where it is
	}
	for _, g := range grants {
		g.Blocks = next[g]
		g.note("moved", now.Wall, "to another place")
		d.event(Event{Kind: EventMoved, Grant: g.ID, Owner: g.Owner, Class: g.Class, Bytes: g.Granted, Reason: "defragmented", RequestID: d.vacant.RequestID})
	}
	return true
}

// emptied gives the segment back whose blocks have gone, unless somebody has got a new one in
// it meanwhile.
func (d *Device) emptied(v *vacancy, s *segment) {
	empty := false
	for _, m := range v.Moves {
		d.books.slack += m.From.Bytes
		empty = d.heap.Free(m.From)
	}
	step := Vacated{Segment: s.id, Moved: v.Moved, Blocks: len(v.Moves)}
	if empty {
		delete(d.shared, s.id)
		d.recycle(s)
		d.doom(s)
		d.vacant.doomed[s.id] = true
		step.Released = s.bytes
		d.vacant.did.Released += s.bytes
		d.vacant.did.Segments++
	}
	if len(d.vacant.did.Steps) < maxSteps {
		d.vacant.did.Steps = append(d.vacant.did.Steps, step)
	}
}
