//go:build linux

package cuda

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/internal/cover"
)

// batchBytes is how much of a batch is given to the stream at a time; two such parts are under
// way. The memory of a large GPU clears it in half a millisecond and copies it in one.
const batchBytes = 2 << 30

// ClearAll implements device.Batcher.
func (d *Driver) ClearAll(ctx context.Context, ranges []device.Range, value byte, did func(n int64)) error {
	const what = "clear"
	b, done, err := d.batch(what, ranges, nil)
	if err != nil {
		return err
	}
	defer done()
	return d.batched(ctx, what, b, did, func(l *lane, i int, at, n int64) error {
		return d.cu.Set(b.to[i].pointer(ranges[i].Off+at), value, n, l.stream)
	})
}

// CopyAll implements device.Batcher.
func (d *Driver) CopyAll(ctx context.Context, to, from []device.Range, did func(n int64)) error {
	const what = "copy"
	b, done, err := d.batch(what, to, from)
	if err != nil {
		return err
	}
	defer done()
	for i, s := range b.from {
		if err := d.settle(what, s); err != nil {
			return fmt.Errorf("range %d: %w", i, err)
		}
	}
	return d.batched(ctx, what, b, did, func(l *lane, i int, at, n int64) error {
		return d.cu.OnDevice(b.to[i].pointer(to[i].Off+at), b.from[i].pointer(from[i].Off+at), n, l.stream)
	})
}

// batch is the segments of a batch's ranges, held.
type batch struct {
	ranges   []device.Range // that are written
	to, from []*Segment
}

// batch checks all ranges and holds their segments until the function that it returns is called.
// from is nil or as long as to.
func (d *Driver) batch(what string, to, from []device.Range) (b *batch, done func(), err error) {
	fail := func(err error) (*batch, func(), error) { return nil, nil, fmt.Errorf("%s: %w", what, err) }
	if from != nil && len(from) != len(to) {
		return fail(fmt.Errorf("from %d ranges to %d: %w", len(from), len(to), device.ErrRange))
	}
	b = &batch{ranges: to}
	if b.to, err = d.ownAll(to); err != nil {
		return fail(err)
	}
	if b.from, err = d.ownAll(from); err != nil {
		return fail(err)
	}
	if err := d.enter(); err != nil {
		return fail(err)
	}
	for _, s := range b.to {
		if err := d.complete(s); err != nil {
			d.leave()
			return fail(err)
		}
	}
	done = b.hold(d)
	if err := b.check(what, from); err != nil {
		done()
		return fail(err)
	}
	return b, done, nil
}

func (d *Driver) ownAll(ranges []device.Range) ([]*Segment, error) {
	var out []*Segment
	for _, r := range ranges {
		s, err := d.own(r.Segment)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// hold holds every segment once, all batches in one order: who waits for the end of one is then
// never waited for by another.
func (b *batch) hold(d *Driver) (done func()) {
	all := slices.Concat(b.to, b.from)
	slices.SortFunc(all, func(a, b *Segment) int { return cmp.Compare(a.at, b.at) })
	all = slices.Compact(all)
	for _, s := range all {
		s.use.RLock()
	}
	return func() {
		for _, s := range all {
			s.use.RUnlock()
		}
		d.leave()
	}
}

func (b *batch) check(what string, from []device.Range) error {
	for i, r := range b.ranges {
		s := b.to[i]
		if err := s.usable(); err != nil {
			return err
		}
		if s.Sealed() {
			return device.ErrSealed
		}
		if err := s.rangeOK(what, r.Off, r.Bytes); err != nil {
			return err
		}
	}
	for i, f := range from {
		if err := b.from[i].usable(); err != nil {
			return err
		}
		if err := b.from[i].rangeOK(what+" from", f.Off, f.Bytes); err != nil {
			return err
		}
		if f.Bytes != b.ranges[i].Bytes {
			return fmt.Errorf("%d bytes to %d: %w", f.Bytes, b.ranges[i].Bytes, device.ErrRange)
		}
		for _, t := range b.ranges {
			if f.Segment == t.Segment && f.Off < t.Off+t.Bytes && t.Off < f.Off+f.Bytes {
				return fmt.Errorf("range %d is read and written: %w", i, device.ErrRange)
			}
		}
	}
	return nil
}

// batched has one lane give all of a batch to its stream, and waits for a part only when the one
// after it is there.
func (d *Driver) batched(ctx context.Context, what string, b *batch, did func(n int64), give func(l *lane, i int, at, n int64) error) error {
	fresh := make([][]cover.Span, len(b.ranges))
	for i, r := range b.ranges {
		fresh[i] = b.to[i].cover.Claim(r.Off, r.Bytes)
	}
	var stopped error
	err := d.lanes.with(func(l *lane) error {
		var sum int64 // bytes given since the last part
		end := func(err error) error { return errors.Join(err, l.cu.Sync(l.stream), l.drain()) }
		send := func() error {
			if sum == 0 {
				return nil
			}
			c, err := l.turned(did)
			if err == nil {
				c.n = sum
				err = l.sentLong(c)
			}
			sum = 0
			return err
		}
		for i, r := range b.ranges {
			for at := int64(0); at < r.Bytes; {
				if stopped = ctx.Err(); stopped != nil {
					return end(nil)
				}
				n := min(r.Bytes-at, batchBytes-sum)
				if err := give(l, i, at, n); err != nil {
					return end(err)
				}
				at, sum = at+n, sum+n
				if sum == batchBytes {
					if err := send(); err != nil {
						return end(err)
					}
				}
			}
		}
		if err := send(); err != nil {
			return end(err)
		}
		// The last part is waited for without sleep: it is what the command waits for.
		if l.chunks[l.turn].busy {
			if _, err := l.turned(did); err != nil {
				return end(err)
			}
		}
		if err := l.cu.Sync(l.stream); err != nil {
			return end(err)
		}
		for range l.chunks {
			if _, err := l.turned(did); err != nil {
				return end(err)
			}
		}
		return nil
	})
	if err == nil && stopped == nil {
		return nil
	}
	for i, r := range b.ranges { // all of it may lack
		b.to[i].cover.Disclaim(fresh[i], r.Off)
	}
	if err == nil {
		return fmt.Errorf("%s: %w", what, stopped)
	}
	return d.told(what, err)
}

// turned is chunk, and tells of the bytes that were under way with it.
func (l *lane) turned(did func(n int64)) (*chunk, error) {
	busy := l.chunks[l.turn].busy
	c, err := l.chunk()
	if err == nil && busy {
		did(c.n)
	}
	return c, err
}
