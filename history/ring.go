package history

import "github.com/isobar-project/isobar/clock"

// Counters are sums since something began; History keeps their growth.
type Counters struct {
	Grants, Releases, Refusals, Evictions int64
	// Hits are loads that found their model resident, Loads all of them.
	Hits, Loads int64
}

func (c Counters) minus(o Counters) Counters {
	return Counters{c.Grants - o.Grants, c.Releases - o.Releases, c.Refusals - o.Refusals, c.Evictions - o.Evictions, c.Hits - o.Hits, c.Loads - o.Loads}
}

// Plus adds two growths.
func (c Counters) Plus(o Counters) Counters {
	return Counters{c.Grants + o.Grants, c.Releases + o.Releases, c.Refusals + o.Refusals, c.Evictions + o.Evictions, c.Hits + o.Hits, c.Loads + o.Loads}
}

// Point is what is remembered of one span of time.
type Point struct {
	At              clock.Instant // the latest moment it tells of
	Used, Available int64         // bytes, at that moment
	Peak            int64         // the most bytes used within the span
	Level           uint8         // the highest within the span; 0 is the lowest there is
	Grown           Counters      // by how much they grew
}

// pointBytes is what one point takes in memory.
const pointBytes = 88

// join adds a later point to the span of p.
func (p *Point) join(q Point) {
	p.At, p.Used, p.Available = q.At, q.Used, q.Available
	p.Peak, p.Level, p.Grown = max(p.Peak, q.Peak), max(p.Level, q.Level), p.Grown.Plus(q.Grown)
}

// ring is a bounded series of points, the oldest of which go first.
type ring struct {
	span   clock.Instant // of one point
	bound  int
	points []Point
	first  int  // of a full ring
	lost   bool // something has gone
}

// add takes a point, which joins the last one where it lies in the same span.
func (r *ring) add(p Point) {
	if n := len(r.points); n > 0 {
		if last := r.at(n - 1); last.At/r.span == p.At/r.span {
			last.join(p)
			return
		}
	}
	if len(r.points) < r.bound {
		r.points = append(r.points, p)
		return
	}
	r.points[r.first] = p
	r.first, r.lost = (r.first+1)%r.bound, true
}

// at is the i-th point, the oldest being 0.
func (r *ring) at(i int) *Point { return &r.points[(r.first+i)%len(r.points)] }

// covers reports whether everything since then that was ever seen is still there.
func (r *ring) covers(since clock.Instant) bool {
	return !r.lost || len(r.points) > 0 && r.at(0).At <= since
}
