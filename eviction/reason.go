package eviction

import (
	"strconv"
	"strings"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// unevictable says why c may not go; empty if it may. With force its
// readers don't keep it.
func unevictable(c *Candidate, force bool) string {
	switch {
	case c.Excluded != "":
		return c.Excluded
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

// explain gives each victim its reason. Those of one plan lie in one piece of memory.
func (r *ranking) explain(victims []Victim, chosen []ranked, now clock.Instant) {
	const usual = 72 // bytes of a reason
	var all strings.Builder
	all.Grow(usual * len(victims))
	ends := make([]int, len(victims))
	b := make([]byte, 0, 2*usual)
	for i := range chosen {
		b = r.why(b[:0], &chosen[i], now)
		all.Write(b)
		ends[i] = all.Len()
	}
	text, begin := all.String(), 0
	for i, end := range ends {
		victims[i].Reason, begin = text[begin:end], end
	}
}

// why says in words why x goes: its rank among all that may go.
func (r *ranking) why(b []byte, x *ranked, now clock.Instant) []byte {
	c := &r.of[x.index]
	if c.Readers > 0 {
		b = append(b, "forced while in use, readers: "...)
		b = strconv.AppendInt(b, int64(c.Readers), 10)
	} else {
		b = append(b, "unread for "...)
		b = appendAge(b, max(0, now.Sub(c.LastUsed)))
	}
	b = append(b, "; reload costs "...)
	b = appendSeconds(b, c.Cost)
	b = append(b, "; "...)
	switch {
	case r.count == 1:
		b = append(b, "the only one that may go"...)
	case x.rank == 1:
		b = append(b, "cheapest of "...)
		b = strconv.AppendInt(b, int64(r.count), 10)
	default:
		b = append(b, "number "...)
		b = strconv.AppendInt(b, int64(x.rank), 10)
		b = append(b, " in cost of "...)
		b = strconv.AppendInt(b, int64(r.count), 10)
	}
	if c.LastVictim {
		b = append(b, "; asked for the room itself"...)
	}
	return b
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
