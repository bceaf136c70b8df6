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

// Trend is the plain Forecaster: how the mean of one short window differs from
// that of the next, smoothed. It is guarded: what comes and goes inside a window
// counts by the time it stayed, and nothing is said before two windows passed.
type Trend struct {
	begun bool
	start clock.Instant // of the window
	last  clock.Instant // of the latest observation
	bytes float64       // at last
	area  float64       // byte-seconds of the window up to last

	seen   int // windows closed
	mean   float64
	centre clock.Instant // of the window of mean
	rate   float64
}

const (
	// trendWindow is several of the shortest sampling periods.
	trendWindow = 250 * time.Millisecond
	// trendDecay is how fast the past is forgotten: after it a third is left.
	trendDecay = 2 * time.Second
)

// NewTrend makes a Trend with windows of 250 ms, smoothed over 2 s.
func NewTrend() *Trend { return &Trend{} }

// Observe implements Forecaster.
func (t *Trend) Observe(bytes int64, now clock.Instant) {
	b := float64(bytes)
	if !t.begun {
		t.begun, t.start, t.last, t.bytes = true, now, now, b
		return
	}
	t.area += (t.bytes + b) / 2 * now.Sub(t.last).Seconds()
	t.last, t.bytes = now, b
	if span := now.Sub(t.start); span >= trendWindow {
		t.close(t.area/span.Seconds(), t.start.Add(span/2))
		t.start, t.area = now, 0
	}
}

// close ends a window with its mean.
func (t *Trend) close(mean float64, centre clock.Instant) {
	if t.seen > 0 {
		apart := centre.Sub(t.centre).Seconds()
		rate := (mean - t.mean) / apart
		if t.seen == 1 {
			t.rate = rate
		} else {
			t.rate += (rate - t.rate) * (1 - math.Exp(-apart/trendDecay.Seconds()))
		}
	}
	t.mean, t.centre = mean, centre
	t.seen++
}

// Rate implements Forecaster.
func (t *Trend) Rate() (float64, bool) { return t.rate, t.seen >= 2 }
