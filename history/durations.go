package history

import (
	"math/bits"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// Kind says what took time.
type Kind uint8

// The kinds of durations.
const (
	Grant Kind = iota // from a request to its grant
	Queue             // of that, waiting for room
	Load              // from a load's beginning to a usable model
	kinds
)

// buckets is how many a histogram has: half a power of two each, from a microsecond to
// more than an hour.
const buckets = 64

// Histogram counts durations. Its zero value is empty.
type Histogram struct {
	counts [buckets]uint32
	Count  int64
	Max    time.Duration
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.Count++
	h.Max = max(h.Max, d)
}

// bucketOf is the bucket of a duration: the exponent of two of its microseconds, and
// whether it lies in the upper half of that power (beyond √2 of it, to one part in 70).
func bucketOf(d time.Duration) int {
	us := uint64(max(0, d/time.Microsecond))
	if us == 0 {
		return 0
	}
	exp := bits.Len64(us) - 1
	b := 2 * exp
	if us*70 >= (99<<exp) && exp > 0 {
		b++
	}
	return min(b, buckets-1)
}

// bucketEnds are the least and the greatest duration of a bucket, roughly.
func bucketEnds(b int) (low, high float64) {
	end := func(b int) float64 {
		v := float64(uint64(1) << (b / 2))
		if b%2 == 1 {
			v *= 99.0 / 70
		}
		return v * float64(time.Microsecond)
	}
	if b == 0 {
		return 0, end(1)
	}
	return end(b), end(b + 1)
}

// Merge adds another histogram.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.Count += o.Count
	h.Max = max(h.Max, o.Max)
}

// Percentile estimates the duration below which so many percent lie; 0 of nothing.
func (h *Histogram) Percentile(p float64) time.Duration {
	if h.Count == 0 {
		return 0
	}
	rank := p / 100 * float64(h.Count)
	seen := 0.0
	for b, n := range h.counts {
		if n == 0 {
			continue
		}
		if seen+float64(n) >= rank {
			low, high := bucketEnds(b)
			v := low + (high-low)*(rank-seen)/float64(n)
			return min(time.Duration(v), h.Max)
		}
		seen += float64(n)
	}
	return h.Max
}

// spans is a bounded series of histograms, one for each span of time in which anything
// took any.
type spans struct {
	span  clock.Instant
	bound int
	list  []spanned
}

type spanned struct {
	at clock.Instant // the span's number
	h  *Histogram
}

func (s *spans) add(o *Histogram, at clock.Instant) {
	n := at / s.span
	if len(s.list) > 0 && s.list[len(s.list)-1].at == n {
		s.list[len(s.list)-1].h.Merge(o)
		return
	}
	for len(s.list) > 0 && (s.list[0].at <= n-clock.Instant(s.bound) || len(s.list) >= s.bound) {
		s.list = append(s.list[:0], s.list[1:]...)
	}
	fresh := *o
	s.list = append(s.list, spanned{n, &fresh})
}

func (s *spans) since(at clock.Instant, sum *Histogram) {
	for _, x := range s.list {
		if x.at >= at/s.span {
			sum.Merge(x.h)
		}
	}
}
