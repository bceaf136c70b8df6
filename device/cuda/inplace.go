//go:build linux

package cuda

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// Reading a file that is in the page cache costs the processor a copy into pinned memory, and on
// a machine with few processors that is what a load waits for. The cache's pages can be copied
// from in place as well: mapped, registered, and let go of after the copy. That costs little
// processor time, but calls of the driver that all its others wait for: registering and letting go
// of 4 GiB takes 90 ms each. So one lane of a device does that, and all others read, where there
// are too few processors to read as fast.
//
// Measured on an H100 with 16 processors (2026-11-22, docs/benchmarks), 4 GiB, GB/s, without and
// with a lane that copies in place: sixteen lanes 50 and 35, eight 45 and 27, one with in place
// alone 18. Four lanes without reach 25.

// enoughToRead is from how many processors on reading alone is the faster.
const enoughToRead = 4

// inPlace does pieces in place until there are no more or it cannot be done. It runs on the lane's
// thread.
func (w *filling) inPlace(l *lane, extra bool) {
	step := w.d.c.InPlaceBytes
	if step <= 0 || !w.d.pinsFiles {
		return
	}
	select {
	case w.d.direct <- struct{}{}:
		defer func() { <-w.d.direct }()
	default:
		return // another lane does
	}
	for !w.from.stuck.Load() {
		next, left := w.ahead()
		if left < step || !w.from.cached(w.fromOff+next, step) {
			return
		}
		at, n, ok := w.take(extra, step) // or what comes after, if another lane was faster
		if !ok {
			return
		}
		sent, err := w.pinned(l, at, n)
		if err != nil {
			w.fail(at, err)
			return
		}
		if sent {
			continue
		}
		for end := at + n; at < end; at += w.step {
			if !w.piece(l, at, min(w.step, end-at)) {
				return
			}
		}
	}
}

// pinned sends a piece from where it lies in the page cache; false if it has to be read, which
// says better what is wrong with it. An error is that of a copy.
func (w *filling) pinned(l *lane, at, n int64) (sent bool, err error) {
	c, err := l.chunk()
	if err != nil {
		w.fail(c.at, err)
		return false, err
	}
	lo := (w.fromOff + at) / pageBytes * pageBytes
	skip := w.fromOff + at - lo
	var window []byte
	err = w.from.control(func(fd int) (err error) {
		window, err = unix.Mmap(fd, lo, int(skip+n), unix.PROT_READ, unix.MAP_SHARED)
		return err
	})
	if err == nil {
		if err = w.d.cu.RegisterReadOnly(window); err != nil {
			err = errors.Join(err, unix.Munmap(window))
		}
	}
	if err != nil {
		w.from.stuck.Store(true) // this file is not to be had so: nobody need try again
		return false, nil
	}
	c.at, c.window = at, window
	err = l.cu.ToDevice(w.to+api.Pointer(at), window[skip:], l.stream)
	if err == nil {
		err = l.sent(c)
	}
	if err != nil {
		return false, errors.Join(err, l.cu.Sync(l.stream), l.unpin(c))
	}
	return true, nil
}

// pageBytes is what the offset of a mapping must be a multiple of.
var pageBytes = int64(os.Getpagesize())

// unpin lets go of the page cache's memory that a chunk was copied from. What the driver does not
// let go of stays mapped, lest other memory come to lie there.
func (l *lane) unpin(c *chunk) error {
	window := c.window
	if window == nil {
		return nil
	}
	c.window = nil
	if err := l.cu.Unregister(window); err != nil {
		return err
	}
	return unix.Munmap(window)
}
