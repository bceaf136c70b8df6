package history

import (
	"time"

	"github.com/isobar-project/isobar/clock"
)

// The resolutions, and how far they reach where Config.Bytes allows it.
const (
	Fine   = time.Second
	Coarse = time.Minute

	fineReach   = time.Hour
	coarseReach = 24 * time.Hour
)

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
	fine, coarse int // points of each series
	series       map[string]*series
}

// series is one device's.
type series struct {
	fine, coarse ring
	last         Counters
	short, long  [kinds]spans
}

// New makes an empty history.
func New(cfg Config) *History {
	if cfg.Bytes <= 0 {
		cfg.Bytes = DefaultBytes
	}
	each := cfg.Bytes / int64(max(1, cfg.Devices)) / pointBytes
	const least = 60 // of each kind, whatever the bound
	return &History{series: map[string]*series{},
		fine:   int(min(max(each*2/3, least), int64(fineReach/Fine))),
		coarse: int(min(max(each/3, least), int64(coarseReach/Coarse)))}
}

func (h *History) of(device string) *series {
	s, ok := h.series[device]
	if !ok {
		s = &series{fine: ring{span: clock.Instant(Fine), bound: h.fine}, coarse: ring{span: clock.Instant(Coarse), bound: h.coarse}}
		for k := range kinds {
			s.short[k] = spans{span: clock.Instant(time.Minute), bound: 60}
			s.long[k] = spans{span: clock.Instant(time.Hour), bound: 24}
		}
		h.series[device] = s
	}
	return s
}

// Add takes a device's figures of a moment no earlier than those before. Grown is ignored:
// it is computed from total, which counts since the device began.
func (h *History) Add(device string, p Point, total Counters) {
	s := h.of(device)
	p.Grown = total.minus(s.last)
	p.Peak = max(p.Peak, p.Used)
	s.last = total
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
	s := h.of(device)
	r := &s.fine
	if !r.covers(since) {
		r = &s.coarse
	}
	out := ring{span: clock.Instant(max(resolution, Fine)), bound: len(r.points) + 1}
	for i := range r.points {
		if p := r.at(i); p.At > since {
			out.add(*p)
		}
	}
	return out.points
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
