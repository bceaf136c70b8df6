package ledger

import (
	"fmt"
	"slices"
	"sort"

	"github.com/isobar-project/isobar/schemas"
)

func before(a, b *Request) bool {
	return a.Priority > b.Priority || a.Priority == b.Priority && a.ticket < b.ticket
}

// enqueue puts a request in line: by priority, then age.
func (d *Device) enqueue(r *Request, now Now) {
	i := d.insert(r)
	d.at(timer{at: r.deadline, kind: timerQueue, ticket: r.ticket})
	if i > 0 {
		r.reason = waitsBehind(i)
		if r.Patience == 0 && !d.prompt(i) {
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

// insert gives a request its place in line, and returns how many are before it.
func (d *Device) insert(r *Request) int {
	i := sort.Search(len(d.queue), func(i int) bool { return before(r, d.queue[i]) })
	d.queue = slices.Insert(d.queue, i, r)
	return i
}

func (d *Device) unqueue(r *Request) {
	if r.held {
		d.unhold(r)
		return
	}
	for i, q := range d.queue {
		if q == r {
			d.queue = append(d.queue[:i], d.queue[i+1:]...)
			return
		}
	}
}

// waits finds a waiting request.
func (d *Device) waits(t Ticket) *Request {
	for _, r := range d.queue {
		if r.ticket == t {
			return r
		}
	}
	for _, r := range d.held {
		if r.ticket == t {
			return r
		}
	}
	return nil
}

// pump serves those who wait, strictly in order, as far as there is room.
func (d *Device) pump(now Now) {
	d.letBack()
	for len(d.queue) > 0 {
		head := d.queue[0]
		if !d.admit(head, now) {
			break
		}
		if !head.held { // beside the line it stays
			d.unqueue(head) // a refused head has left already; this is then a no-op
		}
		d.changed("", nil)
	}
	d.dismiss()
	d.tend(now)
}

// prompt reports whether those at the first n places will all be decided without a stay
// in the queue: what they need is idle memory that is on its way, or they would not
// queue either. Behind them even a request waits that does not queue, for else it would
// be refused while there is room for it.
func (d *Device) prompt(n int) bool {
	left := d.books.spare()
	for _, q := range d.queue[:n] {
		if left -= d.least(q); left < d.floors(q.Owner.Tenant) && q.Patience > 0 {
			return false
		}
	}
	return true
}

// dismiss refuses those who do not queue and have come to stand behind one who does.
func (d *Device) dismiss() {
	left := d.books.spare()
	for i := 0; i < len(d.queue); i++ {
		q := d.queue[i]
		if left -= d.least(q); left >= d.floors(q.Owner.Tenant) || q.Patience == 0 {
			continue
		}
		for i++; i < len(d.queue); {
			r := d.queue[i]
			if r.Patience > 0 {
				i++
				continue
			}
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
		d.refuse(r, err)
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
	for i, r := range d.queue {
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
	if t == 0 && len(d.queue) > 0 && d.queue[0].wanted > 0 {
		r = d.queue[0]
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
	if p, ok := d.planQuota(r, grow); ok {
		return p
	}
	if !d.first(r) && !d.harmless(r) {
		i := sort.Search(len(d.queue), func(i int) bool { return before(r, d.queue[i]) })
		p := Plan{Outcome: "queued", Position: i + 1, Reason: waitsBehind(i)}
		if r.Patience == 0 && !d.prompt(i) {
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
	return Plan{Outcome: "queued", Position: 1, Lacks: lacks, Tenant: r.Owner.Tenant, Err: d.outOfMemory(r, need),
		Reason: fmt.Sprintf("lacks %d bytes; %s", lacks, d.topHolders(r.Owner.Tenant))}
}

func waitsBehind(n int) string {
	if n == 1 {
		return "1 request is before it"
	}
	return fmt.Sprintf("%d requests are before it", n)
}
