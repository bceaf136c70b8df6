package ledger

import (
	"fmt"
	"iter"
	"slices"

	"github.com/isobar-project/isobar/admission"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// Package admission says who is served next; here is what there is room for.
type (
	line = admission.Line[*Request]
	lane = admission.Lane[*Request]
)

// weight is what a tenant counts against others in line.
func (d *Device) weight(tenant string) float64 { return d.Quota(tenant).Weight }

// spotOf is a request's place: in line, or beside it.
func (d *Device) spotOf(r *Request) *admission.Spot[*Request] {
	if r.spot == nil {
		r.spot = &admission.Spot[*Request]{Of: r, Tenant: r.Owner.Tenant, Priority: r.Priority, Age: uint64(r.ticket), Bytes: d.least(r)}
	}
	return r.spot
}

// where is how many would be before a request that came now.
func (d *Device) where(r *Request) int {
	return d.line.Where(r.Owner.Tenant, r.Priority, uint64(r.ticket))
}

// waiters is everybody who waits, in line and beside it.
func (d *Device) waiters() (all []*Request) {
	for _, s := range d.line.All() {
		all = append(all, s.Of)
	}
	return append(all, d.heldBack()...)
}

// stand gives a request its place in line, and returns how many are before it.
func (d *Device) stand(r *Request) int {
	if r.again {
		return d.line.Return(d.spotOf(r))
	}
	return d.line.Add(d.spotOf(r))
}

// served takes a request that has been decided off the line. If it was given something while
// others wait, that is at its tenant's cost, unless it is free for all: nobody else could be
// given it.
func (d *Device) served(r *Request, free bool) {
	stands := r.spot != nil && r.spot.Waiting()
	switch {
	case r.held: // beside the line it stays
	case r.gone:
		d.unqueue(r)
	case stands:
		r.charged = r.charged || !r.again
		d.line.Serve(r.spot)
		d.overtake(r)
	case !free:
		switch {
		case r.passed:
			d.line.Add(d.spotOf(r))
			d.line.Pass(r.spot)
			return
		case d.line.Len() > 0:
			r.charged = true
			d.line.Add(d.spotOf(r))
			d.line.Serve(r.spot)
		}
		d.overtake(r)
	}
}

// overtake tells those who wait for the quota of a request's tenant that it was served.
func (d *Device) overtake(r *Request) {
	if len(d.held) > 0 {
		if l := d.held[r.Owner.Tenant]; l != nil {
			l.Overtake(uint64(r.ticket))
		}
	}
}

// enqueue puts a request in line.
func (d *Device) enqueue(r *Request, now Now) {
	i := d.stand(r)
	r.waitsSince(now.Boot)
	d.at(timer{at: r.deadline, kind: timerQueue, ticket: r.ticket})
	if i > 0 {
		r.reason = waitsBehind(i)
		if r.Patience == 0 && !d.prompt(slices.Values(d.line.List()[:i])) {
			d.unqueue(r)
			d.refuse(r, d.outOfMemory(r, d.least(r)))
			return
		}
	}
	if r.Patience > 0 && !r.queued {
		r.queued = true
		d.event(Event{Kind: EventQueued, Owner: r.Owner, Class: r.Class, Model: r.Model, Purpose: r.Purpose, Size: r.Size, Reason: r.reason, RequestID: r.RequestID, Position: i + 1})
	}
	d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeQueued, Ref: r.Ref, Ticket: r.ticket, Position: i + 1, Reason: r.reason})
	d.changed("grant", r)
}

// waitsSince notes when a request began to wait for room.
func (r *Request) waitsSince(now clock.Instant) {
	if r.waits == 0 {
		r.waits = now
	}
}

// unqueue takes a request out of the line, or from beside it, as if it had never come.
func (d *Device) unqueue(r *Request) {
	switch {
	case r.held:
		d.unhold(r)
	case r.spot != nil && r.spot.Waiting():
		d.line.Remove(r.spot)
	}
}

// waits finds a waiting request.
func (d *Device) waits(t Ticket) *Request {
	for _, s := range d.line.All() {
		if s.Of.ticket == t {
			return s.Of
		}
	}
	for _, r := range d.heldBack() {
		if r.ticket == t {
			return r
		}
	}
	return nil
}

// pump serves those who wait, strictly in order, as far as there is room.
func (d *Device) pump(now Now) {
	d.letBack()
	for d.line.Len() > 0 {
		head := d.line.Head().Of
		if !d.admit(head, now) {
			break
		}
		d.served(head, false)
		d.changed("", nil)
	}
	d.passBy(now)
	d.dismiss()
	d.tend(now)
}

// prompt reports whether those before a request will all be decided without a stay in the
// queue: what they need is idle memory that is on its way, or they would not
// queue either. Behind them even a request waits that does not queue, for else it would
// be refused while there is room for it.
func (d *Device) prompt(before iter.Seq[*admission.Spot[*Request]]) bool {
	left := d.books.spare()
	for s := range before {
		q := s.Of
		if left -= d.least(q); left < d.floors(q.Owner.Tenant) && q.Patience > 0 {
			return false
		}
	}
	return true
}

// dismiss refuses those who do not queue and have come to stand behind one who does.
func (d *Device) dismiss() {
	if d.line.Len() < 2 {
		return
	}
	left, stays := d.books.spare(), false
	for _, s := range d.line.List() {
		r := s.Of
		switch {
		case !stays:
			left -= d.least(r)
			stays = left < d.floors(r.Owner.Tenant) && r.Patience > 0
		case r.Patience == 0:
			d.unqueue(r)
			d.refuse(r, d.outOfMemory(r, d.least(r)))
		}
	}
}

// Cancel takes a request out of the line, or marks it so that what the workers bring
// is given back. It reports whether the request was still undecided.
func (d *Device) Cancel(t Ticket, err *schemas.Error, now Now) bool {
	d.begin()
	if r := d.waits(t); r != nil {
		d.unqueue(r)
		d.refuse(r, err)
		d.pump(now)
		return true
	}
	if r, ok := d.pending[t]; ok && !r.gone {
		if d.giveUp(r, err); r.Estimated {
			d.pump(now) // others can have what it had reserved
		}
		return true
	}
	return false
}

// NoRoom is the optimizer's word that it can release no more for a request. One that
// would not queue is refused; any other waits for its deadline, and is asked for again
// when more becomes reclaimable.
func (d *Device) NoRoom(t Ticket, now Now) {
	d.begin()
	if d.noneOfItsOwn(t) {
		d.pump(now)
		return
	}
	for i, s := range d.line.All() {
		r := s.Of
		if r.ticket != t {
			continue
		}
		switch {
		case i == 0:
			r.refused = true
			d.pump(now)
			r.refused = false
		case r.Patience == 0:
			d.unqueue(r)
			d.refuse(r, d.outOfMemory(r, max(r.need, r.Size)))
		default:
			r.wanted = 0 // it has fallen behind: it asks again at the head
		}
		return
	}
}

// RoomMade tells which model goes for a request; 0 is no request in particular: then it
// counts for the one that lacks room and is the next to get it.
func (d *Device) RoomMade(t Ticket, e Evicted) {
	d.begin()
	d.stats.Evictions++
	r := d.waits(t)
	if head := d.line.Head(); t == 0 && head != nil && head.Of.wanted > 0 {
		r = head.Of
	}
	if r != nil {
		r.evicted = append(r.evicted, e)
	}
}

// Plan says what Allocate would do with a request now, and changes nothing.
type Plan struct {
	Outcome  string // granted, queued, refused
	Position int
	Reason   string
	Lacks    int64  // bytes that would have to be released
	Tenant   string // whose need it is
	Own      bool   // only models of that tenant may go
	Model    string // whose load it is
	Priority int
	Err      *schemas.Error
}

// Plan is the dry run of Allocate, decided by the same figures. Lacks > 0 asks the
// optimizer's dry run which models would go.
func (d *Device) Plan(r *Request, now Now) Plan {
	d.prepare(r, d.ticket+1)
	if err := d.inadmissible(r); err != nil {
		return Plan{Outcome: "refused", Reason: err.Message, Err: err}
	}
	place, need := d.placement(r)
	grow := d.growth(&place, need)
	if d.vacant == nil && d.first(r) && d.crowded(r, &place, need, grow) {
		if _, room, ok := d.planRegroup(r); ok {
			return Plan{Outcome: "granted", Reason: fmt.Sprintf("there is room once %d bytes of its owner's blocks are moved", room.Moved)}
		}
	}
	if p, ok := d.planQuota(r, grow); ok {
		return p
	}
	if !d.first(r) && !d.harmless(r) && !d.passes(r) {
		i := d.where(r)
		p := Plan{Outcome: "queued", Position: i + 1, Reason: waitsBehind(i)}
		if r.Patience == 0 && !d.prompt(d.line.Ahead(r.Owner.Tenant, r.Priority, uint64(r.ticket))) {
			p.Outcome, p.Err = "refused", d.outOfMemory(r, need)
		}
		return p
	}
	s := d.shortage(r, need, grow)
	if grow == 0 || need == 0 && d.floors(r.Owner.Tenant) == 0 || s.lasts <= 0 && s.models <= 0 {
		return Plan{Outcome: "granted", Reason: "there is room"}
	}
	lacks := max(s.lasts-d.books.revoking, s.models-d.books.leaving)
	if lacks <= 0 {
		return Plan{Outcome: "queued", Position: 1, Reason: "bytes that are being released will be enough"}
	}
	return Plan{Outcome: "queued", Position: 1, Lacks: lacks, Tenant: r.Owner.Tenant, Model: r.Model, Priority: r.Priority, Err: d.outOfMemory(r, need),
		Reason: fmt.Sprintf("lacks %d bytes; %s", lacks, d.topHolders(r.Owner.Tenant))}
}

func waitsBehind(n int) string {
	if n == 1 {
		return "1 request is before it"
	}
	return fmt.Sprintf("%d requests are before it", n)
}
