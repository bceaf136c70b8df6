package history

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/isobar-project/isobar/clock"
)

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
	Models          int64         // of the bytes used, those of models
	Peak            int64         // the most bytes used within the span
	Level           uint8         // the highest within the span; 0 is the lowest there is
	// Seen is the time that it tells of: less than the span where no node ran for a part of it.
	Seen  time.Duration
	Grown Counters // by how much they grew
}

// maxLevel is the highest level that a point may have.
const maxLevel = 3

// join adds a later point to the span of p.
func (p *Point) join(q Point) {
	p.At, p.Used, p.Available, p.Models = q.At, q.Used, q.Available, q.Models
	p.Peak, p.Level, p.Grown = max(p.Peak, q.Peak), max(p.Level, q.Level), p.Grown.Plus(q.Grown)
	p.Seen += q.Seen
}

// A point's payload: five words, the time seen in microseconds, and the level
// above it, and the counters, which stop at what 4 bytes hold.
const (
	pointPayload = 6*8 + 6*4
	pointBytes   = recordHeader + pointPayload // 88
	seenBits     = 56
	maxSeen      = 30 * 24 * time.Hour
)

func (p *Point) encode(b *[pointPayload]byte) {
	for i, v := range [...]int64{int64(p.At), p.Used, p.Available, p.Models, p.Peak} {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(v))
	}
	seen := uint64(min(max(0, p.Seen), maxSeen).Microseconds())
	binary.LittleEndian.PutUint64(b[40:], uint64(p.Level)<<seenBits|seen)
	g := &p.Grown
	for i, v := range [...]int64{g.Grants, g.Releases, g.Refusals, g.Evictions, g.Hits, g.Loads} {
		binary.LittleEndian.PutUint32(b[48+4*i:], uint32(min(max(0, v), math.MaxUint32)))
	}
}

// decode reports false for what encode never writes.
func (p *Point) decode(b []byte) bool {
	if len(b) != pointPayload {
		return false
	}
	word := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[8*i:])) }
	count := func(i int) int64 { return int64(binary.LittleEndian.Uint32(b[48+4*i:])) }
	*p = Point{At: clock.Instant(word(0)), Used: word(1), Available: word(2), Models: word(3), Peak: word(4),
		Level: uint8(uint64(word(5)) >> seenBits), Seen: time.Duration(min(word(5)&(1<<seenBits-1), maxSeen.Microseconds()+1)) * time.Microsecond,
		Grown: Counters{count(0), count(1), count(2), count(3), count(4), count(5)}}
	return p.At >= 0 && p.Seen <= maxSeen && p.Level <= maxLevel && p.Seen >= 0 && p.Used >= 0 && p.Peak >= 0 && p.Models >= 0
}

// ring is a bounded series of points, the oldest of which go first.
type ring struct {
	reel
	span   clock.Instant // of one point
	newest Point
}

// resume goes on with the newest point.
func (r *ring) resume() {
	if !r.newest.decode(r.last()) {
		r.newest = Point{}
	}
}

// add takes a point, which joins the newest where it lies in the same span.
func (r *ring) add(p Point) {
	var b [pointPayload]byte
	if r.n > 0 && r.newest.At/r.span == p.At/r.span {
		r.newest.join(p)
		r.newest.encode(&b)
		r.replace(b[:])
		return
	}
	r.newest = p
	p.encode(&b)
	r.push(b[:])
}

// each gives the points to f, the oldest first.
func (r *ring) each(f func(p *Point)) {
	var p Point
	before := clock.Instant(-1)
	for i := range r.len() {
		if p.decode(r.at(i)) && p.At > before {
			before = p.At
			f(&p)
		}
	}
}

// covers reports whether everything since then that was ever seen is still there.
func (r *ring) covers(since clock.Instant) bool {
	var oldest Point
	return r.n <= uint32(r.bound) || oldest.decode(r.at(0)) && oldest.At <= since
}
