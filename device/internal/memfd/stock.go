//go:build linux

package memfd

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
)

// StockConfig says how much memory of destroyed weights is kept for the next ones. Making pages is
// what a copy into main memory waits for: on an H100's host with 16 processors they are made at 20
// to 30 GB/s at best, where the link does 55 (2026-11-22, docs/benchmarks).
type StockConfig struct {
	// Bytes bounds it; 0 keeps nothing.
	Bytes int64
	// LimitBytes bounds it together with what is live; 0 means that nothing does.
	LimitBytes int64
	// HalfLife is in what time half of it goes while nobody asks for any, from one HalfLife after
	// the last time on; 0 means 10 s.
	HalfLife time.Duration
	// Clock tells for how long nobody has; nil means the real one.
	Clock clock.Clock
}

// stockedBytes is how much a segment has at least to be worth keeping: as long as they last it
// takes addresses, and tables of pages.
const stockedBytes = 16 << 20

// stock is memory of weights that were destroyed, with its pages, and with what other drivers have
// pinned of it. Sealed memory cannot be mapped for writing again, so that each body keeps the
// mapping that it has had from birth. Only bodies that nobody else has are put here.
type stock struct {
	c StockConfig

	mu     sync.Mutex
	list   []*body // the oldest first
	bytes  int64
	closed bool
	used   clock.Instant // last
	peak   int64         // bytes then
	ending sync.WaitGroup
}

func (k *stock) check() {
	if k.c.HalfLife <= 0 {
		k.c.HalfLife = 10 * time.Second
	}
	if k.c.Clock == nil {
		k.c.Clock = clock.Real()
	}
}

// touch notes that the stock is of use. It is called with mu held.
func (k *stock) touch() { k.used, k.peak = k.c.Clock.Now(), k.bytes }

// put keeps a body, if it may be; live is what all segments come to without it.
func (k *stock) put(b *body, live int64) bool {
	limit := k.c.Bytes
	if k.c.LimitBytes > 0 {
		limit = min(limit, k.c.LimitBytes-live)
	}
	k.mu.Lock()
	if k.closed || b.bytes > limit {
		k.mu.Unlock()
		return false
	}
	k.list = append(k.list, b)
	k.bytes += b.bytes
	out := k.over(limit)
	k.touch()
	k.mu.Unlock()
	k.end(out)
	return true
}

// take gives a body of so many bytes, the youngest, or nil.
func (k *stock) take(bytes int64) *body {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := len(k.list) - 1; i >= 0; i-- {
		if b := k.list[i]; b.bytes == bytes {
			k.list = slices.Delete(k.list, i, i+1)
			k.bytes -= bytes
			k.touch()
			return b
		}
	}
	return nil
}

// over takes out the oldest until no more than so many bytes are left. It is called with mu held.
func (k *stock) over(keep int64) (out []*body) {
	for len(k.list) > 0 && k.bytes > keep {
		out = append(out, k.list[0])
		k.bytes -= k.list[0].bytes
		k.list = k.list[1:]
	}
	return out
}

// end gives bodies back, side by side: letting go of what is pinned takes long.
func (k *stock) end(list []*body) {
	var group sync.WaitGroup
	for _, b := range list {
		group.Go(func() { _ = b.end() }) // a descriptor whose close fails is closed
	}
	group.Wait()
}

// StockBytes is memory that the store keeps for weights to come, beside its segments.
func (st *Store) StockBytes() int64 {
	st.stock.mu.Lock()
	defer st.stock.mu.Unlock()
	return st.stock.bytes
}

// Shed gives up memory of the stock until no more than keep bytes are left, and tells how much
// that was. It waits until the memory is back.
func (st *Store) Shed(keep int64) int64 {
	k := &st.stock
	k.mu.Lock()
	before := k.bytes
	out := k.over(max(0, keep))
	went := before - k.bytes
	k.mu.Unlock()
	k.end(out)
	return went
}

// Wane gives up what the stock has too much for how long nobody has asked for any, down to most
// bytes at once, in the background. Whoever keeps the store calls it from time to time; how often
// does not matter to the curve.
func (st *Store) Wane(most int64) {
	k := &st.stock
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.list) == 0 || k.closed {
		return
	}
	keep := min(most, k.peak)
	if rested := k.c.Clock.Now().Sub(k.used) - k.c.HalfLife; rested > 0 {
		keep = min(keep, int64(float64(k.peak)*math.Exp2(-float64(rested)/float64(k.c.HalfLife))))
	}
	// A body goes when more than half of it is too much.
	if out := k.over(keep + k.list[0].bytes/2); len(out) > 0 {
		k.ending.Go(func() { k.end(out) })
	}
}

// close gives all of it up, for good.
func (k *stock) close() {
	k.mu.Lock()
	k.closed = true
	out := k.over(0)
	k.mu.Unlock()
	k.end(out)
	k.ending.Wait()
}

// retire ends the memory of a segment that is dead, or keeps it for the next.
func (st *Store) retire(s *Segment) error {
	if s.body.whole.bytes != nil && !st.Closed() {
		bytes, err := residentBytes(s.file)
		own := false
		if err == nil && bytes >= s.bytes {
			own, err = alone(s.file)
		}
		if err == nil && own {
			s.body.worn = s.body.worn || s.Sealed()
			if st.stock.put(s.body, st.Bytes()) {
				return nil
			}
		}
	}
	return s.body.end()
}

// Reuse makes weights of memory that the stock has, nil if it has none of that size. limit is as
// in Reserve.
func (st *Store) Reuse(bytes, limit int64, o device.CreateOptions) *Segment {
	if !o.Weights || st.stock.c.Bytes == 0 {
		return nil
	}
	if _, ok := st.Reserve(bytes, limit); !ok {
		return nil
	}
	b := st.stock.take(bytes)
	if b == nil {
		st.Unreserve(bytes)
		return nil
	}
	s := newSegment(st, b, true)
	s.cover.Begin(bytes)
	if err := st.enlist(s); err != nil { // closed meanwhile
		st.Unreserve(bytes)
		_ = b.end()
		return nil
	}
	_ = s.measure() // it fails only for a closed descriptor
	return s
}
