package history

import (
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
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

// accuracy is how far a percentile may be off, as a share of it; maxBins bounds what a
// sketch takes (8 bytes each). Together they tell a microsecond from ten minutes; of what
// spans more, the shortest durations are told less exactly.
const (
	accuracy = 0.02
	maxBins  = 512
)

// Histogram counts durations in a sketch whose percentiles are off by a fiftieth at most.
// Its zero value is empty. Copies share the sketch.
type Histogram struct {
	sketch *ddsketch.DDSketch
	Count  int64
	Max    time.Duration
}

// own makes sure that there is a sketch.
func (h *Histogram) own() *ddsketch.DDSketch {
	if h.sketch == nil {
		s, err := ddsketch.LogCollapsingLowestDenseDDSketch(accuracy, maxBins)
		if err != nil {
			panic("history: " + err.Error()) // the accuracy is a constant
		}
		h.sketch = s
	}
	return h.sketch
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	d = max(0, d)
	if err := h.own().Add(float64(d)); err != nil {
		panic("history: " + err.Error()) // no duration is beyond what a sketch can hold
	}
	h.Count++
	h.Max = max(h.Max, d)
}

// Merge adds another histogram.
func (h *Histogram) Merge(o *Histogram) {
	if o.Count == 0 {
		return
	}
	if err := h.own().MergeWith(o.sketch); err != nil {
		panic("history: " + err.Error()) // all have one accuracy
	}
	h.Count += o.Count
	h.Max = max(h.Max, o.Max)
}

// Percentile estimates the duration below which so many percent lie; 0 of nothing.
func (h *Histogram) Percentile(p float64) time.Duration {
	if h.Count == 0 {
		return 0
	}
	v, err := h.sketch.GetValueAtQuantile(p / 100)
	if err != nil || v >= float64(h.Max) {
		return h.Max // of no percentage that there is, or rounded up
	}
	return time.Duration(v)
}
