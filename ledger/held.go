package ledger

import (
	"fmt"
	"maps"
	"slices"

	"github.com/isobar-project/isobar/heap"
)

// Requests that fit their device but would take their tenant past its hard quota wait
// beside the line: nobody else waits for them. They are let back as the tenant's bytes
// fall, each tenant's in their order.

// Held reports whether the request waits for its tenant's quota, beside the line.
func (r *Request) Held() bool { return r.held }

// growth is by how much a placement adds to what its tenant has.
func (d *Device) growth(p *heap.Placement, need int64) int64 {
	if p.Kind == heap.Pooled {
		need += d.segments[p.Segment].bytes
		for _, id := range p.More {
			need += d.segments[id].bytes
		}
	}
	return need
}

// exactly are the segments that hold a request with no more than the granularity to spare.
func (d *Device) exactly(r *Request) (sizes []int64) {
	most := d.heap.Config().MaxSegmentBytes
	for left := r.Size; left > 0; left -= most {
		sizes = append(sizes, roundUp(min(left, most), d.granule))
	}
	return sizes
}

// exceeds reports whether a request must wait for its tenant's quota: it does not fit, or
// another of the tenant waits before it.
func (d *Device) exceeds(r *Request, grow int64) bool {
	q := d.quotas[r.Owner.Tenant]
	if grow == 0 || q.Hard == 0 {
		return false
	}
	return d.bound(q.Tenant)+grow > q.Hard || d.behind(r)
}

// behind reports whether another request of the tenant waits for the quota before this one.
func (d *Device) behind(r *Request) bool {
	return d.turn(r) > 1
}

// turn is the place that a request has, or would have, among those of its tenant that are held.
func (d *Device) turn(r *Request) int {
	l := d.held[r.Owner.Tenant]
	switch {
	case l == nil:
		return 1
	case r.held:
		return l.Index(r.spot) + 1
	}
	return l.Where(r.Priority, uint64(r.ticket)) + 1
}

// heldBack is everybody who waits for a quota, by tenant.
func (d *Device) heldBack() (all []*Request) {
	if len(d.held) == 0 {
		return nil
	}
	for _, t := range slices.Sorted(maps.Keys(d.held)) {
		for i := range d.held[t].Len() {
			all = append(all, d.held[t].At(i).Of)
		}
	}
	return all
}

func (d *Device) heldCount() (n int) {
	for _, l := range d.held {
		n += l.Len()
	}
	return n
}

// hold puts a request beside the line, and asks for models of its tenant to go.
func (d *Device) hold(r *Request, grow int64, now Now) {
	d.unqueue(r)
	r.need, r.wanted = grow, 0
	short := d.short(r)
	if r.Modest || r.Patience == 0 && (short == 0 || d.behind(r)) {
		// Nothing that could go now would help it: what is leaving already may come too late.
		d.refuse(r, d.quotaExceeded(r, grow))
		return
	}
	l := d.held[r.Owner.Tenant]
	if l == nil {
		l = &lane{}
		d.held[r.Owner.Tenant] = l
	}
	l.Add(d.spotOf(r))
	r.held = true
	r.waitsSince(now.Boot)
	d.at(timer{at: r.deadline, kind: timerQueue, ticket: r.ticket})
	r.reason = fmt.Sprintf("tenant %s has %d of its %d bytes: waits until it has %d less", r.Owner.Tenant, d.bound(r.Owner.Tenant), d.quotas[r.Owner.Tenant].Hard, d.excess(r))
	n := d.turn(r)
	if n > 1 {
		r.reason = "waits for its tenant's quota, where " + waitsBehind(n-1)
	}
	if r.Patience > 0 && !r.queued {
		r.queued = true
		d.event(Event{Kind: EventQueued, Owner: r.Owner, Class: r.Class, Model: r.Model, Purpose: r.Purpose, Size: r.Size, Reason: r.reason, RequestID: r.RequestID, Position: n})
	}
	d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeQueued, Ref: r.Ref, Ticket: r.ticket, Position: n, Reason: r.reason})
	d.changed("grant", r)
	d.askOwn(r)
}

// excess is by how much a request would exceed its tenant's hard quota.
func (d *Device) excess(r *Request) int64 {
	q := d.quotas[r.Owner.Tenant]
	if q == nil || q.Hard == 0 {
		return 0
	}
	return max(0, d.bound(q.Tenant)+r.need-q.Hard)
}

// short is what of that is not on its way back.
func (d *Device) short(r *Request) int64 { return max(0, d.excess(r)-d.leaving(r.Owner.Tenant)) }

// askOwn has the optimizer look for models of the tenant itself.
func (d *Device) askOwn(r *Request) {
	short := d.short(r)
	if short <= r.wanted || d.behind(r) {
		return
	}
	r.wanted, r.guard = short, nil
	d.out.Wants = append(d.out.Wants, Want{Ticket: r.ticket, Bytes: short, Model: r.Model, Tenant: r.Owner.Tenant, Own: true, Priority: r.Priority,
		Reason: fmt.Sprintf("tenant %s would exceed its quota by %d bytes", r.Owner.Tenant, short)})
}

// askAnew has everybody who waits ask again for what he lacks: those in line when they are
// its head.
func (d *Device) askAnew() {
	for _, s := range d.line.All() {
		s.Of.wanted = 0
	}
	for _, r := range d.heldBack() {
		r.wanted = 0
		d.askOwn(r)
	}
}

// noneOfItsOwn is NoRoom for a held request; it reports whether t is one.
func (d *Device) noneOfItsOwn(t Ticket) bool {
	r := d.waits(t)
	if r == nil || !r.held {
		return false
	}
	if r.Patience == 0 {
		d.unqueue(r)
		d.refuse(r, d.quotaExceeded(r, r.need))
	}
	return true
}

// unhold takes a request off those beside the line.
func (d *Device) unhold(r *Request) {
	l := d.held[r.Owner.Tenant]
	if l.Remove(r.spot); l.Len() == 0 {
		delete(d.held, r.Owner.Tenant)
	}
	r.held = false
}

// letBack gives those back their place in line whom their tenant's quota would now take:
// of each tenant as many as fit together.
func (d *Device) letBack() {
	if len(d.held) == 0 {
		return
	}
	back, full := map[string]int64{}, map[string]bool{}
	for _, r := range d.heldBack() {
		t := r.Owner.Tenant
		if q := d.quotas[t]; q != nil && q.Hard > 0 {
			p, need := d.placement(r)
			grow := d.growth(&p, need)
			if full[t] = full[t] || d.bound(t)+back[t]+grow > q.Hard; full[t] {
				continue
			}
			back[t] += grow
		}
		d.unhold(r)
		r.wanted = 0
		r.reason = "its tenant's quota has room again"
		d.stand(r)
	}
}

// planQuota is the dry run of a request that its tenant's quota holds back.
func (d *Device) planQuota(r *Request, grow int64) (Plan, bool) {
	if d.quotas[r.Owner.Tenant] == nil || !d.first(r) && !d.harmless(r) || !d.exceeds(r, grow) {
		return Plan{}, false
	}
	probe := *r
	probe.need = grow
	err := d.quotaExceeded(r, grow)
	short := d.short(&probe)
	switch {
	case r.Patience == 0 && (short == 0 || d.behind(r)):
		return Plan{Outcome: "refused", Reason: err.Message, Err: err}, true
	case d.behind(r):
		short = 0
	}
	return Plan{Outcome: "queued", Position: d.turn(r), Reason: err.Message, Lacks: short, Tenant: r.Owner.Tenant, Own: true, Model: r.Model, Priority: r.Priority, Err: err}, true
}
