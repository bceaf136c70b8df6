package pressure

import (
	"math"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// Pace follows the samples of one device and says when the next one is due. Growth counts
// at once and as fast as it was; once it ends it is forgotten within seconds. The zero Pace
// has seen nothing. One caller at a time; time goes in and never goes back.
type Pace struct {
	seen    bool
	at      clock.Instant
	outside int64
	rate    float64 // bytes a second
}

// paceDecay is how fast a growth that has ended is forgotten: after it a third is left.
const paceDecay = 2 * time.Second

// Next takes a sample of what others use and of the bytes that are left until the limit,
// and returns how long after it the next one is due.
func (p *Pace) Next(s Sampling, outside, headroom int64, now clock.Instant) time.Duration {
	if span := now.Sub(p.at); p.seen && span > 0 {
		grown := float64(outside-p.outside) / span.Seconds()
		p.rate = max(grown, p.rate*math.Exp(-span.Seconds()/paceDecay.Seconds()))
	}
	p.seen, p.at, p.outside = true, now, outside
	return s.Period(headroom, p.rate)
}

// FillRate is the growth that the latest period was made for, in bytes a second.
func (p *Pace) FillRate() float64 { return p.rate }
