//go:build linux

package cuda

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// Bridges implements device.Bridge: main memory that can be lent, and other GPUs.
func (d *Driver) Bridges(ds device.Segment) bool {
	switch s := ds.(type) {
	case *Segment:
		return s != nil && s.d != d && s.d.cu == d.cu
	case device.Lender:
		return s.Lends()
	}
	return false
}

// Pull implements device.Bridge. Sealed weights in main memory are registered after they were
// pulled once, and from then on copied without the processor; else the lanes read them, as Fill
// reads a file.
func (d *Driver) Pull(ctx context.Context, dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	const what = "pull"
	if !d.Bridges(src) {
		return fmt.Errorf("%s: %w", what, device.ErrForeign)
	}
	to, done, err := d.writable(what, dst)
	if err != nil {
		return err
	}
	defer done()
	if err := errors.Join(to.rangeOK(what+" to", dstOff, n), rangeOK(what+" from", src.Bytes(), srcOff, n)); err != nil || n == 0 {
		return err
	}
	if from, ok := src.(*Segment); ok {
		_, err = to.write(dstOff, n, all(n, func() error { return d.fromPeer(ctx, to, dstOff, from, srcOff, n) }))
		return err
	}
	if p := d.warm.use(src.(device.Lender), srcOff+n); p != nil {
		defer p.done()
		_, err = to.write(dstOff, n, all(n, func() error { return d.fromWarm(ctx, to.pointer(dstOff), p, srcOff, n) }))
		return err
	}
	_, err = d.fill(ctx, what, to, dstOff, memory(src.File()), srcOff, n)
	if err == nil {
		d.Expect(src)
	}
	return err
}

// Push implements device.Bridge: a chunk arrives in pinned memory while the pages of the one
// before are made and written. Weights are registered as they come down.
func (d *Driver) Push(ctx context.Context, dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	const what = "push"
	if !d.Bridges(dst) {
		return fmt.Errorf("%s: %w", what, device.ErrForeign)
	}
	if to, ok := dst.(*Segment); ok {
		return to.d.Pull(ctx, dst, dstOff, src, srcOff, n)
	}
	from, done, err := d.begin(what, src)
	if err != nil {
		return err
	}
	defer done()
	if err := errors.Join(from.rangeOK(what+" from", srcOff, n), rangeOK(what+" to", dst.Bytes(), dstOff, n)); err != nil || n == 0 {
		return err
	}
	if err := d.settle(what, from); err != nil {
		return err
	}
	loan, err := dst.(device.Lender).Lend(dstOff, n, device.ReadWrite)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer loan.Return()
	if p := d.warm.use(dst.(device.Lender), dstOff+n); p != nil {
		defer p.done()
		if p.loan.Writes() {
			return d.toWarm(ctx, loan, p, dstOff, from.pointer(srcOff), n)
		}
	}
	w := &spilling{spread: d.spread(ctx, n, makeBytes), loan: loan, to: loan.Bytes(), from: from.pointer(srcOff), off: dstOff}
	w.warm = d.warm.follow(dst.(device.Lender))
	_, err = d.run(what, &w.spread, w.pieces)
	return err
}

// makeBytes is how much main memory a lane makes pages of at a time: making huge pages has the
// kernel ask all processors, once a call.
const makeBytes = 32 << 20

// spilling is one Push into main memory under way on several lanes.
type spilling struct {
	spread
	loan device.Loan
	to   []byte
	from api.Pointer
	off  int64   // where in its segment to begins
	warm *pinned // what is there is registered behind us; nil: it is not
}

// pieces does pieces until there are no more, chunk by chunk. It runs on the lane's thread.
func (w *spilling) pieces(l *lane, extra bool) {
	var before *chunk
	for {
		at, n, ok := w.take(extra, w.step)
		if !ok {
			break
		}
		for from, end := at, at+n; at < end; {
			c, err := l.chunk()
			if err == nil {
				c.at, c.n = at, min(end-at, int64(len(c.host)))
				if err = l.cu.ToHost(c.host[:c.n], w.from+api.Pointer(at), l.stream); err == nil {
					err = l.sent(c)
				}
			}
			if err == nil && at == from {
				err = w.loan.Ready(at, n) // while the bytes are on their way
			}
			if err == nil && before != nil {
				err = w.land(l, before)
				before = nil
			}
			if err != nil {
				w.fail(from, err)
				w.settle(l)
				return
			}
			before = c
			at += c.n
		}
	}
	if before != nil {
		if err := w.land(l, before); err != nil {
			w.fail(before.at, err)
		}
	}
	w.settle(l)
}

// land writes a chunk where it belongs, once it has arrived.
func (w *spilling) land(l *lane, c *chunk) error {
	if err := l.settle(c); err != nil {
		return err
	}
	copy(w.to[c.at:][:c.n], c.host)
	w.warm.arrived(w.off+c.at, c.n)
	return nil
}

// fromWarm copies registered memory to an address, registration by registration, of which two are
// under way. One takes the link a good millisecond, and so late the thread may be: with half of that
// the link stood still up to 14 times in 8.6 GB (an H100, 2026-11-22).
func (d *Driver) fromWarm(ctx context.Context, to api.Pointer, p *pinned, off, n int64) error {
	return d.stream(ctx, "pull", d.up, n, func(l *lane, at, n int64) (int64, error) {
		part := p.part(off+at, n)
		return int64(len(part)), d.cu.ToDevice(to+api.Pointer(at), part, l.stream)
	})
}

// toWarm copies from an address to registered memory, of which loan is the part from off on.
func (d *Driver) toWarm(ctx context.Context, loan device.Loan, p *pinned, off int64, from api.Pointer, n int64) error {
	return d.stream(ctx, "push", d.down, n, func(l *lane, at, n int64) (int64, error) {
		part := p.part(off+at, n)
		if err := loan.Ready(at, int64(len(part))); err != nil {
			return 0, err
		}
		return int64(len(part)), d.cu.ToHost(part, from+api.Pointer(at), l.stream)
	})
}

// way is a direction of the link, which one copy at a time fills: two that were given side by side
// took a tenth longer from main memory to an H100 than one after the other (2026-11-22). The next
// begins when the last part of the one before was given. nil is a way for all at once.
type way chan struct{}

func newWay() way { return make(way, 1) }

// enter waits for the way.
func (w way) enter(ctx context.Context) error {
	if w == nil {
		return nil
	}
	select {
	case w <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w way) leave() {
	if w != nil {
		<-w
	}
}

// stream has one lane give work for n bytes to its stream, part by part, with two under way.
// give says how many bytes of what is left it took.
func (d *Driver) stream(ctx context.Context, what string, w way, n int64, give func(l *lane, at, n int64) (int64, error)) error {
	d.moving.begin()
	defer d.moving.end()
	stopped := w.enter(ctx)
	if stopped != nil {
		return fmt.Errorf("%s: %w", what, stopped)
	}
	leave := sync.OnceFunc(w.leave)
	defer leave()
	err := d.lanes.with(func(l *lane) error {
		for at := int64(0); at < n; {
			if stopped = ctx.Err(); stopped != nil {
				break
			}
			c, err := l.chunk()
			var took int64
			if err == nil {
				took, err = give(l, at, n-at)
			}
			if err == nil {
				err = l.sentLong(c)
			}
			if err != nil {
				return errors.Join(err, l.drain())
			}
			at += took
		}
		leave()
		return l.drain()
	})
	if err == nil && stopped != nil {
		return fmt.Errorf("%s: %w", what, stopped)
	}
	return d.told(what, err)
}

// rangeOK checks that n bytes from off lie inside a segment of another driver.
func rangeOK(what string, bytes, off, n int64) error {
	if off < 0 || n < 0 || off > bytes || n > bytes-off {
		return fmt.Errorf("%s %d bytes at %d in a segment of %d: %w", what, n, off, bytes, device.ErrRange)
	}
	return nil
}
