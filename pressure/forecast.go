package pressure

import (
	"math"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// Forecaster estimates how fast memory fills. One caller at a time.
type Forecaster interface {
	// Observe takes the used bytes at an instant. Instants never go back.
	Observe(bytes int64, now clock.Instant)
	// Rate returns the growth in bytes a second, negative when shrinking; false
	// while too little was seen to say anything.
	Rate() (float64, bool)
}

// Trend is the plain Forecaster: the growth over short windows, smoothed. It is
// guarded: a burst inside a window counts by what is left of it at the window's
// end, and nothing is said before two windows agree that there is something.
type Trend struct {
	window time.Duration
	decay  time.Duration

	begun bool
	start clock.Instant
	base  int64 // bytes at start
	seen  int   // windows closed
	rate  float64
}

const (
	trendWindow = 250 * time.Millisecond
	trendDecay  = 2 * time.Second
)

// NewTrend makes a Trend with windows of 250 ms, smoothed over 2 s.
func NewTrend() *Trend { return &Trend{window: trendWindow, decay: trendDecay} }

// Observe implements Forecaster.
func (t *Trend) Observe(bytes int64, now clock.Instant) {
	if !t.begun {
		t.begun, t.start, t.base = true, now, bytes
		return
	}
	span := now.Sub(t.start)
	if span < t.window {
		return
	}
	rate := float64(bytes-t.base) / span.Seconds()
	if t.seen == 0 {
		t.rate = rate
	} else {
		t.rate += (rate - t.rate) * (1 - math.Exp(-span.Seconds()/t.decay.Seconds()))
	}
	t.start, t.base = now, bytes
	t.seen++
}

// Rate implements Forecaster.
func (t *Trend) Rate() (float64, bool) {
	if t.seen < 2 {
		return 0, false
	}
	return t.rate, true
}
