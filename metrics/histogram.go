package metrics

import (
	"sync/atomic"
	"time"
)

// scale says where a histogram's buckets end and in which unit the page gives them.
type scale struct {
	bounds []int64 // upper bounds, ascending; above the last is +Inf
	labels []string
	unit   float64 // the page's values are observations times this
}

// durations are observed in nanoseconds and shown in seconds.
var durations = scale{
	bounds: []int64{1e4, 25e3, 5e4, 1e5, 25e4, 5e5, 1e6, 25e5, 5e6, 1e7, 25e6, 5e7, 1e8, 25e7, 5e8, 1e9, 25e8, 5e9, 1e10, 3e10, 6e10},
	labels: []string{"1e-05", "2.5e-05", "5e-05", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
		"0.5", "1", "2.5", "5", "10", "30", "60"},
	unit: 1e-9,
}

// rates are in bytes a second: from a slow disk to the links between GPUs.
var rates = scale{
	bounds: []int64{1e8, 25e7, 5e8, 1e9, 2e9, 4e9, 8e9, 16e9, 32e9, 64e9, 128e9, 256e9, 512e9, 1024e9},
	labels: []string{"1e+08", "2.5e+08", "5e+08", "1e+09", "2e+09", "4e+09", "8e+09", "1.6e+10", "3.2e+10", "6.4e+10", "1.28e+11", "2.56e+11",
		"5.12e+11", "1.024e+12"},
	unit: 1,
}

// histogram counts observations by bucket. Observe never waits.
type histogram struct {
	scale  *scale
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Int64
}

func newHistogram(s *scale) *histogram {
	return &histogram{scale: s, counts: make([]atomic.Uint64, len(s.bounds)+1)}
}

// observe counts v; what is negative, by a clock that went back, counts as 0.
func (h *histogram) observe(v int64) {
	v = max(0, v)
	lo, hi := 0, len(h.scale.bounds)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if v <= h.scale.bounds[mid] {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	h.counts[lo].Add(1)
	h.sum.Add(v)
}

func (h *histogram) took(d time.Duration) { h.observe(int64(d)) }

// empty reports whether nothing was observed yet.
func (h *histogram) empty() bool {
	for i := range h.counts {
		if h.counts[i].Load() != 0 {
			return false
		}
	}
	return true
}
