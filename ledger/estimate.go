package ledger

import (
	"github.com/isobar-project/isobar/schemas"
)

// What a load takes is known when the headers of its files have been read. Before that its
// client may have declared it, or it is remembered from the last time: then the load stands
// in line with an estimate, and is served with a reservation of so many bytes. Measure
// corrects it. What was reserved too much others can have at once; an overrun is owed to it,
// and paid before anything else is granted.

// reserveEstimate serves a request of which only an estimate is known: the bytes are its, and
// nothing is made of them yet.
func (d *Device) reserveEstimate(r *Request) {
	r.promised = d.least(r)
	d.books.promised += r.promised
	d.pending[r.ticket] = r
	d.changed("reservation", r)
}

// unreserve takes a reservation back.
func (d *Device) unreserve(r *Request) {
	delete(d.pending, r.ticket)
	d.books.promised -= r.promised
	r.promised = 0
	d.changed("release", r)
}

// giveUp refuses a request that was served and is not granted yet: what workers bring for it is
// given back, and so is at once what was merely reserved.
func (d *Device) giveUp(r *Request, err *schemas.Error) {
	if r.Estimated {
		d.unreserve(r)
	}
	d.refuse(r, err)
}

// Measure tells the true size of an estimated weights request, by its segments. One that waits
// keeps its place. The answer comes as for any other request; one that is decided already is
// left alone.
func (d *Device) Measure(t Ticket, segments []int64, now Now) {
	d.begin()
	r := d.waits(t)
	if r == nil {
		r = d.pending[t]
	}
	if r == nil || !r.Estimated || r.gone {
		return
	}
	estimate := d.least(r)
	reserved := r.promised > 0
	if reserved {
		d.unreserve(r)
	}
	r.Estimated, r.Segments = false, segments
	d.prepare(r, t)
	err := d.never(r)
	if r.Size < 1 {
		err = noBytes(r)
	}
	switch {
	case err != nil:
		d.unqueue(r)
		d.refuse(r, err)
	case reserved:
		d.correct(r, d.least(r)-estimate, now)
	default:
		d.line.Resize(r.spot, d.least(r))
	}
	d.pump(now)
}

// correct serves a request whose reservation has just been taken back with what it really
// takes.
func (d *Device) correct(r *Request, overrun int64, now Now) {
	if r.spot != nil {
		r.spot.Bytes = d.least(r)
	}
	if overrun > 0 || r.charged {
		d.line.Charge(r.Owner.Tenant, overrun)
	}
	r.again = true
	head := d.line.Head()
	if head != nil && head.Of.again && head.Of.ticket < r.ticket || !d.admit(r, now) {
		d.enqueue(r, now)
	}
}
