package ledger

import (
	"github.com/google/uuid"

	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// grant commits and answers: segments, grant, claim digest and answer in one transaction.
func (d *Device) grant(r *Request, now Now) {
	g := &Grant{
		ID: r.id, Owner: r.Owner, Class: r.Class, Status: StatusActive,
		Size: r.Size, Granted: r.Size, Align: r.Align, Purpose: r.Purpose, Persistent: r.Persistent,
		Priority: r.Priority, Type: d.cfg.Type, Model: r.Model, Created: now.Wall, LastUsed: now.Wall,
		Lease: r.Lease, Follows: r.Follows, Filling: r.Filling, Bound: r.Owner.Session != "" && !r.Persistent,
	}
	if r.Class != ClassReservation {
		g.Blocks, g.Granted = append(g.few.blocks[:0], r.blocks...), 0
		for _, b := range r.blocks {
			g.Granted += b.Bytes
		}
	}
	if r.Lease > 0 {
		g.LeaseEnds = now.Boot.Add(r.Lease)
	}
	claim := ""
	if !r.Unclaimed && !r.Filling && r.Class != ClassReservation {
		claim = d.newClaim(g, g.Owner.Tenant, now)
	}
	if g.Filling {
		g.holds.writes = 1
	}
	if err := d.record(g, r, now); err != nil {
		d.backOut(r)
		d.refuse(r, err)
		return
	}
	for _, b := range g.Blocks {
		d.segments[b.Segment].promised--
	}
	d.seq++
	g.seq = d.seq
	d.grants[g.ID] = g
	d.granted = now.Boot
	d.index(g)
	if r.Class == ClassReservation {
		d.reserve(g, g.Granted)
	} else {
		d.count(g, g.Granted)
	}
	if r.Class == ClassWeights {
		d.books.models += g.Granted
	}
	if g.Bound {
		d.tie(g.Owner.Session, g)
	}
	if g.leased() {
		d.at(timer{at: g.LeaseEnds, kind: timerLease, grant: g.ID})
	}
	g.history = g.few.history[:0]
	g.note("allocated", now.Wall, "")
	d.stats.Grants++
	d.stats.GrantNanos += int64(now.Boot.Sub(r.arrived))
	waited := int64(r.waited)
	cause := "grant"
	if r.Class == ClassReservation {
		cause = "reservation"
	}
	d.changed(cause, r)
	d.event(Event{Kind: EventAllocated, Grant: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Purpose: g.Purpose, Size: g.Size, Bytes: g.Granted, RequestID: r.RequestID, Queued: waited})
	d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeGranted, Ref: r.Ref, Ticket: r.ticket, Grant: g, Claim: claim, Queued: waited, Evicted: r.evicted})
}

// record commits a grant with its segments and the answer; with an error nothing has
// changed.
func (d *Device) record(g *Grant, r *Request, now Now) *schemas.Error {
	if !d.ballast.Hold() {
		return d.ballast.Refusal()
	}
	tx := d.region.Begin()
	type change struct {
		s    *segment
		rec  store.RecID
		last string
	}
	var few [4]change
	changes := few[:0]
	for _, b := range g.Blocks {
		s := d.segments[b.Segment]
		whose := r.domain
		if s.raw {
			whose = anybody
		}
		if s.rec != 0 && s.last == whose {
			continue
		}
		// The new owner is on record before it can write a byte.
		changes = append(changes, change{s, s.rec, s.last})
		s.last = whose
		if s.rec == 0 {
			s.rec = tx.Insert(kindSegment, d.encodeSegment(s))
		} else {
			tx.Update(s.rec, d.encodeSegment(s))
		}
	}
	g.rec = tx.Insert(kindGrant, d.encodeGrant(g))
	var kept *answerAt
	if r.Key != "" && r.Answer != nil {
		kept = &answerAt{at: now.Boot}
		kept.rec = tx.Insert(kindAnswer, EncodeAnswer(r.Answer(g), now.Boot))
	}
	if err := tx.Commit(); err != nil {
		for _, c := range changes {
			c.s.rec, c.s.last = c.rec, c.last
		}
		return ledgerFull(err)
	}
	if kept != nil {
		d.answers[r.Key] = kept
		g.answer = r.Key
	}
	return nil
}

// backOut returns the blocks of a request that is not granted after all.
func (d *Device) backOut(r *Request) {
	for _, b := range r.blocks {
		d.books.slack += b.Bytes
		d.segments[b.Segment].promised--
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
	d.changed("", nil)
	d.event(Event{Kind: EventRefused, Owner: r.Owner, Class: r.Class, Model: r.Model, Purpose: r.Purpose, Size: r.Size, Reason: err.Message, RequestID: r.RequestID})
	d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeRefused, Ref: r.Ref, Ticket: r.ticket, Err: err})
}

func (d *Device) event(e Event) { d.out.Events = append(d.out.Events, e) }

// newClaim makes a tenant's claim on a grant; the digest must be committed before it leaves.
func (d *Device) newClaim(g *Grant, tenant string, now Now) string {
	d.cfg.Rand(d.secret[:])
	secret := encodeSecret(&d.secret)
	digest := DigestOf(secret)
	if g.Claims == nil {
		g.Claims = g.few.claims[:0]
	}
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
	g.Claims = append(live, Claim{Digest: digest, Expires: now.Boot.Add(d.cfg.ClaimLife), Tenant: tenant})
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
