package ledger

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// release is a grant's way back: revoked, proved, freed.
type release struct {
	why      string
	since    clock.Instant
	deadline clock.Instant
	waiters  []any // requests that wait for the confirmation
	proving  bool
	again    bool                      // something changed while a proof was under way
	proof    map[heap.SegmentID]uint64 // the exports of each segment when the proof began
	retry    time.Duration
	timed    bool                    // its deadline is set
	ending   bool                    // the processes that map it were asked to end
	doomed   map[heap.SegmentID]bool // segments being destroyed; the grant ends with the last
	owes     bool                    // the driver has not shown the bytes of some of them back
	freed    int64                   // of segments that the grant has no more
	pids     []int32
	slot     int // among those that are going; 0: it is not there
}

// ReleaseRequest asks for a grant to end.
type ReleaseRequest struct {
	Ref      any // nil: nobody waits for the outcome
	Grant    uuid.UUID
	Tenant   string
	Force    bool          // also when sessions still map it
	Deadline time.Duration // how long they have to let go; 0: the default
	Why      string
	// Evict is true where the optimizer orders it, for the need of tenant For (empty:
	// of nobody in particular): then the owner's floor is respected.
	Evict bool
	For   string
	// Key and Answer make the command idempotent, as in Request. The answer is kept when
	// the release is decided, not when it is confirmed.
	Key    string
	Answer func(g *Grant) AnswerRecord
}

// Release begins to end a grant. It is answered with OutcomeReleased when every byte
// can be granted again, or at the deadline with what is still pinned. For weights, which
// the pool releases, the second answer is followed by the first when they are free.
func (d *Device) Release(r ReleaseRequest, now Now) {
	d.begin()
	g, err := d.releasable(r)
	if err != nil {
		if r.Ref != nil {
			d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeRefused, Ref: r.Ref, Err: err})
		}
		return
	}
	if r.Key != "" && r.Answer != nil {
		if err := d.recordRelease(g, r.Key, r.Answer(g), now); err != nil {
			if r.Ref != nil {
				d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeRefused, Ref: r.Ref, Err: err})
			}
			return
		}
	}
	d.beginRelease(g, r.Why, r.Deadline, r.Ref, now)
	d.pump(now)
}

// PlanRelease is the dry run of Release: why it would be refused, or nil.
func (d *Device) PlanRelease(r ReleaseRequest) *schemas.Error {
	_, err := d.releasable(r)
	return err
}

// releasable finds the grant that may be released, or says why it may not.
func (d *Device) releasable(r ReleaseRequest) (*Grant, *schemas.Error) {
	g, err := d.FindGrant(r.Grant, r.Tenant)
	if err != nil || g.release != nil {
		return g, err
	}
	if n := d.holding(g); n > 0 && !r.Force {
		return nil, schemas.Errorf(schemas.CodeAllocationInUse, "%d sessions map allocation %s: let them unmap it, or use force", n, g.ID).
			With("mapped_by", mapperPIDs(g))
	}
	if r.Evict {
		return g, d.protected(g, r.For)
	}
	return g, nil
}

// recordRelease commits the answer together with the beginning of the release that it
// tells of, or with all of it where nothing else is to be waited for.
func (d *Device) recordRelease(g *Grant, key string, a AnswerRecord, now Now) *schemas.Error {
	if !d.ballast.Hold() {
		return d.ballast.Refusal()
	}
	tx := d.region.Begin()
	kept := &answerAt{at: now.Boot, rec: tx.Insert(kindAnswer, EncodeAnswer(a, now.Boot))}
	whole := false
	if g.release == nil {
		if whole = g.Class == ClassReservation || !d.needsRecord(g); whole {
			tx.Delete(g.rec)
		} else {
			next := *g
			next.Status, next.Claims = StatusRevoking, nil
			tx.Update(g.rec, d.encodeGrant(&next))
		}
	}
	if err := tx.Commit(); err != nil {
		return ledgerFull(err)
	}
	d.answers[key] = kept
	if whole {
		g.rec = 0
	}
	return nil
}

// holding counts the mappers whose session still lives.
func (d *Device) holding(g *Grant) (n int) {
	for _, m := range g.Mappers {
		if !d.ended[m.Session] {
			n++
		}
	}
	return n
}

func mapperPIDs(g *Grant) []int32 {
	var pids []int32
	for _, m := range g.Mappers {
		pids = append(pids, m.PID)
	}
	return pids
}

// beginRelease turns a grant to revoking, tells those who map it, and tries to free it.
func (d *Device) beginRelease(g *Grant, why string, wait time.Duration, ref any, now Now) {
	if wait <= 0 {
		wait = d.cfg.RevokeWait
	}
	if g.release == nil {
		g.release = &g.few.release
		*g.release = release{waiters: g.few.waiters[:0], why: why, since: now.Boot, deadline: now.Boot.Add(wait), retry: d.cfg.ProofMin}
		for _, c := range g.Claims {
			delete(d.claims, c.Digest)
		}
		g.Claims = nil
		g.note("revoking", now.Wall, why)
		d.interrupt(g)
		if g.Class == ClassReservation {
			d.letGo(g)
			d.drop(g)
			d.answerRelease(g, ref, g.Granted, true)
			return
		}
		d.setStatus(g, StatusRevoking)
		d.goes(g)
		if d.needsRecord(g) {
			d.rewrite(g)
		}
		d.revoke(g)
	}
	if ref != nil {
		if g.Status == StatusZombie {
			d.answerRelease(g, ref, 0, false)
		}
		if g.Status != StatusZombie || g.Class == ClassWeights {
			g.release.waiters = append(g.release.waiters, ref)
		}
	}
	d.tryFree(g, now)
	if !g.release.timed && g.Status != StatusReleased {
		g.release.timed = true
		d.at(timer{at: g.release.deadline, kind: timerRevoke, grant: g.ID})
	}
}

// revoke asks the living sessions that map a grant to let go of it.
func (d *Device) revoke(g *Grant) {
	for _, m := range g.Mappers {
		if !d.ended[m.Session] {
			d.askBack(g, m.Session)
		}
	}
}

// askBack asks a session to let go of a grant that is being released.
func (d *Device) askBack(g *Grant, s SessionID) {
	d.out.Revokes = append(d.out.Revokes, Revoke{Session: s, Grant: g.ID, Deadline: g.release.deadline, Reason: g.release.why})
}

// needsRecord tells whether a release can be interrupted: a grant whose bytes are free
// at once is simply deleted, in one transaction.
func (d *Device) needsRecord(g *Grant) bool {
	return len(g.Mappers) > 0 || d.anyShared(g) || g.Class == ClassWeights || g.held()
}

func (d *Device) anyShared(g *Grant) bool {
	for _, b := range g.Blocks {
		if d.shared[b.Segment] {
			return true
		}
	}
	return false
}

// setStatus moves a grant's bytes between the sums.
func (d *Device) setStatus(g *Grant, s Status) {
	d.count(g, -g.Granted)
	g.Status = s
	d.count(g, g.Granted)
}

// count adds bytes to the sum of a grant's status.
func (d *Device) count(g *Grant, bytes int64) {
	*d.sum(g.Status) += bytes
	d.share(g).add(g, bytes)
	if g.Status == StatusRevoking && g.Class == ClassWeights {
		d.books.leaving += bytes
	}
}

func (d *Device) sum(s Status) *int64 {
	switch s {
	case StatusActive:
		return &d.books.granted
	case StatusRevoking:
		return &d.books.revoking
	case StatusZombie:
		return &d.books.zombie
	}
	panic("ledger: no sum for status " + string(s))
}

// tryFree frees a revoking grant if nobody else can still touch its bytes, and
// otherwise starts the proof or waits for the event that allows one.
func (d *Device) tryFree(g *Grant, now Now) {
	rel := g.release
	if rel.doomed != nil || g.held() {
		return // what is held is tried again when it is let go
	}
	if rel.proving {
		rel.again = true
		return
	}
	for _, m := range g.Mappers {
		// A live session answers the revocation; until its deadline it is trusted to.
		if !d.ended[m.Session] && now.Boot < rel.deadline || m.Exporting {
			return
		}
	}
	ranges := d.toProve(g)
	if len(ranges) == 0 {
		if len(g.Mappers) == 0 {
			d.unshare(g)
			d.free(g, now)
		}
		return
	}
	rel.proving = true
	rel.proof = make(map[heap.SegmentID]uint64, len(ranges))
	for _, rg := range ranges {
		rel.proof[rg.Segment] = d.segments[rg.Segment].exports
	}
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobProve, Grant: g.ID, Ranges: ranges})
}

func (d *Device) ranges(g *Grant) []Range {
	out := make([]Range, len(g.Blocks))
	for i, b := range g.Blocks {
		out[i] = Range{Segment: b.Segment, Bytes: d.segments[b.Segment].bytes, Offset: b.Offset, Length: b.Bytes}
	}
	return out
}

// free gives a grant's blocks back to the heap. Weights are destroyed, because sealed
// memory cannot be used again; their grant ends when the driver has let go of them.
func (d *Device) free(g *Grant, now Now) {
	if g.Class == ClassWeights {
		g.release.doomed = map[heap.SegmentID]bool{}
		for _, b := range g.Blocks {
			g.release.doomed[b.Segment] = true
		}
		d.out.Jobs = append(d.out.Jobs, Job{Kind: JobDestroy, Grant: g.ID, Ranges: d.ranges(g)})
		return
	}
	d.count(g, -g.Granted)
	for _, b := range g.Blocks {
		d.books.slack += b.Bytes
		if d.heap.Free(b) {
			d.recycle(d.segments[b.Segment])
		}
	}
	d.finish(g, now)
}

// recycle puts an empty segment into the pool; tend decides later whether it stays. One
// made for weights is not like others, even if nothing was ever written to it: it goes.
func (d *Device) recycle(s *segment) {
	s.raw = false // the heap knows
	d.heap.Pool(s.id)
	d.books.slack -= s.bytes
	d.books.pooled += s.bytes
	if s.weights {
		d.doom(s)
	}
}

// doom takes a pooled segment out of use and has it destroyed.
func (d *Device) doom(s *segment) {
	d.heap.Remove(s.id)
	s.doomed = true
	d.books.doomed += s.bytes
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobDestroy, Ranges: []Range{{Segment: s.id, Bytes: s.bytes}}})
}

// Destroyed is the outcome of JobDestroy: the segments are gone here and in the vault.
// A grant's may be reported in parts; it ends, in one transaction, with the last.
func (d *Device) Destroyed(id uuid.UUID, segs []Range, now Now) {
	d.begin()
	if g := d.grants[id]; g != nil {
		for _, rg := range segs {
			delete(g.release.doomed, rg.Segment)
		}
		for _, rg := range segs {
			d.returned(rg)
		}
		if len(g.release.doomed) == 0 {
			d.buried(g, now)
		} else if g.release.owes {
			d.lighten(g, segs)
		}
	} else {
		tx := d.region.Begin()
		for _, rg := range segs {
			s := d.segments[rg.Segment]
			if d.returned(rg) {
				d.books.astray -= s.bytes
			} else {
				d.books.pooled -= s.bytes
				d.books.doomed -= s.bytes
				d.trimmedOff(s, true)
				d.tidiedOff(s)
			}
			d.forget(tx, s)
		}
		must(tx.Commit())
	}
	d.changed("release", nil)
	d.pump(now)
}

// buried ends a grant all of whose segments are destroyed.
func (d *Device) buried(g *Grant, now Now) {
	tx := d.region.Begin()
	for _, b := range g.Blocks {
		d.heap.Free(b)
		d.heap.Remove(b.Segment)
		d.forget(tx, d.segments[b.Segment])
	}
	if g.rec != 0 {
		tx.Delete(g.rec)
	}
	must(tx.Commit())
	g.rec = 0
	d.count(g, -g.Granted)
	d.books.models -= g.Granted
	g.Granted += g.release.freed
	d.finish(g, now)
}

// forget drops a segment that is destroyed.
func (d *Device) forget(tx *store.Tx, s *segment) {
	delete(d.segments, s.id)
	delete(d.shared, s.id)
	if s.rec != 0 {
		tx.Delete(s.rec)
	}
}

// finish ends a grant whose bytes can be granted again and answers who waited for it.
func (d *Device) finish(g *Grant, now Now) {
	rel := g.release
	zombie := g.Status == StatusZombie
	d.drop(g)
	if zombie || len(rel.pids) > 0 || rel.deadline <= now.Boot {
		d.event(Event{Kind: EventConfirmed, Grant: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Purpose: g.Purpose, Size: g.Size, Bytes: g.Granted, Reason: rel.why, PIDs: rel.pids})
	}
	for _, ref := range rel.waiters {
		d.answerRelease(g, ref, g.Granted, true)
	}
	rel.waiters = nil
}

// drop deletes a grant's record and says that it is gone. An outcome that was undone is
// forgotten with it: a retry of the request makes it anew.
func (d *Device) drop(g *Grant) {
	undone := g.release.why == WhyUndone && d.answers[g.answer] != nil
	if g.rec != 0 || undone {
		tx := d.region.Begin()
		if g.rec != 0 {
			tx.Delete(g.rec)
		}
		if undone {
			tx.Delete(d.answers[g.answer].rec)
			delete(d.answers, g.answer)
		}
		must(tx.Commit())
	}
	delete(d.grants, g.ID)
	d.went(g)
	for _, c := range g.Claims {
		delete(d.claims, c.Digest)
	}
	d.stats.Releases++
	kind := EventDeallocated
	if g.release.why == WhyLease || g.release.why == WhyUndone {
		kind = EventExpired
	}
	d.changed("release", nil)
	d.event(Event{Kind: kind, Grant: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Purpose: g.Purpose, Size: g.Size, Bytes: g.Granted, Reason: g.release.why})
	g.Status = StatusReleased
	d.untie(g.Owner.Session, g)
}

// Why a grant ends, in events and logs.
const (
	WhyDeallocated = "deallocated by its client"
	WhyLease       = "its lease ran out"
	WhySession     = "its owner's session ended"
	WhyUndone      = "nobody heard the answer"
	WhyEvicted     = "released to make room"
	WhyUnloaded    = "unloaded by a client"
	WhyLoadFailed  = "its load did not finish"
	WhyDrain       = "the node stops and nobody holds it"
	WhyProcess     = "the process that it follows has ended"
	WhyLost        = "part of its memory is gone"
)

func (d *Device) answerRelease(g *Grant, ref any, freed int64, confirmed bool) {
	if ref == nil {
		return
	}
	o := Outcome{Kind: OutcomeReleased, Ref: ref, Grant: g, Freed: freed, Confirmed: confirmed}
	if !confirmed {
		o.Zombie = g.Granted
	}
	d.out.Outcomes = append(d.out.Outcomes, o)
}

// rewrite records a grant's present state.
func (d *Device) rewrite(g *Grant) {
	must(d.ballast.Update(g.rec, d.encodeGrant(g)))
}

// must ends the process on a record of something that has already happened and cannot
// be written: the successor reads a ledger that is consistent, if older.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("ledger: %v", err))
	}
}
