//go:build linux

package cuda

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"sync"
)

// cover is what of new weights has been written or is being. Memory as the driver hands it out
// may hold what another process left; weights are not set to zero when they are made, since
// nearly all of them is filled, but what nobody has written is before anybody can read it. The
// zero value is of memory that is none of that: all of it counts as written.
type cover struct {
	mu    sync.Mutex
	total int64 // 0: all is written
	spans []span
}

// span is bytes from at up to end.
type span struct{ at, end int64 }

// begin makes of memory of so many bytes one that nobody has written.
func (c *cover) begin(total int64) { c.total = total }

// claim notes that a range is about to be written. It waits while gaps are being closed.
func (c *cover) claim(off, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total == 0 || n <= 0 {
		return
	}
	now := span{off, off + n}
	first, _ := slices.BinarySearchFunc(c.spans, now.at, func(s span, at int64) int { return cmp.Compare(s.end, at) })
	last := first
	for last < len(c.spans) && c.spans[last].at <= now.end {
		now.at, now.end = min(now.at, c.spans[last].at), max(now.end, c.spans[last].end)
		last++
	}
	c.spans = slices.Replace(c.spans, first, last, now)
}

// disclaim notes that a claimed range was not written after all.
func (c *cover) disclaim(off, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total == 0 || n <= 0 {
		return
	}
	var out []span
	for _, s := range c.spans {
		if s.at < off {
			out = append(out, span{s.at, min(s.end, off)})
		}
		if s.end > off+n {
			out = append(out, span{max(s.at, off+n), s.end})
		}
	}
	c.spans = out
}

// reach is how many bytes from the beginning have been claimed without a gap.
func (c *cover) reach() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total > 0 && (len(c.spans) == 0 || c.spans[0].at > 0) {
		return 0
	}
	if c.total > 0 {
		return c.spans[0].end
	}
	return math.MaxInt64
}

// close has all that nobody has written set, after which all is. It does so once, unless that
// fails.
func (c *cover) close(set func(gaps []span) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total == 0 {
		return nil
	}
	var gaps []span
	at := int64(0)
	for _, s := range append(c.spans, span{c.total, c.total}) {
		if s.at > at {
			gaps = append(gaps, span{at, s.at})
		}
		at = s.end
	}
	if len(gaps) > 0 {
		if err := set(gaps); err != nil {
			return err
		}
	}
	c.total, c.spans = 0, nil
	return nil
}

// write runs what writes n bytes from off on, which says how many of them it wrote.
func (s *Segment) write(off, n int64, do func() (int64, error)) (int64, error) {
	s.cover.claim(off, n)
	got, err := do()
	s.cover.disclaim(off+got, n-got)
	return got, err
}

// settle sets to zero what nobody has written.
func (d *Driver) settle(what string, s *Segment) error {
	return s.cover.close(func(gaps []span) error {
		return d.told(what, d.lanes.with(func(l *lane) error {
			for _, g := range gaps {
				if err := d.cu.Set(s.pointer(g.at), 0, g.end-g.at, l.stream); err != nil {
					return errors.Join(err, l.finish())
				}
			}
			return l.finish()
		}))
	})
}
