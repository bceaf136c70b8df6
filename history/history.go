package history

import (
	"hash/crc32"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// The resolutions, and how far they reach where Config.Bytes allows it.
const (
	Fine   = time.Second
	Coarse = time.Minute

	fineReach   = time.Hour
	coarseReach = 24 * time.Hour

	maxFine   = int(fineReach / Fine)
	maxCoarse = int(coarseReach / Coarse)
	least     = 60 // of each kind, whatever the bound
)

// maxPause is the longest time between two looks of one process that both tell of. A longer
// one is a machine that slept.
const maxPause = 90 * time.Second

// DefaultBytes is enough for nine devices at full reach.
const DefaultBytes = 4 << 20

// Config says how much is remembered.
type Config struct {
	// Devices is how many series there will be at most.
	Devices int
	// Bytes bounds the points of all series together; 0: DefaultBytes.
	Bytes int64
}

// History is what is remembered of a node.
type History struct {
	layout layout
	series map[string]*series

	mem        []byte // nil: each series has memory of its own
	generation uint64
	seed       uint32   // of all checksums
	named      []string // who has the places
	stored     func()   // called after every store, by tests
}

// series is one device's.
type series struct {
	fine, coarse ring
	short, long  [kinds]spans
	trace        trace

	looked bool // in this process, and when
	last   clock.Instant
	total  Counters
}

// reels are all that a series has, in the order of its place.
func (s *series) reels() []*reel {
	var all []*reel
	for k := range kinds {
		all = append(all, &s.short[k].reel, &s.long[k].reel)
	}
	return append([]*reel{&s.fine.reel, &s.coarse.reel}, append(all, &s.trace.reel)...)
}

// open reads what the newest records say.
func (s *series) open(stored func()) {
	s.fine.span, s.coarse.span = clock.Instant(Fine), clock.Instant(Coarse)
	for k := range kinds {
		s.short[k].span, s.long[k].span = clock.Instant(time.Minute), clock.Instant(time.Hour)
	}
	for _, r := range s.reels() {
		r.open()
		r.stored = stored
	}
	s.fine.resume()
	s.coarse.resume()
	s.trace.resume()
}

// New makes an empty history in memory of its own, which ends with it. See Format.
func New(cfg Config) *History {
	if cfg.Bytes <= 0 {
		cfg.Bytes = DefaultBytes
	}
	each := cfg.Bytes / int64(max(1, cfg.Devices)) / pointBytes
	return &History{series: map[string]*series{},
		layout: layout{fine: int(min(max(each*2/3, least), int64(maxFine))), coarse: int(min(max(each/3, least), int64(maxCoarse)))}}
}

func (h *History) of(device string) *series {
	if s, ok := h.series[device]; ok {
		return s
	}
	if h.mem != nil {
		if i, ok := h.claim(device); ok {
			return h.adopt(device, i)
		}
	}
	s := new(series)
	h.layout.carve(s, make([]byte, h.layout.bytes()), crc32.Checksum([]byte(device), castagnoli))
	s.open(h.stored)
	h.series[device] = s
	return s
}

// Continue takes over from a history of this process that begins anew how far its counters
// were: what they counted before is not counted again.
func (h *History) Continue(old *History) {
	for name, o := range old.series {
		if o.looked {
			s := h.of(name)
			s.looked, s.last, s.total = true, o.last, o.total
		}
	}
}

// Add takes a device's figures of a moment no earlier than those before. Grown and Seen are
// ignored: they are computed from total, which counts since the process began, and from the
// moment of the look before, which for the first look of a process is Fine ago, or the last one
// of its predecessor.
func (h *History) Add(device string, p Point, total Counters) {
	s := h.of(device)
	p.Grown, p.Seen = total.minus(s.total), max(0, min(Fine, p.At.Sub(s.fine.newest.At)))
	if pause := p.At.Sub(s.last); s.looked && pause <= maxPause {
		p.Seen = pause
	}
	p.Peak = max(p.Peak, p.Used)
	s.looked, s.last, s.total = true, p.At, total
	s.fine.add(p)
	s.coarse.add(p)
}

// Took takes durations of a kind that ended about now.
func (h *History) Took(device string, k Kind, o *Histogram, now clock.Instant) {
	if o.Count == 0 {
		return
	}
	s := h.of(device)
	s.short[k].add(o, now)
	s.long[k].add(o, now)
}

// Resolution is the finest at which a device's history since then can be told.
func (h *History) Resolution(device string, since clock.Instant) time.Duration {
	if h.of(device).fine.covers(since) {
		return Fine
	}
	return Coarse
}

// Series tells a device's history since then, in spans of resolution, which is at least
// Resolution's. Spans of which nothing is known are left out.
func (h *History) Series(device string, since clock.Instant, resolution time.Duration) []Point {
	span := clock.Instant(max(resolution, Fine))
	var out []Point
	h.since(device, since, func(p *Point) {
		if n := len(out); n > 0 && out[n-1].At/span == p.At/span {
			out[n-1].join(*p)
			return
		}
		out = append(out, *p)
	})
	return out
}

// since gives f the points of the finest ring that reaches so far back.
func (h *History) since(device string, since clock.Instant, f func(*Point)) {
	s := h.of(device)
	r := &s.fine
	if !r.covers(since) {
		r = &s.coarse
	}
	r.each(func(p *Point) {
		if p.At > since {
			f(p)
		}
	})
}

// Gap is a time in which nobody looked: no node ran, or the machine slept.
type Gap struct{ From, To clock.Instant }

// Gaps lists the times since then, between the first look that is remembered and the last, in
// which nobody looked at a device. Where minutes alone reach so far back, a gap within one of
// them is told as if it had been at its beginning.
func (h *History) Gaps(device string, since clock.Instant) (out []Gap) {
	before := clock.Instant(-1)
	h.since(device, since, func(p *Point) {
		if from := p.At.Add(-p.Seen); before >= 0 && from.Sub(before) >= Fine {
			out = append(out, Gap{before, from})
		}
		before = p.At
	})
	return out
}

// Durations sums what took time since then, to the minute within the last hour and to the
// hour before that.
func (h *History) Durations(device string, k Kind, since, now clock.Instant) (sum Histogram) {
	s := h.of(device)
	if now.Sub(since) <= time.Hour {
		s.short[k].since(since, &sum)
	} else {
		s.long[k].since(since, &sum)
	}
	return sum
}
