package actors

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// weightsCall asks a device for a model's memory on behalf of the pool.
type weightsCall struct {
	pool *poolActor
	copy *catalog.Copy
	// The load's request and operation.
	id, operation string
}

func (w *weightsCall) requestID() string { return w.id }

// weights is the request for a copy's memory.
func (p *poolActor) weights(s catalog.Step, patience time.Duration) *ledger.Request {
	m := s.Copy.Model
	ask := &weightsCall{pool: p, copy: s.Copy, id: s.Request.RequestID}
	if a, ok := s.Request.Ref.(*modelCall); ok {
		ask.operation = a.c.operation
	}
	return &ledger.Request{
		Ref: ask, Owner: ledger.Owner{Tenant: m.Tenant, UID: p.house.cfg.UID}, Class: ledger.ClassWeights,
		Purpose: "model", Persistent: true, Priority: m.Priority, Patience: patience, Modest: s.Modest, Awaits: s.Awaits, Model: m.Name,
		RequestID: s.Request.RequestID, Unclaimed: true,
	}
}

// reserve asks for what a load is expected to take, before its files are read.
func (p *poolActor) reserve(s catalog.Step) {
	r := p.weights(s, s.Request.Patience)
	r.Size, r.Estimated = s.Estimate, true
	p.reserved[s.Copy] = r
	p.ask(s, r)
}

// unreserve gives a reservation up that no allocation has followed: there is nothing to load.
func (p *poolActor) unreserve(cp *catalog.Copy) {
	r := p.reserved[cp]
	if r == nil {
		return
	}
	delete(p.reserved, cp)
	d := p.house.byID[cp.Device]
	d.tell(seam.SystemLane, func() {
		d.core.Cancel(r.Ticket(), schemas.Errorf(schemas.CodeCancelled, "nothing is loaded"), d.house.now())
		d.flush()
	})
}

// allocate asks for what a load takes, or corrects what was reserved for it.
func (p *poolActor) allocate(s catalog.Step) {
	m, d := s.Copy.Model, p.house.byID[s.Copy.Device]
	round := d.info.GranularityBytes
	segments := make([]int64, len(m.Segments))
	for i, n := range m.Segments {
		segments[i] = (n + round - 1) / round * round
	}
	if r := p.reserved[s.Copy]; r != nil {
		delete(p.reserved, s.Copy)
		d.tell(seam.SystemLane, func() {
			d.core.Measure(r.Ticket(), segments, d.house.now())
			d.flush()
		})
		return
	}
	r := p.weights(s, s.Patience)
	r.Size, r.Segments = max(1, m.Bytes), segments
	p.ask(s, r)
}

// ask gives a request for weights to its device.
func (p *poolActor) ask(s catalog.Step, r *ledger.Request) {
	d := p.house.byID[s.Copy.Device]
	d.tell(seam.SystemLane, func() {
		t := d.core.Allocate(r, d.house.now())
		p.tell(seam.SystemLane, func() {
			if s.Copy.State == catalog.Loading && s.Copy.Grant == uuid.Nil {
				p.tickets[s.Copy] = t
			}
		})
		d.flush()
	})
}

// outcome implements asker, on the device's goroutine.
func (w *weightsCall) outcome(d *deviceActor, o *ledger.Outcome) {
	p, cp := w.pool, w.copy
	switch o.Kind {
	case ledger.OutcomeGranted:
		id, granted, evicted, queued := o.Grant.ID, o.Grant.Granted, o.Evicted, time.Duration(o.Queued)
		p.tell(seam.SystemLane, func() {
			delete(p.tickets, cp)
			p.core.Granted(cp, id, granted, evicted, queued, p.house.now())
			p.flush()
		})
	case ledger.OutcomeQueued:
		position, reason := o.Position, o.Reason
		p.tell(seam.SystemLane, func() { p.core.Waiting(cp, position, reason); p.flush() })
	case ledger.OutcomeRefused:
		err := o.Err
		p.tell(seam.SystemLane, func() {
			delete(p.tickets, cp)
			p.core.Refused(cp, err, p.house.now())
			p.flush()
		})
	}
}
