package pressure

import (
	"math"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// Trend estimates how fast memory fills, for people and plans; no level follows from it. It
// is how the mean of one short window differs from that of the next, smoothed: what comes
// and goes inside a window counts by the time it stayed, and nothing is said before two
// windows passed. The zero Trend has seen nothing. One caller at a time.
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

// Observe takes the used bytes at an instant. Instants never go back.
func (t *Trend) Observe(bytes int64, now clock.Instant) {
	b := float64(bytes)
	if !t.begun {
		t.begun, t.start, t.last, t.bytes = true, now, now, b
		return
	}
	t.area += (t.bytes + b) / 2 * seconds(now.Sub(t.last))
	t.last, t.bytes = now, b
	if span := now.Sub(t.start); span >= trendWindow {
		t.close(t.area/seconds(span), t.start.Add(span/2))
		t.start, t.area = now, 0
	}
}

// close ends a window with its mean.
func (t *Trend) close(mean float64, centre clock.Instant) {
	if t.seen > 0 {
		apart := seconds(centre.Sub(t.centre))
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

// Rate is the growth in bytes a second, negative when shrinking; false while too little was
// seen to say anything.
func (t *Trend) Rate() (float64, bool) { return t.rate, t.seen >= 2 }

// seconds is d.Seconds, to the last bit but one and without its division.
func seconds(d time.Duration) float64 { return float64(d) * 1e-9 }
