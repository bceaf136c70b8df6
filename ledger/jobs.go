package ledger

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/schemas"
)

// Prepared is the outcome of one JobCreate or JobClear of a request. After a failed
// JobCreate none of its segments exists; after a failed JobClear the memory is in any
// state. exhausted says that the driver was out of memory although the books had room:
// the shell samples the driver (SetOutside) before it reports this.
func (d *Device) Prepared(t Ticket, kind JobKind, fail error, exhausted bool, now Now) {
	d.begin()
	r, ok := d.pending[t]
	if !ok {
		panic(fmt.Sprintf("ledger: workers prepared request %d, which nobody waits for", t))
	}
	r.jobs--
	if fail != nil {
		r.failed, r.exhausted = fail, exhausted
		if kind == JobCreate {
			// They are not being made any more: so they are nobody's promise, nor its tenant's.
			for _, s := range r.segs {
				r.promised -= s.bytes
				d.books.promised -= s.bytes
			}
			r.segs = nil
		}
	}
	followers := d.cleared(r, kind, fail)
	if r.jobs == 0 {
		d.complete(r, now)
	}
	for _, f := range followers {
		if f.jobs--; fail != nil {
			f.failed = fail
		}
		if f.jobs == 0 {
			d.complete(f, now)
		}
	}
	d.changed("", nil)
	d.pump(now)
}

// cleared notes the outcome of a JobClear in the segments that were another owner's, and
// returns who waited for it with a block of one of them.
func (d *Device) cleared(r *Request, kind JobKind, fail error) (followers []*Request) {
	if kind != JobClear {
		return nil
	}
	for _, id := range r.foreign {
		s := d.segments[id]
		followers = append(followers, s.followers...)
		s.cleaner, s.followers = 0, nil
		if fail == nil {
			d.heap.MarkClean(id) // on record with the grant that follows
		}
	}
	r.clear, r.foreign = nil, nil
	return followers
}

// complete decides a request for which nothing is under way any more.
func (d *Device) complete(r *Request, now Now) {
	delete(d.pending, r.ticket)
	d.books.promised -= r.promised
	r.promised = 0
	for _, s := range r.segs {
		d.segments[s.id] = s
		d.heap.Add(s.id, s.bytes, r.domain, !s.raw)
		d.books.slack += s.bytes
		d.carve(r, s)
	}
	r.segs, r.clear = nil, nil
	switch {
	case r.failed != nil:
		d.unprepared(r, now)
	case r.gone:
		d.backOut(r)
	default:
		d.grant(r, now)
	}
}

// unprepared deals with workers that failed: out of memory is tried again at the head of
// the line, because the sample has corrected the books by now; anything else is told.
func (d *Device) unprepared(r *Request, now Now) {
	d.backOut(r)
	fail, exhausted := r.failed, r.exhausted
	r.failed, r.exhausted = nil, false
	switch {
	case r.gone:
	case exhausted && r.attempts < maxDriverAttempts:
		r.attempts++
		r.again = true
		r.reason = "the driver had less memory than the ledger: " + fail.Error()
		d.enqueue(r, now)
	case exhausted:
		d.refuse(r, d.outOfMemory(r, r.Size).With("driver", fail.Error()))
	default:
		d.refuse(r, schemas.Errorf(schemas.CodeInternalError, "%s could not prepare the memory: %v", d.cfg.Device, fail))
	}
}

// Warmed is the outcome of JobWarm.
func (d *Device) Warmed(rg Range, fail error, now Now) {
	d.begin()
	d.warming[rg.Bytes]--
	d.books.warming -= rg.Bytes
	d.changed("", nil)
	if fail != nil {
		if d.line.Len() > 0 {
			d.pump(now) // somebody may wait for the bytes that it would have taken
		}
		// Tried again later, with the next change: admission never depends on it, and a
		// driver that has no memory is not asked with every command.
		d.warmAfter = now.Boot.Add(warmPause)
		return
	}
	s := &segment{id: rg.Segment, bytes: rg.Bytes}
	tx := d.region.Begin()
	s.rec = tx.Insert(kindSegment, d.encodeSegment(s))
	if tx.Commit() != nil {
		s.rec = 0 // it is recorded with its first grant; till then a successor drops it
	}
	d.segments[s.id] = s
	d.heap.Add(s.id, s.bytes, "", true)
	d.books.pooled += s.bytes
	d.pump(now)
}

// Scrubbed is the outcome of JobScrub.
func (d *Device) Scrubbed(id heap.SegmentID, fail error, now Now) {
	d.begin()
	s := d.segments[id]
	d.books.aside -= s.bytes
	d.scrubbing = 0
	switch {
	case d.trimming(id):
		d.doom(s)
	case fail != nil:
		d.heap.Pool(id)
	default:
		d.heap.MarkClean(id)
		s.last = ""
		if s.rec != 0 {
			must(d.ballast.Update(s.rec, d.encodeSegment(s)))
		}
	}
	d.settling = false
	d.pump(now)
}

// Seal asks for a filled weights grant to be write-sealed. It reports false, and asks for
// nothing, where the grant has ended or is being released meanwhile.
func (d *Device) Seal(id uuid.UUID) bool {
	d.begin()
	g, ok := d.grants[id]
	if !ok || g.release != nil {
		return false
	}
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobSeal, Grant: id, Ranges: d.ranges(g), Weights: true})
	return true
}

// SealDone is the outcome of JobSeal. It reports whether the grant is sealed and on record.
func (d *Device) SealDone(id uuid.UUID, now Now) bool {
	d.begin()
	g, ok := d.grants[id]
	if !ok || g.release != nil {
		return false
	}
	g.Sealed = true
	g.note("sealed", now.Wall, "")
	d.rewrite(g)
	return true
}

// Segment reports the bytes of a live segment.
func (d *Device) Segment(id heap.SegmentID) (bytes int64, ok bool) {
	s, ok := d.segments[id]
	if !ok {
		return 0, false
	}
	return s.bytes, true
}
