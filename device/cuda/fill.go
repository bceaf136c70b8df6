//go:build linux

package cuda

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
	return d.fill(ctx, "fill", s, off, f, fileOff, n)
}

// fill reads a file, or main memory that looks like one, into a segment on all lanes that are
// to be had.
func (d *Driver) fill(ctx context.Context, what string, s *Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	w := &filling{spread: d.spread(ctx, n), file: f, fileOff: fileOff, to: s.pointer(off)}
	return s.write(off, n, func() (int64, error) { return d.run(what, &w.spread, w.run) })
}

// filling is one Fill under way on several lanes.
type filling struct {
	spread
	file    *os.File
	fileOff int64
	to      api.Pointer
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
	w.settle(l)
}
