package ledger

import (
	"fmt"
	"sort"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/schemas"
)

// Request asks a device for memory. The shell fills the first part; the rest is the core's.
type Request struct {
	Ref        any // comes back with every outcome
	Owner      Owner
	Class      Class
	Size       int64
	Align      int64
	Purpose    string
	Persistent bool
	Priority   int
	Lease      time.Duration
	Clear      bool
	// Patience is the longest stay in the queue; 0: do not queue (room that can be made
	// by letting go of models nobody reads is still waited for).
	Patience time.Duration
	// Segments are the exact segments of a weights request, from the model's layout.
	Segments []int64
	Model    string
	// Key and Answer make the command idempotent: Answer renders what is kept of the
	// outcome, and both are committed together with the grant. Key is empty where the
	// client chose no request_id.
	Key       string
	RequestID string
	Answer    func(g *Grant) AnswerRecord
	// Unclaimed grants get no claim (a model's weights are claimed by its readers).
	Unclaimed bool

	ticket   Ticket
	domain   string
	need     int64 // bytes of new segments it lacked when last looked at
	arrived  clock.Instant
	deadline clock.Instant
	queued   bool  // told that it waits
	wanted   int64 // bytes asked of the optimizer and not yet answered
	refused  bool  // the optimizer found nothing more to release
	evicted  []Evicted
	reason   string
	attempts int  // times the driver was out of memory
	gone     bool // refused or cancelled, perhaps while workers were at it

	// What it has got so far, while workers prepare the rest.
	blocks    []heap.Block
	whole     bool // its blocks are whole segments
	segs      []*segment
	clear     []Range
	foreign   []heap.SegmentID // of these, the whole was another owner's
	promised  int64
	jobs      int // under way
	failed    error
	exhausted bool
}

// Position-independent facts of a waiting request, for get_queue.
func (r *Request) Ticket() Ticket          { return r.ticket }
func (r *Request) Reason() string          { return r.reason }
func (r *Request) Deadline() clock.Instant { return r.deadline }
func (r *Request) Arrived() clock.Instant  { return r.arrived }

// hardPatience bounds the wait of a request that does not queue for the plan that
// makes its room: revocations have deadlines, so a plan always ends.
const hardPatience = 30 * time.Second

// maxDriverAttempts bounds how often a request is tried again after the driver said
// that it is out of memory although the ledger had room.
const maxDriverAttempts = 3

// Allocate decides a request: granted at once, given to workers, put in line, or
// refused. The answer is an Outcome with r.Ref.
func (d *Device) Allocate(r *Request, now Now) Ticket {
	d.begin()
	d.ticket++
	r.ticket = d.ticket
	r.arrived = now.Boot
	r.domain = d.domain(r.Owner)
	patience := r.Patience
	if patience == 0 {
		patience = hardPatience
	}
	r.deadline = now.Boot.Add(patience)
	if err := d.impossible(r); err != nil {
		d.refuse(r, err)
		return r.ticket
	}
	if len(d.queue) == 0 || d.harmless(r) {
		if d.admit(r, now) {
			d.tend(now)
			return r.ticket
		}
	}
	if r.gone {
		return r.ticket
	}
	d.enqueue(r, now)
	d.tend(now)
	return r.ticket
}

// impossible reports why a request can never be granted, whatever is released.
func (d *Device) impossible(r *Request) *schemas.Error {
	if r.Owner.Session != "" && d.ended[r.Owner.Session] {
		return schemas.Errorf(schemas.CodeStaleHandle, "the session has ended")
	}
	need := r.Size
	for i, s := range r.Segments {
		if i == 0 {
			need = 0
		}
		need += s
	}
	if need > d.books.limit {
		err := d.outOfMemory(r, need)
		err.Message = fmt.Sprintf("%d bytes can never fit: the limit of %s is %d bytes", need, d.cfg.Device, d.books.limit)
		return err
	}
	if r.Class == ClassWeights && d.limits.models > 0 && need > d.limits.models {
		err := d.outOfMemory(r, need)
		err.Message = fmt.Sprintf("%d bytes can never fit: the limit for models on %s is %d bytes", need, d.cfg.Device, d.limits.models)
		return err
	}
	if len(d.queue) >= d.cfg.MaxQueue {
		return schemas.Errorf(schemas.CodeBusy, "the queue of %s is full (%d requests)", d.cfg.Device, len(d.queue)).With("retry_after_ms", 100)
	}
	return nil
}

// harmless reports whether a request may pass those that wait: it takes only memory
// that its own trust domain already holds and nobody else could be given.
func (d *Device) harmless(r *Request) bool {
	return r.Class != ClassWeights && r.Class != ClassReservation &&
		d.heap.Place(r.domain, r.Size, r.Align).Kind == heap.InSegment
}

// admit tries to serve a request now. It returns true when the request is decided
// (granted, refused, or with the workers) and false when it has to wait.
func (d *Device) admit(r *Request, now Now) bool {
	if r.Class == ClassReservation {
		if !d.room(r, r.Size) {
			return r.gone
		}
		d.grant(r, now)
		return true
	}
	if r.Class == ClassWeights {
		need := int64(0)
		for _, s := range r.Segments {
			need += s
		}
		if !d.room(r, need) || !d.modelRoom(r, need) {
			return r.gone
		}
		r.whole = true
		d.create(r, r.Segments, need)
		return true
	}
	p := d.heap.Place(r.domain, r.Size, r.Align)
	need := int64(0)
	for _, n := range p.Create {
		need += n
	}
	if need > 0 && !d.room(r, need) {
		return r.gone
	}
	d.place(r, p, now)
	return true
}

// place takes what is already there for a request, and has workers make and clear the
// rest. Where nothing is left to do the request is granted at once.
func (d *Device) place(r *Request, p heap.Placement, now Now) {
	r.blocks, r.whole = r.blocks[:0], p.Whole
	if p.Kind != heap.Create {
		d.occupy(r, p.Segment, p)
		for _, id := range p.More {
			d.occupy(r, id, p)
		}
	}
	if len(p.Create) > 0 {
		need := int64(0)
		for _, n := range p.Create {
			need += n
		}
		d.create(r, p.Create, need)
	}
	if len(r.clear) > 0 {
		r.jobs++
		d.out.Jobs = append(d.out.Jobs, Job{Kind: JobClear, Ticket: r.ticket, Ranges: r.clear})
	}
	if r.jobs == 0 {
		d.grant(r, now)
		return
	}
	for _, b := range r.blocks {
		r.promised += b.Bytes
		d.books.promised += b.Bytes
	}
	d.pending[r.ticket] = r
}

// occupy grants a block of a segment that exists, and notes what must be cleared in it.
func (d *Device) occupy(r *Request, id heap.SegmentID, p heap.Placement) {
	seg := d.segments[id]
	foreign := d.heap.NeedsClear(id, r.domain)
	if p.Kind == heap.Pooled {
		d.heap.Take(id, r.domain)
		d.books.pooled -= seg.bytes
		d.books.slack += seg.bytes
	}
	b := d.carve(r, seg)
	switch {
	case foreign:
		// Cleared whole: what lies beside the block is the old owner's too.
		r.clear = append(r.clear, Range{Segment: id, Bytes: seg.bytes, Length: seg.bytes})
		r.foreign = append(r.foreign, id)
	case r.Clear:
		r.clear = append(r.clear, Range{Segment: id, Bytes: seg.bytes, Offset: b.Offset, Length: b.Bytes})
	}
}

// carve takes a request's next block out of a segment that it was given.
func (d *Device) carve(r *Request, seg *segment) heap.Block {
	left := r.Size
	for _, b := range r.blocks {
		left -= b.Bytes
	}
	var b heap.Block
	var err error
	if r.whole {
		b, err = d.heap.AllocWhole(seg.id, min(left, seg.bytes))
	} else {
		b, err = d.heap.Alloc(seg.id, left, r.Align)
	}
	if err != nil {
		panic(fmt.Sprintf("ledger: the heap chose segment %d for %d bytes and then refused them: %v", seg.id, left, err))
	}
	d.books.slack -= b.Bytes
	r.blocks = append(r.blocks, b)
	return b
}

// room reports whether need bytes of new memory are free now. If not, it sees to it that
// they become so: idle segments are given up, and what is still lacking is asked of
// the optimizer, the only party that takes memory from anybody.
func (d *Device) room(r *Request, need int64) bool {
	r.need = need
	short := need - d.books.free()
	if short <= 0 {
		return true
	}
	short -= d.books.doomed
	if short > 0 {
		for _, id := range d.heap.Idle(short) {
			short -= d.segments[id].bytes
			d.doom(d.segments[id])
		}
	}
	if short <= 0 {
		r.reason = "idle segments are being given back"
		return false
	}
	d.ask(r, need, short-d.books.revoking)
	return false
}

// modelRoom reports whether the device's limit for models leaves need bytes.
func (d *Device) modelRoom(r *Request, need int64) bool {
	if d.limits.models == 0 || d.books.models+need <= d.limits.models {
		return true
	}
	d.ask(r, need, d.books.models+need-d.limits.models)
	return false
}

// ask has the optimizer look for what a request still lacks.
func (d *Device) ask(r *Request, need, short int64) {
	switch {
	case short <= 0:
		r.reason = fmt.Sprintf("waits until %d bytes that are being released are free", d.books.revoking)
	case r.refused:
		r.reason = fmt.Sprintf("lacks %d bytes, and nothing can be released now; %s", short, d.topHolders())
		if r.Patience == 0 {
			d.unqueue(r)
			d.refuse(r, d.outOfMemory(r, need))
		}
	case r.wanted < short:
		r.wanted = short
		r.reason = fmt.Sprintf("lacks %d bytes: looking for models to release", short)
		d.out.Wants = append(d.out.Wants, Want{Ticket: r.ticket, Bytes: short, Model: r.Model,
			Reason: fmt.Sprintf("a request for %d bytes lacks %d", need, short)})
	}
}

// create promises the bytes and sends workers to make the segments.
func (d *Device) create(r *Request, sizes []int64, need int64) {
	r.promised += need
	d.books.promised += need
	d.pending[r.ticket] = r
	r.segs = r.segs[:0]
	ranges := make([]Range, len(sizes))
	for i, n := range sizes {
		s := d.newSegment(n, r.Class == ClassWeights)
		r.segs = append(r.segs, s)
		ranges[i] = Range{Segment: s.id, Bytes: n, Length: n}
	}
	r.jobs++
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobCreate, Ticket: r.ticket, Ranges: ranges, Weights: r.Class == ClassWeights})
	d.changed("grant", r.RequestID)
}

func before(a, b *Request) bool {
	return a.Priority > b.Priority || a.Priority == b.Priority && a.ticket < b.ticket
}

// enqueue puts a request in line: by priority, then age.
func (d *Device) enqueue(r *Request, now Now) {
	i := sort.Search(len(d.queue), func(i int) bool { return before(r, d.queue[i]) })
	d.queue = append(d.queue, nil)
	copy(d.queue[i+1:], d.queue[i:])
	d.queue[i] = r
	d.timers.set(timer{at: r.deadline, kind: timerQueue, ticket: r.ticket})
	if i > 0 {
		r.reason = fmt.Sprintf("%d requests are before it", i)
		if r.Patience == 0 {
			d.unqueue(r)
			r.need = r.Size
			d.refuse(r, d.outOfMemory(r, r.Size))
			return
		}
	}
	if r.Patience > 0 && !r.queued {
		r.queued = true
		d.event(Event{Kind: EventQueued, Owner: r.Owner, Class: r.Class, Model: r.Model, Bytes: r.Size, Reason: r.reason, RequestID: r.RequestID, Position: i + 1})
	}
	d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeQueued, Ref: r.Ref, Ticket: r.ticket, Position: i + 1, Reason: r.reason})
	d.changed("grant", r.RequestID)
}

func (d *Device) unqueue(r *Request) {
	for i, q := range d.queue {
		if q == r {
			d.queue = append(d.queue[:i], d.queue[i+1:]...)
			return
		}
	}
}

// pump serves those who wait, strictly in order, as far as there is room.
func (d *Device) pump(now Now) {
	for len(d.queue) > 0 {
		head := d.queue[0]
		if !d.admit(head, now) {
			break
		}
		d.unqueue(head) // a refused head has left already; this is then a no-op
		d.changed("", "")
	}
	d.tend(now)
}

// tend keeps the warm pool: enough clean segments of each class, none beyond the bound.
func (d *Device) tend(now Now) {
	if len(d.queue) > 0 {
		return // whoever waits comes before anything is kept warm
	}
	if over := d.books.pooled - d.books.doomed - d.cfg.PoolBytes; over > 0 {
		for _, id := range d.heap.Idle(over) {
			if over -= d.segments[id].bytes; over < 0 {
				break // keep the pool full rather than cut below its bound
			}
			d.doom(d.segments[id])
		}
	}
	room := d.cfg.PoolBytes - (d.books.pooled - d.books.doomed)
	for _, w := range d.cfg.Warm {
		for n := d.heap.Deficit(w.Bytes, w.Keep) - d.warming[w.Bytes]; n > 0; n-- {
			if room -= w.Bytes; room < 0 || d.books.free()-d.warmingBytes() < w.Bytes {
				d.scrubLater(now)
				return
			}
			s := d.newSegment(w.Bytes, false)
			d.warming[w.Bytes]++
			d.out.Jobs = append(d.out.Jobs, Job{Kind: JobWarm, Ranges: []Range{{Segment: s.id, Bytes: s.bytes, Length: s.bytes}}})
		}
	}
	d.scrubLater(now)
}

// quiet is how long a device must have granted nothing before pooled memory is cleared
// in the background: the next request of the same owner needs no clearing at all.
const quiet = 100 * time.Millisecond

// scrubLater has dirty pooled memory cleared when the device is quiet.
func (d *Device) scrubLater(now Now) {
	if _, dirty := d.heap.Dirty(); dirty && !d.scrubbing {
		d.scrubbing = true
		d.timers.set(timer{at: now.Boot.Add(quiet), kind: timerScrub})
	}
}

// scrub clears the segment that has been idle for longest, or waits for more quiet.
func (d *Device) scrub(now Now) {
	id, dirty := d.heap.Dirty()
	switch {
	case !dirty:
		d.scrubbing = false
	case now.Boot.Sub(d.granted) < quiet:
		d.timers.set(timer{at: d.granted.Add(quiet), kind: timerScrub})
	default:
		d.heap.SetAside(id)
		s := d.segments[id]
		d.out.Jobs = append(d.out.Jobs, Job{Kind: JobScrub, Ranges: []Range{{Segment: id, Bytes: s.bytes, Length: s.bytes}}})
	}
}

func (d *Device) warmingBytes() (sum int64) {
	for class, n := range d.warming {
		sum += class * int64(n)
	}
	return sum
}

// grant commits and answers: segments, grant, claim digest and answer in one transaction.
func (d *Device) grant(r *Request, now Now) {
	g := &Grant{
		ID: d.cfg.NewID(), Owner: r.Owner, Class: r.Class, Status: StatusActive,
		Size: r.Size, Granted: r.Size, Align: r.Align, Purpose: r.Purpose, Persistent: r.Persistent,
		Priority: r.Priority, Type: d.cfg.Type, Model: r.Model, Created: now.Wall, LastUsed: now.Wall,
		Lease: r.Lease, Bound: r.Owner.Session != "" && !r.Persistent,
	}
	if r.Class != ClassReservation {
		g.Blocks, g.Granted = r.blocks, 0
		for _, b := range r.blocks {
			g.Granted += b.Bytes
		}
	}
	if r.Lease > 0 {
		g.LeaseEnds = now.Boot.Add(r.Lease)
	}
	claim := ""
	if !r.Unclaimed && r.Class != ClassReservation {
		claim = d.newClaim(g, now)
	}
	tx := d.region.Begin()
	var inserted []*segment
	for _, b := range g.Blocks {
		// The new owner is on record before it can write a byte.
		s := d.segments[b.Segment]
		fresh := s.last != r.domain
		s.last = r.domain
		switch {
		case s.rec == 0:
			s.rec = tx.Insert(kindSegment, encodeSegment(s))
			inserted = append(inserted, s)
		case fresh:
			tx.Update(s.rec, encodeSegment(s))
		}
	}
	g.rec = tx.Insert(kindGrant, encodeGrant(g))
	var kept *answerAt
	if r.Key != "" && r.Answer != nil {
		kept = &answerAt{at: now.Boot}
		kept.rec = tx.Insert(kindAnswer, EncodeAnswer(r.Answer(g), now.Boot))
	}
	if err := tx.Commit(); err != nil {
		for _, s := range inserted {
			s.rec = 0
		}
		d.backOut(r)
		d.refuse(r, ledgerFull(err))
		return
	}
	if kept != nil {
		d.answers[r.Key] = kept
	}
	d.grants[g.ID] = g
	d.granted = now.Boot
	d.index(g)
	if r.Class == ClassReservation {
		d.books.reserved += g.Granted
	} else {
		d.books.granted += g.Granted
	}
	if r.Class == ClassWeights {
		d.books.models += g.Granted
	}
	if g.LeaseEnds != 0 {
		d.timers.set(timer{at: g.LeaseEnds, kind: timerLease, grant: g.ID})
	}
	g.note("allocated", now.Wall, "")
	d.stats.Grants++
	waited := int64(now.Boot.Sub(r.arrived))
	d.stats.GrantNanos += waited
	if !r.queued {
		waited = 0
	}
	cause := "grant"
	if r.Class == ClassReservation {
		cause = "reservation"
	}
	d.changed(cause, r.RequestID)
	d.event(Event{Kind: EventAllocated, Grant: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Bytes: g.Granted, RequestID: r.RequestID})
	d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeGranted, Ref: r.Ref, Ticket: r.ticket, Grant: g, Claim: claim, Queued: waited, Evicted: r.evicted})
}

// backOut returns the blocks of a request that is not granted after all.
func (d *Device) backOut(r *Request) {
	for _, b := range r.blocks {
		d.books.slack += b.Bytes
		if d.heap.Free(b) {
			d.recycle(d.segments[b.Segment])
		}
	}
	r.blocks = nil
}

// refuse answers a request with an error and says so in an event.
func (d *Device) refuse(r *Request, err *schemas.Error) {
	r.gone = true
	d.stats.Refusals++
	d.changed("", "")
	d.event(Event{Kind: EventRefused, Owner: r.Owner, Class: r.Class, Model: r.Model, Bytes: r.Size, Reason: err.Message, RequestID: r.RequestID})
	d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeRefused, Ref: r.Ref, Ticket: r.ticket, Err: err})
}

func (d *Device) event(e Event) { d.out.Events = append(d.out.Events, e) }

// Cancel takes a request out of the line, or marks it so that what the workers bring
// is given back. It reports whether the request was still undecided.
func (d *Device) Cancel(t Ticket, err *schemas.Error, now Now) bool {
	d.begin()
	for _, r := range d.queue {
		if r.ticket == t {
			d.unqueue(r)
			d.refuse(r, err)
			d.pump(now)
			return true
		}
	}
	if r, ok := d.pending[t]; ok && !r.gone {
		d.refuse(r, err)
		return true
	}
	return false
}

// NoRoom is the optimizer's word that it can release no more for a request.
func (d *Device) NoRoom(t Ticket, now Now) {
	d.begin()
	for _, r := range d.queue {
		if r.ticket == t {
			r.refused = true
			d.pump(now)
			r.refused = false
			return
		}
	}
}

// RoomMade tells which model went for a request.
func (d *Device) RoomMade(t Ticket, e Evicted) {
	d.stats.Evictions++
	for _, r := range d.queue {
		if r.ticket == t {
			r.evicted = append(r.evicted, e)
			return
		}
	}
}

// Plan says what Allocate would do with a request now, and changes nothing.
type Plan struct {
	Outcome  string // granted, queued, refused
	Position int
	Reason   string
	Lacks    int64 // bytes that would have to be released
	Err      *schemas.Error
}

// Plan is the dry run of Allocate, decided by the same figures. Lacks > 0 asks the
// optimizer's dry run which models would go.
func (d *Device) Plan(r *Request, now Now) Plan {
	r.domain = d.domain(r.Owner)
	if err := d.impossible(r); err != nil {
		return Plan{Outcome: "refused", Reason: err.Message, Err: err}
	}
	need := r.Size
	if r.Class == ClassWeights {
		need = 0
		for _, s := range r.Segments {
			need += s
		}
	} else if r.Class != ClassReservation {
		need = 0
		for _, s := range d.heap.Place(r.domain, r.Size, r.Align).Create {
			need += s
		}
	}
	if n := len(d.queue); n > 0 && !d.harmless(r) {
		if r.Patience == 0 {
			return Plan{Outcome: "refused", Position: n + 1, Reason: fmt.Sprintf("%d requests wait before it", n), Err: d.outOfMemory(r, need)}
		}
		i := sort.Search(n, func(i int) bool { return r.Priority > d.queue[i].Priority })
		return Plan{Outcome: "queued", Position: i + 1, Reason: fmt.Sprintf("%d requests are before it", i)}
	}
	lacks := need - max(0, d.books.free()) - d.books.pooled
	if lacks <= 0 {
		return Plan{Outcome: "granted", Reason: "there is room"}
	}
	if lacks <= d.books.revoking {
		return Plan{Outcome: "queued", Position: 1, Reason: "bytes that are being released will be enough"}
	}
	return Plan{Outcome: "queued", Position: 1, Lacks: lacks - d.books.revoking, Err: d.outOfMemory(r, need),
		Reason: fmt.Sprintf("lacks %d bytes; %s", lacks, d.topHolders())}
}

// newClaim makes a claim on a grant; the digest must be committed before it leaves.
func (d *Device) newClaim(g *Grant, now Now) string {
	secret, digest := makeClaim(d.cfg.Rand)
	live := g.Claims[:0]
	for _, c := range g.Claims {
		if c.Expires > now.Boot {
			live = append(live, c)
		} else {
			delete(d.claims, c.Digest)
		}
	}
	if len(live) >= maxClaims {
		delete(d.claims, live[0].Digest)
		live = append(live[:0], live[1:]...)
	}
	g.Claims = append(live, Claim{Digest: digest, Expires: now.Boot.Add(d.cfg.ClaimLife)})
	return secret
}

// index makes a grant's claims findable.
func (d *Device) index(g *Grant) {
	for _, c := range g.Claims {
		d.claims[c.Digest] = g
	}
}

// FindGrant parses an id as the wire has it and looks it up for a tenant; another
// tenant's grants do not exist.
func (d *Device) FindGrant(id uuid.UUID, tenant string) (*Grant, *schemas.Error) {
	g, ok := d.grants[id]
	if !ok || g.Owner.Tenant != tenant {
		return nil, schemas.Errorf(schemas.CodeAllocationNotFound, "no allocation %s", id)
	}
	return g, nil
}

func draining() *schemas.Error {
	return schemas.Errorf(schemas.CodeDraining, "the node is stopping")
}
