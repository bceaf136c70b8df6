//go:build linux

package memfd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// smallBytes is where mapping begins to pay: below it one or a few system calls
// on a buffer are faster, and disturb no other thread's address space.
const smallBytes = 256 << 10

// buffer gets a scratch buffer of smallBytes.
func (st *Store) buffer() *[]byte {
	if b, ok := st.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, smallBytes)
	return &b
}

// Fill implements the driver's Fill.
//
// Where huge pages can be had, each is made just before the file is read into it;
// else the file goes through a small buffer into pages that the kernel
// makes on writing and, as they are written whole, need not zero.
//
// Measured on a small machine (2 cores, Linux 6.18), 2026-11, a cached file of
// 1 GiB into a fresh memfd, everything counted, medians of interleaved runs in
// GB/s with one and two threads: huge pages made and read into one by one 3.8 and
// 6.2, by 16 MiB 3.6 and 6.9; all made first and then read, the bare loop, 3.2 and
// 5.9; small pages
// populated and then read 1.8 and 2.7; buffer and pwrite 2.5 and 2.7; sendfile 3.2
// and 3.0 (it holds the file's lock while it copies, so that threads queue up). On a
// machine busy with other work one by one was the best of the steps (2, 4, 16 MiB):
// 0.97 to 1.24 of the bare loop. BenchmarkLoad of package hostram repeats this.
func (st *Store) Fill(ctx context.Context, ds device.Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	s, done, err := st.writable(ds)
	if err != nil {
		return 0, fmt.Errorf("fill: %w", err)
	}
	defer done()
	if err := s.rangeOK("fill", off, n); err != nil {
		return 0, err
	}
	if fileOff < 0 {
		return 0, fmt.Errorf("fill from offset %d of the file: %w", fileOff, device.ErrRange)
	}
	var total int64
	for total < n && err == nil {
		if err = ctx.Err(); err != nil {
			break
		}
		at := off + total
		// Chunks end where the segment's own do, so that parallel fills rarely meet
		// in one huge page.
		part := min(n-total, chunkBytes-at%chunkBytes)
		if err = st.roomFor(part); err != nil {
			break
		}
		var got int64
		fresh := s.cover.Claim(at, part)
		if got, err = st.fillChunk(s, at, f, fileOff+total, part); got < part {
			s.cover.Disclaim(fresh, at+got)
		}
		total += got
	}
	if err != nil {
		err = fmt.Errorf("fill: %w", err)
	}
	return total, errors.Join(err, s.measure())
}

func (st *Store) fillChunk(s *Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	if s.body.worn {
		return readFull(f, s.body.whole.bytes[off:][:n], fileOff)
	}
	var total int64
	if huge := st.pager.hugeBytes; st.pager.way != noHuge {
		lo, hi := off/huge*huge, (off+n+huge-1)/huge*huge
		if hi > s.bytes { // the segment's tail is too short for a huge page
			hi = s.bytes / huge * huge
		}
		if hi > off {
			var err error
			if total, err = st.fillHuge(s, lo, hi, off, f, fileOff, min(n, hi-off)); err != nil {
				return total, err
			}
		}
	}
	rest, err := st.fillBuffered(s, off+total, f, fileOff+total, n-total)
	return total + rest, err
}

// fillHuge fills n bytes from off inside the huge pages of [lo, hi), making each
// page just before it is read into, while its zeroes are still in the processor's
// cache. Where pages cannot be had it stops, without an error: the rest takes the
// other way.
func (st *Store) fillHuge(s *Segment, lo, hi, off int64, f *os.File, fileOff, n int64) (total int64, err error) {
	w, err := s.window(lo, hi-lo, st.pager.hugeBytes, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return 0, nil // short of address space, not of memory: a buffer will do
	}
	defer w.close()
	for at := lo; at < hi && total < n; at += st.pager.hugeBytes {
		end := at + st.pager.hugeBytes
		if !st.pager.makeHugeIn(s.file, w.bytes[at-lo:end-lo], at) {
			return total, nil
		}
		from := off + total
		part := min(n-total, end-from)
		got, err := readFull(f, w.bytes[from-lo:][:part], fileOff+total)
		total += got
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (st *Store) fillBuffered(s *Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	buf := st.buffer()
	defer st.buffers.Put(buf)
	var total int64
	for total < n {
		b := (*buf)[:min(int64(len(*buf)), n-total)]
		got, err := readFull(f, b, fileOff+total)
		if errW := s.writeAt(b[:got], off+total); errW != nil {
			return total, errW
		}
		total += got
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// readFull reads exactly len(b) bytes; a file that ends before is
// io.ErrUnexpectedEOF.
func readFull(f *os.File, b []byte, off int64) (int64, error) {
	n, err := f.ReadAt(b, off)
	if errors.Is(err, io.EOF) && n < len(b) {
		return int64(n), fmt.Errorf("read %s at %d: %w", f.Name(), off+int64(n), io.ErrUnexpectedEOF)
	}
	if n == len(b) {
		err = nil
	}
	return int64(n), err
}

// writable begins shared work that writes.
func (st *Store) writable(ds device.Segment) (*Segment, func(), error) {
	s, done, err := st.shared(ds)
	if err == nil && s.Sealed() {
		done()
		err = device.ErrSealed
	}
	return s, done, err
}

// Clear implements the driver's Clear.
//
// Measured as above, 64 MiB of present pages: a populated window and memclr 5 ms
// on huge pages and 8 to 13 ms on small ones; pwrite of zeroes 9 and 14 ms. Punching
// and populating anew, 10 to 17 ms, is never done: a registered or mapped page must
// stay the page it is.
func (st *Store) Clear(ds device.Segment, off, n int64, value byte) error {
	s, done, err := st.writable(ds)
	if err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	defer done()
	if err := s.rangeOK("clear", off, n); err != nil {
		return err
	}
	if err := s.write(off, n, func() error { return st.clearRange(s, off, n, value) }); err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	return s.measure()
}

func (st *Store) clearRange(s *Segment, off, n int64, value byte) error {
	if st.c.Sparse && value == 0 {
		// Pages that nobody touched are zero already, and should not come to be.
		return extents(s.file, off, n, func(data bool, off, n int64) error {
			if !data {
				return nil
			}
			return st.clearBuffered(s, off, n, 0)
		})
	}
	if st.c.Sparse || n < smallBytes {
		return st.clearBuffered(s, off, n, value)
	}
	return chunks(n, func(at, n int64) error {
		v, err := st.view(s, off+at, n, true)
		if errors.Is(err, errNoPopulate) {
			return st.clearBuffered(s, off+at, n, value)
		}
		if err != nil {
			return err
		}
		defer v.close()
		set(v.bytes, value)
		return nil
	})
}

func (st *Store) clearBuffered(s *Segment, off, n int64, value byte) error {
	buf := st.buffer()
	defer st.buffers.Put(buf)
	set((*buf)[:min(n, smallBytes)], value)
	for n > 0 {
		b := (*buf)[:min(n, smallBytes)]
		if err := s.writeAt(b, off); err != nil {
			return err
		}
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// Copy implements the driver's Copy.
func (st *Store) Copy(dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	d, doneDst, err := st.writable(dst)
	if err != nil {
		return fmt.Errorf("copy, target: %w", err)
	}
	defer doneDst()
	s := d
	if src != dst { // a second shared hold of one lock could wait for itself
		var doneSrc func()
		if s, doneSrc, err = st.shared(src); err != nil {
			return fmt.Errorf("copy, source: %w", err)
		}
		defer doneSrc()
	}
	if err := errors.Join(d.rangeOK("copy to", dstOff, n), s.rangeOK("copy from", srcOff, n)); err != nil {
		return err
	}
	if s == d && srcOff < dstOff+n && dstOff < srcOff+n {
		return fmt.Errorf("copy %d bytes from %d to %d in one segment, overlapping: %w", n, srcOff, dstOff, device.ErrRange)
	}
	s.settle()
	if err := d.write(dstOff, n, func() error { return st.copyRange(d, dstOff, s, srcOff, n) }); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return d.measure()
}

func (st *Store) copyRange(d *Segment, dstOff int64, s *Segment, srcOff, n int64) error {
	if st.c.Sparse {
		return extents(s.file, srcOff, n, func(data bool, off, n int64) error {
			to := dstOff + off - srcOff
			if !data {
				return st.clearRange(d, to, n, 0)
			}
			_, err := st.fillBuffered(d, to, s.file, off, n)
			return err
		})
	}
	if n < smallBytes {
		_, err := st.fillBuffered(d, dstOff, s.file, srcOff, n)
		return err
	}
	return chunks(n, func(at, n int64) error {
		from, err := st.view(s, srcOff+at, n, false)
		if err == nil {
			defer from.close()
			var to view
			if to, err = st.view(d, dstOff+at, n, true); err == nil {
				defer to.close()
				copy(to.bytes, from.bytes)
				return nil
			}
		}
		if errors.Is(err, errNoPopulate) {
			_, err = st.fillBuffered(d, dstOff+at, s.file, srcOff+at, n)
		}
		return err
	})
}

// chunks calls do for n bytes in pieces.
func chunks(n int64, do func(at, n int64) error) error {
	for at := int64(0); at < n; at += chunkBytes {
		if err := do(at, min(chunkBytes, n-at)); err != nil {
			return err
		}
	}
	return nil
}

// errNoPopulate: this kernel cannot populate a window (before Linux 5.14), so that
// touching it might fault.
var errNoPopulate = errors.New("no MADV_POPULATE")

// view is a populated window on exactly the bytes asked for.
type view struct {
	window
	bytes []byte
}

// view maps and populates n bytes of s from off.
func (st *Store) view(s *Segment, off, n int64, write bool) (view, error) {
	prot, advice, align := unix.PROT_READ, unix.MADV_POPULATE_READ, int64(os.Getpagesize())
	if write {
		prot, advice = unix.PROT_READ|unix.PROT_WRITE, unix.MADV_POPULATE_WRITE
	}
	var huge int64
	if st.pager.way != noHuge && n >= st.pager.hugeBytes {
		// Aligned so that huge pages are mapped as such.
		huge = st.pager.hugeBytes
		align = huge
	}
	lo := off / align * align
	w, err := s.window(lo, off+n-lo, huge, prot)
	if err != nil {
		return view{}, err
	}
	if err := unix.Madvise(w.bytes[(off-lo)/int64(os.Getpagesize())*int64(os.Getpagesize()):], advice); err != nil {
		w.close()
		if errors.Is(err, unix.EINVAL) {
			return view{}, errNoPopulate
		}
		return view{}, fmt.Errorf("populate window: %w", noRoom(err))
	}
	return view{window: w, bytes: w.bytes[off-lo:]}, nil
}

// extents walks n bytes of f from off as runs of data and of holes.
func extents(f *os.File, off, n int64, visit func(data bool, off, n int64) error) error {
	defer runtime.KeepAlive(f)
	for end := off + n; off < end; {
		from, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			from, err = end, nil // only holes from here on
		}
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		if from = min(from, end); from > off {
			if err := visit(false, off, from-off); err != nil {
				return err
			}
		}
		if off = from; off == end {
			return nil
		}
		to, err := unix.Seek(int(f.Fd()), off, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("find hole: %w", err)
		}
		to = min(to, end)
		if err := visit(true, off, to-off); err != nil {
			return err
		}
		off = to
	}
	return nil
}
