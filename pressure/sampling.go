package pressure

import "time"

// Sampling bounds how often the outside is looked at.
type Sampling struct {
	// Rest is the period while there is ample headroom; 1 s. Shortest is the
	// period near the limit; 50 ms: a sample costs microseconds.
	Rest, Shortest time.Duration
	// FastestFill is the growth, in bytes a second, to be ready for although
	// nothing grows yet: what the device can be filled with. 64 GB/s, a GPU's bus.
	FastestFill float64
	// Patience is how long a sample may be under way before the source counts as lost;
	// 3 s. The sample is awaited all the same.
	Patience time.Duration
}

// WithDefaults returns s with its zero fields set.
func (s Sampling) WithDefaults() Sampling {
	if s.Rest == 0 {
		s.Rest = time.Second
	}
	if s.Shortest == 0 {
		s.Shortest = 50 * time.Millisecond
	}
	if s.FastestFill == 0 {
		s.FastestFill = 64e9
	}
	if s.Patience == 0 {
		s.Patience = 3 * time.Second
	}
	return s
}

// Period is the time to the next sample: half of what the headroom (limit −
// used, bytes) lasts at the faster of the observed fill rate (bytes a second)
// and FastestFill, within the bounds. Halving means that however fast it fills,
// up to FastestFill, a sample falls into the last stretch before the limit.
func (s Sampling) Period(headroom int64, fillRate float64) time.Duration {
	s = s.WithDefaults()
	rate := max(fillRate, s.FastestFill)
	left := float64(headroom) / rate / 2 // seconds
	switch {
	case !(left > s.Shortest.Seconds()):
		return s.Shortest
	case left >= s.Rest.Seconds():
		return s.Rest
	}
	return time.Duration(left * float64(time.Second))
}
