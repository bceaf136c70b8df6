package ledger

import (
	"slices"

	"github.com/isobar-project/isobar/admission"
	"github.com/isobar-project/isobar/heap"
)

// A request passes others where none of them is served later for it, by what is free and
// what is on its way back: because more comes back, at the moment at which one of them has
// all it needs, than it needs; because it waits for something else than bytes; or because
// what the request takes is kept for its own tenant. Of those whom nothing on its way will
// serve only the head of the line keeps others back.

// Passed reports whether the request was served before its turn.
func (r *Request) Passed() bool { return r.passed }

// gap is what those who wait leave to others that come after them.
type gap struct {
	d               *Device
	coming, perhaps []int64  // portions of bytes on their way, and those that may never come
	idle            int64    // that have to go through the pool, or are in it
	kept            []string // tenants whose floors keep some of it
	needs, models   int64    // of those before, in all and for weights
	left            []leave
	beyond          bool // nothing on its way will serve those who follow
}

// leave is what one who waits leaves to others.
type leave struct {
	tenant string
	bytes  int64 // beside what is kept for others' floors
	free   int64 // with that, of what is free
}

// gapBehind begins with nobody before.
func (d *Device) gapBehind() gap {
	g := gap{d: d, idle: d.books.spare() - d.books.free()}
	g.returning()
	return g
}

// add counts one more who is before.
func (g *gap) add(r *Request) {
	d, need := g.d, g.d.least(r)
	g.needs += need
	if r.Class == ClassWeights {
		g.models += need
	}
	if g.beyond {
		return
	}
	floors := d.floors(r.Owner.Tenant)
	left := admission.Slack(g.needs-d.books.spare()+floors, g.coming, g.perhaps)
	switch {
	case r.again, slices.ContainsFunc(g.kept, func(t string) bool { return t != r.Owner.Tenant }):
		// It had its turn, and what it still lacks is owed to it; or what comes back will be
		// kept for somebody's floor, nobody knows how much of it.
		left = 0
	case left < 0 && len(g.left) > 0:
		g.beyond = true
		return
	}
	// Idle memory has to be given back before it is free. Were more taken of what is free,
	// more of it would have to go.
	left = max(0, left)
	g.left = append(g.left, leave{r.Owner.Tenant, left, left + floors - g.idle})
}

// some reports whether those before leave anything that is not kept for somebody.
func (g *gap) some() bool {
	for _, l := range g.left {
		if min(l.bytes, l.free) <= 0 {
			return false
		}
	}
	return true
}

// takes reports whether a request can be served now, and those before not be later for it.
func (g *gap) takes(r *Request) bool {
	d := g.d
	if r.Estimated {
		return false // it may take more than it says
	}
	p, need := d.placement(r)
	grow := d.growth(&p, need)
	q := d.quotas[r.Owner.Tenant]
	if q != nil && d.exceeds(r, grow) {
		return false
	}
	if s := d.shortage(r, need, grow); s.now > 0 || s.lasts > 0 || s.models > 0 {
		return false
	}
	if r.Class == ClassWeights && d.limits.models > 0 && g.models > 0 && d.books.models+d.promisedWeights()+g.models+grow > d.limits.models {
		return false
	}
	var own int64 // of it is kept for its tenant, and nobody else's in any case
	if q != nil && q.Floor > 0 {
		own = min(grow, max(0, q.Floor-d.bound(q.Tenant)))
	}
	for _, l := range g.left {
		take := grow
		if l.tenant != r.Owner.Tenant {
			take -= own
		}
		if take > l.bytes || grow > max(0, l.free) {
			return false
		}
	}
	return true
}

// passable reports whether there is anything to judge: most often what those in line lack
// is in other hands, and nobody passes.
func (d *Device) passable() bool {
	return d.books.revoking > 0 || d.limits.models > 0 || len(d.quotas) > 0
}

// passes reports whether a request that came now may be served before those who wait.
func (d *Device) passes(r *Request) bool {
	if !d.passable() {
		return false
	}
	g := d.gapBehind()
	for s := range d.line.Ahead(r.Owner.Tenant, r.Priority, uint64(r.ticket)) {
		g.add(s.Of)
	}
	return g.takes(r)
}

// passers bounds how many are looked at for one that may pass.
const passers = 64

// passBy serves those who wait and may pass.
func (d *Device) passBy(now Now) {
	for d.line.Len() > 1 && d.passable() {
		r := d.passer()
		if r == nil || !d.admit(r, now) {
			return
		}
		if r.gone {
			d.unqueue(r)
		} else {
			r.passed = true
			d.line.Pass(r.spot)
		}
		d.changed("", nil)
	}
}

// passer is the first who may pass those before him, or nil.
func (d *Device) passer() *Request {
	g := d.gapBehind()
	for i, s := range d.line.All() {
		if i > 0 && g.takes(s.Of) {
			return s.Of
		}
		g.add(s.Of)
		if i == passers || len(d.quotas) == 0 && !g.some() {
			break
		}
	}
	return nil
}

// returning finds the portions in which bytes come back that are being released: those that
// nobody holds any more, and those that somebody may never let go of. Blocks of a segment
// that others share give nothing back.
func (g *gap) returning() {
	d := g.d
	shared := map[heap.SegmentID]int{}
	for _, x := range d.going {
		if q := d.quotas[x.Owner.Tenant]; q != nil && q.Floor > 0 {
			g.kept = append(g.kept, q.Tenant)
		}
		whole := true
		for _, b := range x.Blocks {
			info, ok := d.heap.Segment(b.Segment)
			whole = whole && ok && info.Blocks == 1
		}
		switch {
		case whole && x.Status == StatusRevoking && len(x.Mappers) == 0 && !x.held():
			g.coming = append(g.coming, d.segmentBytes(x))
		case whole:
			g.perhaps = append(g.perhaps, d.segmentBytes(x))
		default:
			for _, b := range x.Blocks {
				shared[b.Segment]++
			}
		}
		if whole && x.Class != ClassWeights {
			g.idle += d.segmentBytes(x)
		}
	}
	for id, n := range shared {
		// It comes back with the last of its blocks; which that is nobody knows.
		if info, ok := d.heap.Segment(id); ok && n == info.Blocks {
			g.perhaps = append(g.perhaps, info.Bytes)
			g.idle += info.Bytes
		}
	}
}

// segmentBytes are the bytes of all segments in which a grant lies.
func (d *Device) segmentBytes(g *Grant) (n int64) {
	for _, b := range g.Blocks {
		n += d.segments[b.Segment].bytes
	}
	return n
}

// goes and went keep the grants that are being released.
func (d *Device) goes(g *Grant) {
	d.going = append(d.going, g)
	g.release.slot = len(d.going)
}

func (d *Device) went(g *Grant) {
	if i := g.release.slot; i > 0 {
		last := d.going[len(d.going)-1]
		d.going[i-1], last.release.slot = last, i
		d.going = d.going[:len(d.going)-1]
		g.release.slot = 0
	}
}
