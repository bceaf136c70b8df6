package ledger

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/schemas"
)

// release is a grant's way back: revoked, proved, freed.
type release struct {
	why      string
	since    clock.Instant
	deadline clock.Instant
	waiters  []any // requests that wait for the confirmation
	proving  bool
	again    bool // something changed while a proof was under way
	retry    time.Duration
	doomed   map[heap.SegmentID]bool // segments being destroyed; the grant ends with the last
	freed    int64
	pids     []int32
}

// ReleaseRequest asks for a grant to end.
type ReleaseRequest struct {
	Ref      any // nil: nobody waits for the outcome
	Grant    uuid.UUID
	Tenant   string
	Force    bool          // also when sessions still map it
	Deadline time.Duration // how long they have to let go; 0: the default
	Why      string
	// Key and Answer make the command idempotent, as in Request. The answer is kept when
	// the release is decided, not when it is confirmed.
	Key    string
	Answer func(g *Grant) AnswerRecord
}

// Release begins to end a grant. It is answered with OutcomeReleased when every byte
// can be granted again, or at the deadline with what is still pinned.
func (d *Device) Release(r ReleaseRequest, now Now) {
	d.begin()
	g, err := d.FindGrant(r.Grant, r.Tenant)
	if err == nil && g.release == nil && !r.Force {
		if n := d.holding(g); n > 0 {
			err = schemas.Errorf(schemas.CodeAllocationInUse, "%d sessions map allocation %s: let them unmap it, or use force", n, g.ID).
				With("mapped_by", mapperPIDs(g))
		}
	}
	if err != nil {
		if r.Ref != nil {
			d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeRefused, Ref: r.Ref, Err: err})
		}
		return
	}
	if r.Key != "" && r.Answer != nil {
		if err := d.keepAnswer(r.Key, r.Answer(g), now); err != nil {
			d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeRefused, Ref: r.Ref, Err: err})
			return
		}
	}
	d.beginRelease(g, r.Why, r.Deadline, r.Ref, now)
	d.pump(now)
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
		g.release = &release{why: why, since: now.Boot, deadline: now.Boot.Add(wait), retry: d.cfg.ProofMin}
		for _, c := range g.Claims {
			delete(d.claims, c.Digest)
		}
		g.Claims = nil
		g.note("revoking", now.Wall, why)
		if g.Class == ClassReservation {
			d.books.reserved -= g.Granted
			d.drop(g, now)
			d.answerRelease(g, ref, g.Granted, true)
			return
		}
		d.setStatus(g, StatusRevoking)
		if d.needsRecord(g) {
			d.rewrite(g)
		}
		for _, m := range g.Mappers {
			if !d.ended[m.Session] {
				d.out.Revokes = append(d.out.Revokes, Revoke{Session: m.Session, Grant: g.ID, Deadline: g.release.deadline, Reason: why})
			}
		}
		d.timers.set(timer{at: g.release.deadline, kind: timerRevoke, grant: g.ID})
	}
	if ref != nil {
		if g.Status == StatusZombie {
			d.answerRelease(g, ref, 0, false)
		} else {
			g.release.waiters = append(g.release.waiters, ref)
		}
	}
	d.tryFree(g, now)
}

// needsRecord tells whether a release can be interrupted: a grant whose bytes are free
// at once is simply deleted, in one transaction.
func (d *Device) needsRecord(g *Grant) bool {
	return len(g.Mappers) > 0 || d.anyShared(g) || g.Class == ClassWeights
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
	*d.sum(g.Status) -= g.Granted
	g.Status = s
	*d.sum(s) += g.Granted
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
	if rel.doomed != nil {
		return
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
			d.free(g, now)
		}
		return
	}
	rel.proving = true
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobProve, Grant: g.ID, Ranges: ranges})
}

// toProve lists the segments that the release would empty and that others may still
// hold. A block beside others of the same trust domain needs no proof: its bytes stay
// with that domain until the segment is empty.
func (d *Device) toProve(g *Grant) []Range {
	var out []Range
	for _, b := range g.Blocks {
		if d.shared[b.Segment] && d.alone(b) {
			out = append(out, Range{Segment: b.Segment, Bytes: d.segments[b.Segment].bytes})
		}
	}
	return out
}

// alone reports whether a block is the only one of its segment.
func (d *Device) alone(b heap.Block) bool {
	info, _ := d.heap.Segment(b.Segment)
	return info.Blocks == 1
}

// Proved is the outcome of JobProve: whether nobody else has the segments open or mapped.
func (d *Device) Proved(id uuid.UUID, clear bool, now Now) {
	d.begin()
	g, ok := d.grants[id]
	if !ok || g.release == nil {
		return
	}
	rel := g.release
	rel.proving = false
	if clear {
		for _, b := range g.Blocks {
			if d.alone(b) {
				delete(d.shared, b.Segment)
			}
		}
		for len(g.Mappers) > 0 {
			d.removeMapper(g, g.Mappers[0].Session)
		}
		d.free(g, now)
		d.pump(now)
		return
	}
	if rel.again {
		rel.again = false
		rel.retry = d.cfg.ProofMin
		d.tryFree(g, now)
		return
	}
	if now.Boot >= rel.deadline {
		d.toZombie(g, now)
	}
	d.timers.set(timer{at: now.Boot.Add(rel.retry), kind: timerProof, grant: g.ID})
	rel.retry = min(2*rel.retry, d.cfg.ProofMax)
}

// toZombie counts bytes that someone pins after release, and tells those who waited.
func (d *Device) toZombie(g *Grant, now Now) {
	if g.Status == StatusZombie {
		return
	}
	d.setStatus(g, StatusZombie)
	d.rewrite(g)
	g.release.pids = mapperPIDs(g)
	g.note("zombie", now.Wall, g.release.why)
	d.event(Event{Kind: EventZombie, Grant: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Bytes: g.Granted, Reason: g.release.why, PIDs: g.release.pids})
	d.changed("release", "")
	for _, ref := range g.release.waiters {
		d.answerRelease(g, ref, 0, false)
	}
	g.release.waiters = nil
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobHolders, Grant: g.ID, Ranges: d.ranges(g)})
}

// Holder is a process found to hold segments of a grant.
type Holder struct {
	PID   int32
	Bytes int64
}

// HoldersFound is the outcome of JobHolders. Mappers whose session has ended and whose
// process holds nothing any more are let go.
func (d *Device) HoldersFound(id uuid.UUID, holders []Holder, now Now) {
	d.begin()
	g, ok := d.grants[id]
	if !ok {
		return
	}
	found := map[int32]bool{}
	var pids []int32
	for _, h := range holders {
		found[h.PID] = true
		pids = append(pids, h.PID)
	}
	if g.release != nil {
		g.release.pids = pids
	}
	for i := 0; i < len(g.Mappers); {
		m := g.Mappers[i]
		if d.ended[m.Session] && !m.Exporting && !found[m.PID] {
			d.removeMapper(g, m.Session)
			continue
		}
		i++
	}
	if g.release != nil {
		d.tryFree(g, now)
		d.pump(now)
	} else {
		d.rewrite(g)
	}
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
	*d.sum(g.Status) -= g.Granted
	for _, b := range g.Blocks {
		d.books.slack += b.Bytes
		if d.heap.Free(b) {
			d.recycle(d.segments[b.Segment])
		}
	}
	d.finish(g, now)
}

// recycle puts an empty segment into the pool; tend decides later whether it stays.
func (d *Device) recycle(s *segment) {
	d.heap.Pool(s.id)
	d.books.slack -= s.bytes
	d.books.pooled += s.bytes
}

// doom takes a pooled segment out of use and has it destroyed.
func (d *Device) doom(s *segment) {
	d.heap.Remove(s.id)
	s.doomed = true
	d.books.doomed += s.bytes
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobDestroy, Ranges: []Range{{Segment: s.id, Bytes: s.bytes}}})
}

// Destroyed is the outcome of JobDestroy: the segments are gone here and in the vault.
func (d *Device) Destroyed(id uuid.UUID, segs []Range, now Now) {
	d.begin()
	g := d.grants[id]
	tx := d.region.Begin()
	for _, rg := range segs {
		s := d.segments[rg.Segment]
		delete(d.segments, rg.Segment)
		delete(d.shared, rg.Segment)
		if s.rec != 0 {
			tx.Delete(s.rec)
		}
		if g == nil {
			d.books.pooled -= s.bytes
			d.books.doomed -= s.bytes
		} else {
			for _, b := range g.Blocks {
				if b.Segment == s.id {
					d.heap.Free(b)
				}
			}
			d.heap.Remove(s.id)
			delete(g.release.doomed, s.id)
		}
	}
	must(tx.Commit())
	if g != nil && len(g.release.doomed) == 0 {
		*d.sum(g.Status) -= g.Granted
		d.books.models -= g.Granted
		d.finish(g, now)
	}
	d.changed("", "")
	d.pump(now)
}

// finish ends a grant whose bytes can be granted again and answers who waited for it.
func (d *Device) finish(g *Grant, now Now) {
	rel := g.release
	d.drop(g, now)
	if len(rel.pids) > 0 || rel.deadline <= now.Boot {
		d.event(Event{Kind: EventConfirmed, Grant: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Bytes: g.Granted, Reason: rel.why, PIDs: rel.pids})
	}
	for _, ref := range rel.waiters {
		d.answerRelease(g, ref, g.Granted, true)
	}
	rel.waiters = nil
}

// drop deletes a grant's record and says that it is gone.
func (d *Device) drop(g *Grant, now Now) {
	tx := d.region.Begin()
	tx.Delete(g.rec)
	must(tx.Commit())
	delete(d.grants, g.ID)
	for _, c := range g.Claims {
		delete(d.claims, c.Digest)
	}
	d.stats.Releases++
	kind := EventDeallocated
	if g.release.why == WhyLease || g.release.why == WhyUndone {
		kind = EventExpired
	}
	d.changed("release", "")
	d.event(Event{Kind: kind, Grant: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Bytes: g.Granted, Reason: g.release.why})
	g.Status = StatusReleased
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
	tx := d.region.Begin()
	tx.Update(g.rec, encodeGrant(g))
	must(tx.Commit())
}

// must ends the process on a record of something that has already happened and cannot
// be written: the successor reads a ledger that is consistent, if older.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("ledger: %v", err))
	}
}

// outOfMemory is the refusal that says what is lacking and who holds it.
func (d *Device) outOfMemory(r *Request, need int64) *schemas.Error {
	f := d.Figures()
	room := f.Free + f.Pooled
	return schemas.Errorf(schemas.CodeOutOfMemory, "%s has no room for %d bytes: %s", d.cfg.Device, r.Size, d.topHolders()).
		With("required_bytes", need).With("available_bytes", f.Available).
		With("shortfall_bytes", max(0, need-room)).With("largest_grantable_bytes", f.Largest).
		With("holders", d.Holders(5)).With("position", len(d.queue)+1)
}

// Holding is one who holds bytes, for people.
type Holding struct {
	Owner string `json:"owner"`
	Bytes int64  `json:"bytes"`
}

// Holders lists who holds the most, greatest first.
func (d *Device) Holders(n int) []Holding {
	sums := map[string]int64{}
	for _, g := range d.grants {
		sums[g.holder()] += g.Granted
	}
	if d.books.foreign > 0 {
		sums["others on this machine"] += d.books.foreign
	}
	out := make([]Holding, 0, len(sums))
	for o, b := range sums {
		out = append(out, Holding{Owner: o, Bytes: b})
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Bytes > out[j].Bytes || out[i].Bytes == out[j].Bytes && out[i].Owner < out[j].Owner
	})
	return out[:min(n, len(out))]
}

func (g *Grant) holder() string {
	switch {
	case g.Model != "":
		return "model " + g.Model
	case g.Owner.PID != 0:
		return fmt.Sprintf("pid %d of tenant %s", g.Owner.PID, g.Owner.Tenant)
	case g.Purpose != "":
		return g.Purpose + " of tenant " + g.Owner.Tenant
	}
	return "tenant " + g.Owner.Tenant
}

func (d *Device) topHolders() string {
	h := d.Holders(3)
	if len(h) == 0 {
		return "nobody holds any"
	}
	parts := make([]string, len(h))
	for i, x := range h {
		parts[i] = fmt.Sprintf("%s holds %d", x.Owner, x.Bytes)
	}
	return strings.Join(parts, ", ")
}
