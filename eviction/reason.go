package eviction

import (
	"strconv"
	"time"
)

// unevictable says why c may not go; empty if it may. With force its
// readers don't keep it.
func unevictable(c *Candidate, t *Terms, force bool) string {
	switch {
	case c.Excluded != "":
		return c.Excluded
	case t.Excluded != "":
		return t.Excluded
	case c.Pinned:
		return "pinned"
	case c.Readers == 1 && !force:
		return "in use by 1 reader"
	case c.Readers > 1 && !force:
		return "in use by " + strconv.Itoa(c.Readers) + " readers"
	case c.Bytes <= 0:
		return "holds no bytes here"
	}
	return ""
}

// kept lists what may not go.
func (r *ranking) kept() (kept []Skipped) {
	for i := range r.of {
		c := &r.of[i]
		t := r.terms(c)
		reason := unevictable(c, t, r.request.Force)
		if reason == "" && t.Bounded && !r.spared[i] {
			reason = "whose it is has no more to spare"
		}
		if reason != "" {
			kept = append(kept, Skipped{c.Key, reason})
		}
	}
	return kept
}

// Reason says in words why v goes: its rank among all that may go.
func (v *Victim) Reason() string {
	b := make([]byte, 0, 144)
	if v.readers > 0 {
		b = append(b, "forced while in use, readers: "...)
		b = strconv.AppendInt(b, int64(v.readers), 10)
	} else {
		b = append(b, "unread for "...)
		b = appendAge(b, v.unread)
	}
	b = append(b, "; reload costs "...)
	b = appendSeconds(b, v.Cost)
	b = append(b, "; "...)
	switch {
	case v.of == 1:
		b = append(b, "the only one that may go"...)
	case v.rank == 1:
		b = append(b, "cheapest of "...)
		b = strconv.AppendInt(b, int64(v.of), 10)
	default:
		b = append(b, "number "...)
		b = strconv.AppendInt(b, int64(v.rank), 10)
		b = append(b, " in cost of "...)
		b = strconv.AppendInt(b, int64(v.of), 10)
	}
	if v.doubled {
		b = append(b, "; a faster tier has it too"...)
	}
	if v.asked {
		b = append(b, "; asked for the room itself"...)
	}
	return string(b)
}

// appendSeconds writes a cost to two figures or so.
func appendSeconds(b []byte, s float64) []byte {
	decimals := 1
	switch {
	case s < .1:
		decimals = 3
	case s >= 10:
		decimals = 0
	}
	return append(strconv.AppendFloat(b, s, 'f', decimals, 64), " s"...)
}

// appendAge writes d with the unit that a person would choose.
func appendAge(b []byte, d time.Duration) []byte {
	switch {
	case d < time.Second:
		return append(strconv.AppendInt(b, d.Milliseconds(), 10), " ms"...)
	case d < 2*time.Minute:
		return append(strconv.AppendInt(b, int64(d/time.Second), 10), " s"...)
	case d < 2*time.Hour:
		return append(strconv.AppendInt(b, int64(d/time.Minute), 10), " min"...)
	}
	return append(strconv.AppendInt(b, int64(d/time.Hour), 10), " h"...)
}
