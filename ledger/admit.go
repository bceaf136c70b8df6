package ledger

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/admission"
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
	// Follows is the process that a reservation follows; its zero value is none.
	Follows Process
	// Patience is the longest stay in the queue; 0: do not queue (room that can be made
	// by letting go of models nobody reads is still waited for).
	Patience time.Duration
	// Segments are the segments of a weights request, from the model's layout. Each is
	// rounded up to the device's granularity; Size is then their sum.
	Segments []int64
	// Estimated weights have a Size and no Segments yet: they are served with a reservation,
	// and made when Measure has told their segments.
	Estimated bool
	Model     string
	// Key and Answer make the command idempotent: Answer renders what is kept of the
	// outcome, and both are committed together with the grant. Key is empty where the
	// client chose no request_id.
	Key       string
	RequestID string
	Answer    func(g *Grant) AnswerRecord
	// Modest requests take what is free, or idle, and have nothing released for them. One that
	// Awaits a release waits for what is on its way back, if it does not lack more.
	Modest, Awaits bool
	// Filling makes a grant that a transfer has yet to fill: see transfer.go.
	Filling bool
	// Unclaimed grants get no claim (a model's weights are claimed by its readers).
	Unclaimed bool

	id        uuid.UUID // of the grant that it becomes
	ticket    Ticket
	domain    string
	need      int64 // bytes of new segments it lacked when last looked at
	arrived   clock.Instant
	waits     clock.Instant // since when it waits for room; 0: it does not
	waited    time.Duration // so far
	deadline  clock.Instant
	regrouped clock.Instant // until then it is not tried to move blocks together for it
	queued    bool          // told that it waits
	wanted    int64         // bytes asked of the optimizer and not yet answered
	refused   bool          // the optimizer found nothing more to release
	guard     *Guard        // what it waits for; nil: nothing that was just loaded
	evicted   []Evicted
	reason    string
	attempts  int  // times the driver was out of memory
	gone      bool // refused or cancelled, perhaps while workers were at it
	held      bool // waits for its tenant's quota
	again     bool // was served before, and stands before everybody
	passed    bool // was served before its turn
	charged   bool // was served at its tenant's cost
	spot      *admission.Spot[*Request]

	// What it has got so far, while workers prepare the rest.
	blocks    []heap.Block
	few       [1]heap.Block // where they lie while there is but one
	whole     bool          // its blocks are whole segments
	segs      []*segment
	clear     []Range
	foreign   []heap.SegmentID // of these, the whole was another owner's
	promised  int64
	jobs      int // under way
	failed    error
	exhausted bool
}

// Ticket is the request's number on its device; zero before Allocate.
func (r *Request) Ticket() Ticket { return r.ticket }

// Awaited shows a waiting request as the grant that it will be: without memory, and queued.
// created is the time of its arrival.
func (r *Request) Awaited(kind string, created time.Time) *Grant {
	return &Grant{ID: r.id, Owner: r.Owner, Class: r.Class, Status: StatusQueued, Size: r.Size, Align: r.Align, Purpose: r.Purpose, Persistent: r.Persistent,
		Priority: r.Priority, Type: kind, Model: r.Model, Created: created, LastUsed: created}
}

// Reason says why the request waits, for people.
func (r *Request) Reason() string { return r.reason }

// Deadline is when a waiting request is refused.
func (r *Request) Deadline() clock.Instant { return r.deadline }

// Arrived is when Allocate was called.
func (r *Request) Arrived() clock.Instant { return r.arrived }

// hardPatience bounds the wait of a request that does not queue for the plan that
// makes its room: revocations have deadlines, so a plan always ends.
const hardPatience = 30 * time.Second

// maxDriverAttempts bounds how often a request is tried again after the driver said
// that it is out of memory although the ledger had room.
const maxDriverAttempts = 3

// Allocate decides a request: granted at once, given to workers, put in line, or
// refused. The answer is an Outcome with r.Ref, which must not be nil. The core keeps
// and changes r until that is final.
func (d *Device) Allocate(r *Request, now Now) Ticket {
	d.begin()
	d.ticket++
	d.prepare(r, d.ticket)
	r.id = d.cfg.NewID()
	r.arrived = now.Boot
	patience := r.Patience
	if patience == 0 {
		patience = hardPatience
	}
	r.deadline = now.Boot.Add(patience)
	if err := d.inadmissible(r); err != nil {
		d.refuse(r, err)
		return r.ticket
	}
	free := d.line.Len() > 0 && d.harmless(r)
	first := d.first(r)
	if (free || first || d.passes(r)) && d.admit(r, now) {
		r.passed = !first && !free && !r.gone
		d.served(r, free)
		d.tend(now)
		return r.ticket
	}
	d.enqueue(r, now)
	d.dismiss()
	d.tend(now)
	return r.ticket
}

// prepare fills in what follows from the rest of a request.
func (d *Device) prepare(r *Request, t Ticket) {
	r.ticket = t
	r.domain = d.domain(r.Owner)
	switch r.Class {
	case "":
		r.Class = ClassScratch // the contract's default
	case ClassState:
		r.Persistent = true
	case ClassWeights:
		if r.Estimated {
			return
		}
		r.Size = 0
		for _, n := range r.Segments {
			if n < 1 || r.Size > maxBytes {
				r.Size = 0 // refused below
				break
			}
			r.Size += n
		}
	}
}

// maxBytes bounds every size of a request, so that sums do not overflow. No device is
// larger.
const maxBytes = 1 << 56

// inadmissible reports why a request cannot even wait.
func (d *Device) inadmissible(r *Request) *schemas.Error {
	switch {
	case d.draining:
		return draining()
	case d.lost:
		return d.gone()
	case r.Size < 1:
		return noBytes(r)
	case !r.Class.known():
		return schemas.Errorf(schemas.CodeInvalidRequest, "no class %q: scratch, state or reservation", r.Class).With("field", "class")
	case r.Lease < 0:
		return schemas.Errorf(schemas.CodeInvalidRequest, "a lease of %v", r.Lease).With("field", "lease_seconds")
	case r.Owner.Session != "" && d.ended[r.Owner.Session]:
		return schemas.Errorf(schemas.CodeStaleHandle, "the session has ended")
	}
	if err := d.never(r); err != nil {
		return err
	}
	if d.line.Len()+d.heldCount() >= d.cfg.MaxQueue && !d.first(r) && !d.harmless(r) && !d.passes(r) {
		return schemas.Errorf(schemas.CodeBusy, "the queue of %s is full (%d requests)", d.cfg.Device, d.line.Len()+d.heldCount()).With("retry_after_ms", 100)
	}
	return nil
}

func noBytes(r *Request) *schemas.Error {
	return schemas.Errorf(schemas.CodeInvalidRequest, "a request for %d bytes", r.Size).With("field", "size_bytes")
}

// never reports why a request is not to be granted, whatever room is made.
func (d *Device) never(r *Request) *schemas.Error {
	if err := d.owing(r.Owner.Tenant); err != nil {
		return err
	}
	need := r.Size
	if need <= maxBytes && r.Class != ClassReservation {
		need = d.least(r)
	}
	if err := d.overHard(r, need); err != nil {
		return err
	}
	limit, of := d.books.limit-d.otherFloors(r.Owner.Tenant), "limit of "
	if r.Class == ClassWeights && d.limits.models > 0 && d.limits.models < limit {
		limit, of = d.limits.models, "limit for models on "
	}
	if need <= limit || r.Size <= limit && d.harmless(r) {
		return nil
	}
	err := d.outOfMemory(r, need).With("limit_bytes", limit)
	err.Message = fmt.Sprintf("%d bytes can never fit: the %s%s is %d bytes", need, of, d.cfg.Device, limit)
	return err
}

// least is the fewest new bytes that hold a request, rounded to the device's granularity.
func (d *Device) least(r *Request) (need int64) {
	if r.Class != ClassWeights || r.Estimated {
		return roundUp(r.Size, d.granule)
	}
	for _, n := range r.Segments {
		need += roundUp(n, d.granule)
	}
	return need
}

// expel refuses those who wait for what a new limit makes impossible.
func (d *Device) expel() {
	for _, r := range d.waiters() {
		if err := d.never(r); err != nil {
			d.unqueue(r)
			d.refuse(r, err)
		}
	}
}

// first reports whether a request would be the head of the line.
func (d *Device) first(r *Request) bool { return d.line.Len() == 0 || d.where(r) == 0 }

// harmless reports whether a request may pass those that wait: it takes only memory
// that its own trust domain already holds and nobody else could be given.
func (d *Device) harmless(r *Request) bool {
	return r.Class != ClassWeights && r.Class != ClassReservation &&
		d.heap.Place(r.domain, r.Size, r.Align).Kind == heap.InSegment
}

// placement says where a request would lie now, and how many new bytes that takes.
func (d *Device) placement(r *Request) (p heap.Placement, need int64) {
	switch r.Class {
	case ClassReservation:
		return p, r.Size
	case ClassWeights:
		p.Kind, p.Whole = heap.Create, true
		if r.Estimated {
			return p, d.least(r)
		}
		for _, n := range r.Segments {
			p.Create = append(p.Create, roundUp(n, d.granule))
		}
	default:
		p = d.heap.Place(r.domain, r.Size, r.Align)
		// A slab larger than the request is a convenience that nobody makes room for.
		if exact := roundUp(r.Size, d.granule); p.Kind == heap.Create && len(p.Create) == 1 && p.Create[0] > max(exact, min(d.books.free(), d.allowance(r))) {
			p.Create[0] = exact
		} else if p.Kind == heap.Pooled && d.growth(&p, 0) > max(exact, d.allowance(r)) {
			// The pool's segment is more than the quotas leave this tenant, what is needed is not.
			p = heap.Placement{Kind: heap.Create, Create: d.exactly(r), Whole: p.Whole}
		}
	}
	for _, n := range p.Create {
		need += n
	}
	return p, need
}

// admit tries to serve a request now. It returns true when the request is decided
// (granted, refused, or with the workers) and false when it has to wait.
func (d *Device) admit(r *Request, now Now) bool {
	p, need := d.placement(r)
	grow := d.growth(&p, need)
	if d.regroup(r, &p, need, grow, now) {
		return false
	}
	if d.quotas[r.Owner.Tenant] != nil && d.exceeds(r, grow) {
		d.hold(r, grow, now)
		return true
	}
	if (need > 0 || grow > 0 && d.floors(r.Owner.Tenant) > 0) && !d.room(r, need, grow) {
		return r.gone
	}
	if r.waits != 0 {
		r.waited += now.Boot.Sub(r.waits)
		r.waits = 0
	}
	switch {
	case r.Estimated:
		d.reserveEstimate(r)
	case r.Class == ClassReservation:
		d.grant(r, now)
	default:
		d.place(r, p, now)
	}
	return true
}

// place takes what is already there for a request, and has workers make and clear the
// rest. Where nothing is left to do the request is granted at once.
func (d *Device) place(r *Request, p heap.Placement, now Now) {
	r.blocks, r.whole = r.few[:0], p.Whole
	if p.Kind != heap.Create {
		d.occupy(r, p.Segment, p)
		for _, id := range p.More {
			d.occupy(r, id, p)
		}
	}
	if len(p.Create) > 0 {
		d.create(r, p.Create)
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
	d.changed("grant", r)
}

// occupy takes a block of a segment that exists, and notes what must be cleared in it.
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
	case foreign && seg.cleaner != 0:
		// Another request of this owner is having it cleared: clearing it once more could
		// wipe what that one's client has written by then.
		seg.followers = append(seg.followers, r)
		r.jobs++
	case foreign && r.overwrites():
		seg.raw = true
		if rg := r.unwritten(seg, held(r.blocks)-b.Bytes); rg.Length > 0 {
			r.clear = append(r.clear, rg)
		}
	case foreign:
		// Cleared whole: what lies beside the block is the old owner's too.
		seg.cleaner = r.ticket
		r.clear = append(r.clear, Range{Segment: id, Bytes: seg.bytes, Length: seg.bytes})
		r.foreign = append(r.foreign, id)
	case r.Clear:
		r.clear = append(r.clear, Range{Segment: id, Bytes: seg.bytes, Offset: b.Offset, Length: b.Bytes})
	}
}

// carve takes a request's next block out of a segment that it was given.
func (d *Device) carve(r *Request, seg *segment) heap.Block {
	left := r.Size
	if r.Class == ClassWeights {
		left = r.Segments[len(r.blocks)]
	} else {
		for _, b := range r.blocks {
			left -= b.Bytes
		}
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
	seg.promised++
	r.blocks = append(r.blocks, b)
	return b
}

// shortage is what keeps new memory from being granted now.
type shortage struct {
	now    int64 // bytes not free at this moment
	idle   int64 // of these, what has to come out of the pool
	lasts  int64 // bytes that are lacking when the pool is empty
	models int64 // bytes over the limit for models
}

func (d *Device) shortage(r *Request, need, grow int64) (s shortage) {
	s.now = need - d.books.free()
	s.idle = s.now - d.books.doomed - d.books.warming - d.books.aside
	s.lasts = need - d.books.spare()
	if floors := d.floors(r.Owner.Tenant); floors > 0 && grow > 0 {
		s.lasts = grow - d.books.spare() + floors
	}
	if r.Class == ClassWeights && d.limits.models > 0 {
		s.models = d.books.models + d.promisedWeights() + need - d.limits.models
	}
	return s
}

// promisedWeights are the bytes of models that will be granted when they have been made.
func (d *Device) promisedWeights() (n int64) {
	for _, r := range d.pending {
		if r.Class == ClassWeights {
			n += r.promised
		}
	}
	return n
}

// room reports whether need bytes of new memory are free now. If not, it sees to it that
// they become so: idle segments are given up, and what is still lacking is asked of
// the optimizer, the only party that takes memory from anybody.
func (d *Device) room(r *Request, need, grow int64) bool {
	r.need = need
	if d.floors(r.Owner.Tenant) > 0 {
		r.need = grow
	}
	s := d.shortage(r, need, grow)
	if s.now <= 0 && s.lasts <= 0 && s.models <= 0 {
		return true
	}
	if s.lasts <= d.books.revoking+d.reclaimable {
		// With what others may still let go of it will be enough; else the pool would be
		// given up for nothing.
		d.giveBack(s.idle)
	}
	if s.lasts <= 0 && s.models <= 0 {
		r.wanted = 0
		r.reason = "idle segments are being given back"
		return false
	}
	d.ask(r, r.need, max(s.lasts-d.books.revoking, s.models-d.books.leaving))
	return false
}

// ask has the optimizer look for what a request still lacks.
func (d *Device) ask(r *Request, need, short int64) {
	if short <= 0 || r.refused || r.wanted < short {
		r.guard = nil
	}
	switch {
	case r.Modest && (short > 0 || !r.Awaits):
		d.unqueue(r)
		d.refuse(r, d.outOfMemory(r, need))
	case short <= 0:
		// What was asked for is on its way. Should it not suffice, it is asked for again.
		r.wanted = 0
		r.reason = fmt.Sprintf("waits until %d bytes that are being released are free", d.books.revoking)
	case r.refused:
		r.reason = fmt.Sprintf("lacks %d bytes, and nothing can be released now; %s", short, d.topHolders(r.Owner.Tenant))
		if r.Patience == 0 {
			d.unqueue(r)
			d.refuse(r, d.outOfMemory(r, need))
		}
	case r.wanted < short:
		r.wanted = short
		r.reason = fmt.Sprintf("lacks %d bytes: looking for models to release", short)
		d.out.Wants = append(d.out.Wants, Want{Ticket: r.ticket, Bytes: short, Model: r.Model, Tenant: r.Owner.Tenant, Priority: r.Priority,
			Reason: fmt.Sprintf("a request for %d bytes lacks %d", need, short)})
	}
}

func draining() *schemas.Error {
	return schemas.Errorf(schemas.CodeDraining, "the node is stopping")
}
