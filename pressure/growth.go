package pressure

import (
	"github.com/isobar-project/isobar/clock"
)

// Forecaster foresees how bytes grow that nobody announces: those of others. Own bytes
// and reservations need none, they are counted in full before they are used. One caller
// at a time.
type Forecaster interface {
	// Observe takes a sample of an instant. Instants never go back.
	Observe(bytes int64, now clock.Instant)
	// Growth is how many bytes a second they grow by for certain; 0 where they do not, or
	// where nothing certain can be said.
	Growth() float64
}

// Growth is the guarded Forecaster. It speaks of a ramp only when three samples in a row
// rose, and by twelve times the noise that the samples before had; of its speed it takes
// the lesser of the latest and the ramp's mean. What hovers or comes in steps is noise to
// it, and what wanders nearly always: it is silent rather than wrong. The zero Growth has seen nothing.
type Growth struct {
	seen  int           // samples, as far as they count: noiseSamples at most
	at    clock.Instant // of the latest sample
	bytes int64
	span  float64 // seconds between the latest two
	rate  float64 // bytes a second between them

	begun clock.Instant // of the rise
	from  int64
	rises int

	// noise is the variance of one sample about its ramp, in bytes²: estimated from how
	// far each lies from the line through the two before, which a ramp leaves at zero.
	noise  float64
	weight float64 // of the next sample in it
}

const (
	surestRises  = 3
	surestNoise  = 12 // standard deviations
	noiseSamples = 64
	leastSamples = 10 // before that the noise is not known
)

// Observe implements Forecaster.
func (g *Growth) Observe(bytes int64, now clock.Instant) {
	span := seconds(now.Sub(g.at))
	switch {
	case g.seen == 0:
		g.seen, g.at, g.bytes, g.begun, g.from = 1, now, bytes, now, bytes
		return
	case span <= 0: // two samples of one instant: the later one counts
		g.bytes = bytes
		return
	}
	rise := float64(bytes - g.bytes)
	if g.seen > 1 {
		r := span / g.span
		off := rise - g.rate*span
		// The weights of the three samples that off is made of.
		g.noise += (off*off/(1+(1+r)*(1+r)+r*r) - g.noise) * g.weight
	}
	if g.rises++; rise <= 0 {
		g.rises, g.begun, g.from = 0, now, bytes
	}
	g.span, g.rate = span, rise/span
	if g.seen < noiseSamples {
		g.seen++
		g.weight = 1 / float64(g.seen)
	}
	g.at, g.bytes = now, bytes
}

// Growth implements Forecaster.
func (g *Growth) Growth() float64 {
	if g.rises < surestRises || g.seen < leastSamples {
		return 0
	}
	rise := float64(g.bytes - g.from)
	if rise*rise < surestNoise*surestNoise*g.noise {
		return 0
	}
	return min(g.rate, rise/seconds(g.at.Sub(g.begun)))
}
