package pressure

import (
	"time"

	"github.com/isobar-project/isobar/clock"
)

// Stalls keeps what several sources of the kernel say of one device: that memory is tight, or
// nothing. A signal is a moment; it counts for a while after it. The zero Stalls has heard
// nothing. Like an Evaluator it has no clock: time goes in and never goes back.
type Stalls struct {
	by map[string]stall
}

type stall struct {
	level Level
	until clock.Instant
	lost  bool
}

// Note takes a source's signal: level counts for hold from now on. A lower signal does not
// shorten a higher one. Whoever signals is not lost.
func (s *Stalls) Note(source string, level Level, hold time.Duration, now clock.Instant) {
	if s.by == nil {
		s.by = map[string]stall{}
	}
	x := s.by[source]
	x.lost = false
	if until := now.Add(hold); level >= x.level || now >= x.until {
		x.level, x.until = level, until
	}
	s.by[source] = x
}

// Lost notes that a source cannot be heard any more; what it said last is not prolonged.
func (s *Stalls) Lost(source string) {
	if s.by == nil {
		s.by = map[string]stall{}
	}
	x := s.by[source]
	x.lost = true
	s.by[source] = x
}

// Deaf reports whether a source that could be heard cannot be now.
func (s *Stalls) Deaf() bool {
	for _, x := range s.by {
		if x.lost {
			return true
		}
	}
	return false
}

// Level is the highest level that a signal calls for now.
func (s *Stalls) Level(now clock.Instant) Level {
	l := Low
	for _, x := range s.by {
		if now < x.until {
			l = max(l, x.level)
		}
	}
	return l
}

// Next returns when a signal ceases to count, if one counts now.
func (s *Stalls) Next(now clock.Instant) (at clock.Instant, ok bool) {
	for _, x := range s.by {
		if now < x.until && (!ok || x.until < at) {
			at, ok = x.until, true
		}
	}
	return at, ok
}
