package ledger

import (
	"github.com/google/uuid"

	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// A transfer makes a grant of another one's bytes, on another device. The new grant is
// Filling from its commit on: it can be neither claimed nor used, and a successor of this
// process undoes it. Filled makes it whole in one transaction, together with the answer. A
// move's grant remembers its Origin until that one's release has begun, so that a successor
// can go on with it: at no moment are there no whole bytes, and at the end only one copy.

// What a transfer overwrites wholly need not be cleared before. Where its grant has segments of
// its own, only what it will not write of them is: the rest may be anybody's until Filled, on
// record too, and whoever gets a segment that was not filled has it cleared.

// anybody is whose bytes are in a segment that a transfer has yet to fill. It is no trust domain.
const anybody = "?"

// overwrites tells whether a request's client sees nothing of its segments but what a transfer
// has written.
func (r *Request) overwrites() bool { return r.Filling && r.whole }

// unwritten is the part of the next segment of such a request that no transfer writes; before it
// are the bytes asked for that lie in others.
func (r *Request) unwritten(s *segment, before int64) Range {
	n := min(max(0, r.Size-before), s.bytes)
	return Range{Segment: s.id, Bytes: s.bytes, Offset: n, Length: s.bytes - n}
}

// Why the grants of a transfer end.
const (
	WhyMoved          = "moved to another device"
	WhyTransferFailed = "its transfer did not finish"
)

// Origin says from which grant of another device one was moved whose release may not have
// begun yet.
type Origin struct {
	Grant, From uuid.UUID
	Tenant      string
}

// Filled makes a filling grant whole. origin is the grant that it was moved from, zero for
// a copy; answer, if not nil, is kept with it. An error changes nothing.
func (d *Device) Filled(id, origin uuid.UUID, answer *AnswerRecord, now Now) *schemas.Error {
	d.begin()
	g := d.filling(id)
	if g.release != nil {
		return schemas.Errorf(schemas.CodeTransferFailed, "the target allocation was released meanwhile")
	}
	if !d.ballast.Hold() {
		return d.ballast.Refusal()
	}
	g.Filling, g.Origin = false, origin
	tx := d.region.Begin()
	tx.Update(g.rec, d.encodeGrant(g))
	d.written(g, domainKey(g.Owner), func(s *segment) { tx.Update(s.rec, d.encodeSegment(s)) })
	var rec store.RecID
	if answer != nil {
		rec = tx.Insert(kindAnswer, EncodeAnswer(*answer, now.Boot))
	}
	if err := tx.Commit(); err != nil {
		g.Filling, g.Origin = true, uuid.UUID{}
		d.written(g, anybody, func(*segment) {})
		return ledgerFull(err)
	}
	d.written(g, domainKey(g.Owner), func(s *segment) {
		s.raw = false
		d.heap.MarkClean(s.id)
	})
	if answer != nil {
		d.answers[answer.Key] = &answerAt{at: now.Boot, rec: rec}
		g.answer = answer.Key
	}
	g.holds.writes--
	g.LastUsed = now.Wall
	if origin == (uuid.UUID{}) {
		g.note("filled", now.Wall, "")
		return nil
	}
	g.note("moved", now.Wall, "from "+origin.String())
	d.event(Event{Kind: EventMoved, Grant: g.ID, Owner: g.Owner, Class: g.Class, Bytes: g.Granted, Reason: "from allocation " + origin.String()})
	return nil
}

// written says whose bytes are in the segments that a transfer was to overwrite.
func (d *Device) written(g *Grant, whose string, then func(*segment)) {
	for _, b := range g.Blocks {
		if s := d.segments[b.Segment]; s.raw {
			s.last = whose
			then(s)
		}
	}
}

// FillFailed undoes a filling grant.
func (d *Device) FillFailed(id uuid.UUID, now Now) {
	d.begin()
	g := d.filling(id)
	g.holds.writes--
	if g.release == nil {
		d.beginRelease(g, WhyTransferFailed, 0, nil, now)
		d.pump(now)
		return
	}
	d.loosened(g, now)
}

func (d *Device) filling(id uuid.UUID) *Grant {
	g, ok := d.grants[id]
	if !ok || !g.Filling || g.holds.writes != 1 {
		panic("ledger: a grant that was being filled is not any more")
	}
	return g
}

// Settled says that the release of a moved grant's origin has begun, on its device's record.
func (d *Device) Settled(id uuid.UUID) {
	d.begin()
	if g, ok := d.grants[id]; ok && g.rec != 0 {
		g.Origin = uuid.UUID{}
		d.rewrite(g)
	}
}
