// Package measure has the figures of samples: percentiles, medians of pairs, and the
// environment that they were taken in. Everything is a value and safe to read from
// anywhere; nothing fails.
package measure

import (
	"math"
	"slices"
	"sync"
	"time"
)

// Durations are samples of time.
type Durations []time.Duration

// At is the q-quantile (0 to 1), by the nearest rank; 0 of none. The samples may be in any
// order.
func (d Durations) At(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Clone(d)
	slices.Sort(s)
	return s[rank(len(s), q)]
}

func rank(n int, q float64) int { return min(n-1, max(0, int(math.Ceil(q*float64(n)))-1)) }

// Summary is what is shown of samples.
type Summary struct {
	Count     int     `json:"count"`
	P50us     float64 `json:"p50_us"`
	P90us     float64 `json:"p90_us"`
	P99us     float64 `json:"p99_us"`
	MaxUs     float64 `json:"max_us"`
	PerSecond float64 `json:"per_second,omitempty"`
}

// Summary describes the samples; wall is the time in which they were taken, 0 if that
// says nothing.
func (d Durations) Summary(wall time.Duration) Summary {
	if len(d) == 0 {
		return Summary{}
	}
	s := slices.Clone(d)
	slices.Sort(s)
	at := func(q float64) float64 { return float64(s[rank(len(s), q)].Nanoseconds()) / 1e3 }
	out := Summary{Count: len(s), P50us: at(0.5), P90us: at(0.9), P99us: at(0.99), MaxUs: at(1)}
	if wall > 0 {
		out.PerSecond = float64(len(s)) / wall.Seconds()
	}
	return out
}

// Median is the middle of figures, the mean of the two middle ones of an even number; NaN
// of none.
func Median(f []float64) float64 {
	if len(f) == 0 {
		return math.NaN()
	}
	s := slices.Clone(f)
	slices.Sort(s)
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// Run calls f n times, with so many at a time, and returns every duration and the time
// that all took together. The first error ends it. f is told which worker calls it.
func Run(inFlight, n int, f func(worker int) error) (Durations, time.Duration, error) {
	took := make(Durations, n)
	errs := make([]error, inFlight)
	var wg sync.WaitGroup
	begun := time.Now()
	for w := range inFlight {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += inFlight {
				at := time.Now()
				errs[w] = f(w)
				took[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	wall := time.Since(begun)
	for _, err := range errs {
		if err != nil {
			return nil, 0, err
		}
	}
	return took, wall, nil
}
