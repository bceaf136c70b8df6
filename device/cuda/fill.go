//go:build linux

package cuda

import (
	"context"
	"fmt"
	"os"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// Fill implements device.Driver. One call uses every copy thread that nobody else wants; each
// reads a chunk of the file while the one before is on its way to the GPU. What is not in the
// page cache is read past it.
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
	from := newSource(f)
	defer from.close()
	return d.fill(ctx, "fill", s, off, from, fileOff, n)
}

// fill reads a source into a segment on all lanes that are to be had.
func (d *Driver) fill(ctx context.Context, what string, s *Segment, off int64, from *source, fromOff, n int64) (int64, error) {
	w := &filling{spread: d.spread(ctx, n, int64(d.c.ChunkBytes)), d: d, from: from, fromOff: fromOff, to: s.pointer(off)}
	w.slow = slowPieces
	return s.write(off, n, func() (int64, error) { return d.run(what, &w.spread, w.pieces) })
}

// slowPieces is how many pieces of a Fill are small at first. Lanes that all read a whole chunk come
// to the link with it at the same time, and leave it idle till then: 1.3 ms of a load's 103 (an
// H100, twelve lanes, 2026-11-22).
const slowPieces = 3

// filling is one Fill under way on several lanes.
type filling struct {
	spread
	d       *Driver
	from    *source
	fromOff int64
	to      api.Pointer
}

// pieces does pieces until there are no more. It runs on the lane's thread.
func (w *filling) pieces(l *lane, extra bool) {
	w.inPlace(l, extra)
	for {
		at, n, ok := w.take(extra, w.step)
		if !ok || !w.piece(l, at, n) {
			break
		}
	}
	w.settle(l)
}

// piece reads one piece and sends it; false if that failed.
func (w *filling) piece(l *lane, at, n int64) bool {
	c, err := l.chunk()
	if err != nil {
		w.fail(c.at, err)
		w.fail(at, err)
		return false
	}
	b, short := w.from.read(c.room, w.fromOff+at, n)
	if len(b) > 0 {
		c.at = at
		if err := l.push(c, w.to+api.Pointer(at), b); err != nil {
			w.fail(at, err)
			return false
		}
	}
	if short != nil {
		w.fail(at+int64(len(b)), short)
		return false
	}
	return true
}
