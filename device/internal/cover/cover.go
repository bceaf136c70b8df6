// Package cover keeps what of new memory has been written: memory that is not set to zero when it
// is made, since nearly all of it will be overwritten, must not show what it held before.
package cover

import (
	"cmp"
	"math"
	"slices"
	"sync"
)

// Cover is what of new memory has been written or is being; what nobody has written is set to zero
// before anybody can read it. The zero value is of memory that is none of that: all of it counts
// as written. Its methods may be called from any goroutine.
type Cover struct {
	mu    sync.Mutex
	total int64 // 0: all is written
	spans []Span
}

// Span is bytes from at up to end.
type Span struct{ At, End int64 }

// Begin makes of memory of so many bytes one that nobody has written.
func (c *Cover) Begin(total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total, c.spans = total, nil
}

// Claim notes that a range is about to be written, and returns what of it had not been. It waits
// while gaps are being closed.
func (c *Cover) Claim(off, n int64) (fresh []Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total == 0 || n <= 0 {
		return nil
	}
	now := Span{off, off + n}
	first, _ := slices.BinarySearchFunc(c.spans, now.At, func(s Span, at int64) int { return cmp.Compare(s.End, at) })
	last := first
	at := off
	for last < len(c.spans) && c.spans[last].At <= now.End {
		if c.spans[last].At > at {
			fresh = append(fresh, Span{at, c.spans[last].At})
		}
		at = max(at, c.spans[last].End)
		now.At, now.End = min(now.At, c.spans[last].At), max(now.End, c.spans[last].End)
		last++
	}
	c.spans = slices.Replace(c.spans, first, last, now)
	if at < off+n {
		fresh = append(fresh, Span{at, off + n})
	}
	return fresh
}

// Disclaim notes that of what a claim returned nothing was written from a byte on.
func (c *Cover) Disclaim(fresh []Span, from int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total == 0 {
		return
	}
	for _, f := range fresh {
		if at := max(f.At, from); at < f.End {
			c.remove(at, f.End-at)
		}
	}
}

func (c *Cover) remove(off, n int64) {
	var out []Span
	for _, s := range c.spans {
		if s.At < off {
			out = append(out, Span{s.At, min(s.End, off)})
		}
		if s.End > off+n {
			out = append(out, Span{max(s.At, off+n), s.End})
		}
	}
	c.spans = out
}

// Reach is how many bytes from the beginning have been claimed without a gap.
func (c *Cover) Reach() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total > 0 && (len(c.spans) == 0 || c.spans[0].At > 0) {
		return 0
	}
	if c.total > 0 {
		return c.spans[0].End
	}
	return math.MaxInt64
}

// Close has all that nobody has written set, after which all is. It does so once, unless that
// fails.
func (c *Cover) Close(set func(gaps []Span) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total == 0 {
		return nil
	}
	var gaps []Span
	at := int64(0)
	for _, s := range append(c.spans, Span{c.total, c.total}) {
		if s.At > at {
			gaps = append(gaps, Span{at, s.At})
		}
		at = s.End
	}
	if len(gaps) > 0 {
		if err := set(gaps); err != nil {
			return err
		}
	}
	c.total, c.spans = 0, nil
	return nil
}
