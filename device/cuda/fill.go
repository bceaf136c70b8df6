//go:build linux

package cuda

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// Fill implements device.Driver. One call uses every copy thread that nobody else wants; each
// reads a chunk of the file while the one before is on its way to the GPU.
func (d *Driver) Fill(ctx context.Context, ds device.Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	s, done, err := d.writable("fill", ds)
	if err != nil {
		return 0, err
	}
	defer done()
	if err := s.rangeOK("fill", off, n); err != nil {
		return 0, err
	}
	if fileOff < 0 {
		return 0, fmt.Errorf("fill from offset %d of the file: %w", fileOff, device.ErrRange)
	}
	if n == 0 {
		return 0, nil
	}
	w := &filling{ctx: ctx, file: f, fileOff: fileOff, to: s.pointer(off), n: n, step: int64(d.c.ChunkBytes), crowded: d.lanes.crowded}
	first, err := d.lanes.take()
	if err != nil {
		return 0, d.told("fill", err)
	}
	run := func(l *lane, extra bool) {
		defer d.lanes.put(l)
		_ = l.thread.do(func() error { w.run(l, extra); return nil }) // w has the error
	}
	var group sync.WaitGroup
	for pieces := (n - 1) / w.step; pieces > 0; pieces-- {
		l := d.lanes.spare()
		if l == nil {
			break
		}
		group.Go(func() { run(l, true) })
	}
	run(first, false)
	group.Wait()
	var failed *api.Error
	switch {
	case w.err == nil:
		return n, nil
	case errors.As(w.err, &failed):
		return min(w.failed, w.next), d.told("fill", w.err)
	default:
		return min(w.failed, w.next), fmt.Errorf("fill: %w", w.err)
	}
}

// filling is one Fill under way on several lanes.
type filling struct {
	file    *os.File
	fileOff int64
	to      api.Pointer
	n, step int64
	crowded func() bool

	mu     sync.Mutex
	ctx    context.Context // looked at under mu alone
	next   int64           // where the next piece begins
	failed int64           // the first byte that is not there; of meaning with err
	err    error
}

// take gives the next piece; an extra lane goes where others wait for it.
func (w *filling) take(extra bool) (at, n int64, ok bool) {
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
func (w *filling) fail(at int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil || at < w.failed {
		w.err, w.failed = err, at
	}
}

// run does pieces until there are no more. It runs on the lane's thread.
func (w *filling) run(l *lane, extra bool) {
	for {
		at, n, ok := w.take(extra)
		if !ok {
			break
		}
		c, err := l.chunk()
		if err != nil {
			w.fail(c.at, err)
			w.fail(at, err)
			break
		}
		got, short := w.file.ReadAt(c.host[:n], w.fileOff+at)
		if got > 0 {
			c.at = at
			if err := l.push(c, w.to+api.Pointer(at), got); err != nil {
				w.fail(at, err)
				break
			}
		}
		if int64(got) < n {
			if errors.Is(short, io.EOF) {
				short = io.ErrUnexpectedEOF
			}
			w.fail(at+int64(got), short)
			break
		}
	}
	for i := range l.chunks {
		c := &l.chunks[i]
		if err := l.settle(c); err != nil {
			w.fail(c.at, err)
		}
	}
}
