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

	mu     sync.Mutex
	ctx    context.Context // looked at under mu alone
	next   int64           // where the next piece begins
	failed int64           // the first byte that is not there; of meaning with err
	err    error
}

func (d *Driver) spread(ctx context.Context, n int64) spread {
	return spread{ctx: ctx, n: n, step: int64(d.c.ChunkBytes), crowded: d.lanes.crowded}
}

// run has work done by one lane, for which it waits, and by all that nobody else wants. It
// returns how many bytes from the beginning are there.
func (d *Driver) run(what string, w *spread, work func(l *lane, extra bool)) (int64, error) {
	first, err := d.lanes.take()
	if err != nil {
		return 0, d.told(what, err)
	}
	on := func(l *lane, extra bool) {
		defer d.lanes.put(l)
		_ = l.thread.do(func() error { work(l, extra); return nil }) // w has the error
	}
	var group sync.WaitGroup
	for pieces := (w.n - 1) / w.step; pieces > 0; pieces-- {
		l := d.lanes.spare()
		if l == nil {
			break
		}
		group.Go(func() { on(l, true) })
	}
	on(first, false)
	group.Wait()
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

// take gives the next piece; an extra lane goes where others wait for it.
func (w *spread) take(extra bool) (at, n int64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.next == w.n || extra && w.crowded() {
		return 0, 0, false
	}
	if err := w.ctx.Err(); err != nil {
		w.err, w.failed = err, w.next
		return 0, 0, false
	}
	at, n = w.next, min(w.step, w.n-w.next)
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
