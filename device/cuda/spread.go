//go:build linux

package cuda

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// spread is a range of bytes that several lanes move, piece by piece.
type spread struct {
	n, step int64
	crowded func() bool
	// slow is how many of the first pieces are smaller than a step, each larger than the one before.
	slow int

	mu     sync.Mutex
	ctx    context.Context // looked at under mu alone
	next   int64           // where the next piece begins
	taken  int             // pieces
	failed int64           // the first byte that is not there; of meaning with err
	err    error

	work   func(l *lane, extra bool)
	extras sync.WaitGroup // lanes beside the first
}

// spread is of pieces of so many bytes.
func (d *Driver) spread(ctx context.Context, n, step int64) spread {
	return spread{ctx: ctx, n: n, step: step, crowded: d.lanes.crowded}
}

// more tells whether there is something to do yet.
func (w *spread) more() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err == nil && w.next < w.n
}

// join counts an extra lane in, if there is something for it to do. The first lane is there as
// long as there is.
func (w *spread) join() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.next == w.n {
		return false
	}
	w.extras.Add(1)
	return true
}

// run has work done by one lane, for which it waits, and by all that nobody else wants, also
// such as become free meanwhile. It returns how many bytes from the beginning are there.
func (d *Driver) run(what string, w *spread, work func(l *lane, extra bool)) (int64, error) {
	first, err := d.lanes.take()
	if err != nil {
		return 0, d.told(what, err)
	}
	d.moving.begin()
	defer d.moving.end()
	w.work = work
	d.lanes.enlist(w)
	// Making a lane takes milliseconds, in which the first has begun.
	w.extras.Go(func() {
		for pieces := (w.n - 1) / w.step; pieces > 0 && w.more(); pieces-- {
			l := d.lanes.spare()
			if l == nil {
				return
			}
			d.lanes.put(l) // it comes back to us, or to somebody in greater need
		}
	})
	_ = first.thread.do(func() error { work(first, false); return nil }) // w has the error
	d.lanes.put(first)
	d.lanes.discharge(w)
	w.extras.Wait()
	var failed *api.Error
	switch {
	case w.err == nil:
		return w.n, nil
	case errors.As(w.err, &failed):
		return min(w.failed, w.next), d.told(what, w.err)
	default:
		return min(w.failed, w.next), fmt.Errorf("%s: %w", what, w.err)
	}
}

// ahead is where the next piece begins, and how much nobody has taken yet.
func (w *spread) ahead() (next, left int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next, w.n - w.next
}

// take gives the next piece, of at most so many bytes; an extra lane goes where others wait for it.
func (w *spread) take(extra bool, most int64) (at, n int64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.next == w.n || extra && w.crowded() {
		return 0, 0, false
	}
	if err := w.ctx.Err(); err != nil {
		w.err, w.failed = err, w.next
		return 0, 0, false
	}
	if w.taken < w.slow && most <= w.step {
		most = max(blockBytes, most*int64(w.taken+1)/int64(w.slow+1)/blockBytes*blockBytes)
	}
	w.taken++
	at, n = w.next, min(most, w.n-w.next)
	w.next += n
	return at, n, true
}

// fail notes the first byte that is missing, and why.
func (w *spread) fail(at int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil || at < w.failed {
		w.err, w.failed = err, at
	}
}

// settle waits for what a lane has under way; its chunks know where they belong.
func (w *spread) settle(l *lane) {
	for i := range l.chunks {
		c := &l.chunks[i]
		if err := l.settle(c); err != nil {
			w.fail(c.at, err)
		}
	}
}
