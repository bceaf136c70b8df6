package history

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// How many spans are remembered of which anything took time.
const (
	minutes = 60
	hours   = 24
)

// spans is a bounded series of histograms, one for each span of time in which anything
// took any.
type spans struct {
	reel
	span clock.Instant
}

func (s *spans) add(o *Histogram, at clock.Instant) {
	n := uint64(at / s.span)
	var sum Histogram
	if found, ok := sum.decode(s.last()); ok && found == n {
		sum.Merge(o)
		s.replace(sum.encode(n, s.room()))
		return
	}
	s.push(o.encode(n, s.room()))
}

func (s *spans) since(at clock.Instant, sum *Histogram) {
	for i := range s.len() {
		var h Histogram
		if n, ok := h.decode(s.at(i)); ok && n >= uint64(at/s.span) {
			sum.Merge(&h)
		}
	}
}

// bin counts the durations of about one length.
type bin struct{ index, count int64 }

// The bounds of what decode takes: no duration has an index beyond, and no node counts so far.
const (
	maxIndex = 1 << 12
	maxCount = 1 << 50
)

// encode writes a span's histogram: its number, the count, the longest, how many took no time,
// and then the bins, the longest first, each as the step down from the one before and its
// count. What finds no room is counted with the shortest that does.
func (h *Histogram) encode(span uint64, room int) []byte {
	var bins []bin
	h.own().GetPositiveValueStore().ForEach(func(index int, count float64) bool {
		if count > 0 {
			bins = append(bins, bin{int64(index), int64(math.Round(count))})
		}
		return false
	})
	n := len(bins)
	for {
		b := h.encodeBins(span, bins, n)
		if len(b) <= room || n <= 1 {
			return b
		}
		n = max(1, min(n-1, n*room/len(b)))
	}
}

// encodeBins writes the last n bins, those before them together with the first of these.
func (h *Histogram) encodeBins(span uint64, bins []bin, n int) []byte {
	b := binary.AppendUvarint(nil, span)
	b = binary.AppendUvarint(b, uint64(h.Count))
	b = binary.AppendUvarint(b, uint64(h.Max))
	b = binary.AppendUvarint(b, uint64(math.Round(h.own().GetZeroCount())))
	shorter := int64(0)
	for _, x := range bins[:len(bins)-n] {
		shorter += x.count
	}
	above := int64(maxIndex)
	for i := len(bins) - 1; i >= len(bins)-n; i-- {
		x := bins[i]
		if i == len(bins)-n {
			x.count += shorter
		}
		b = binary.AppendUvarint(b, uint64(above-x.index))
		b = binary.AppendUvarint(b, uint64(x.count))
		above = x.index
	}
	return b
}

// decode fills an empty histogram; it reports false for what encode never writes.
func (h *Histogram) decode(b []byte) (span uint64, ok bool) {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			b, ok = nil, false
			return 0
		}
		b = b[n:]
		return v
	}
	if ok = len(b) > 0; !ok {
		return 0, false
	}
	span = next()
	count, longest, zero := next(), next(), next()
	if !ok || count > maxCount || longest > math.MaxInt64 || zero > count {
		return 0, false
	}
	left, above := count-zero, int64(maxIndex)
	var bins []bin
	for ok && len(b) > 0 {
		step, n := next(), next()
		if !ok || n > left || n == 0 || step > 2*maxIndex || step == 0 && len(bins) > 0 {
			return 0, false
		}
		above -= int64(step)
		left -= n
		bins = append(bins, bin{above, int64(n)})
	}
	if !ok || left != 0 || len(bins) > 0 && bins[len(bins)-1].index < -maxIndex {
		return 0, false
	}
	s := h.own()
	for _, x := range bins {
		s.GetPositiveValueStore().AddWithCount(int(x.index), float64(x.count))
	}
	if zero > 0 {
		if err := s.AddWithCount(0, float64(zero)); err != nil {
			return 0, false
		}
	}
	h.Count, h.Max = int64(count), time.Duration(longest)
	return span, true
}
