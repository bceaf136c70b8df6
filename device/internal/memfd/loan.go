//go:build linux

package memfd

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

var _ device.Lender = (*Segment)(nil)

// populates tells whether this kernel makes pages of a mapping without touching them (Linux
// 5.14).
func populates() bool {
	b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Munmap(b) }()
	return unix.Madvise(b, unix.MADV_POPULATE_WRITE) == nil
}

// loan is a window on a segment that somebody else uses; it implements device.Loan.
type loan struct {
	s        *Segment
	w        window
	lo       int64 // where in the segment the window begins
	off      int64 // where the lent bytes begin in it
	bytes    []byte
	write    bool // lent for it
	whole    bool // entrusted memory that is mapped for writing
	returned sync.Once
	end      func()
}

// Lends implements device.Lender. Sparse segments are not lent: who pins them would make pages
// that nobody has written.
func (s *Segment) Lends() bool { return s.store.lends }

// Lend implements device.Lender.
func (s *Segment) Lend(off, n int64, m device.Mode) (device.Loan, error) {
	begin, prot := s.store.shared, unix.PROT_READ
	if m == device.ReadWrite {
		begin, prot = s.store.writable, unix.PROT_READ|unix.PROT_WRITE
	}
	_, done, err := begin(s)
	if err != nil {
		return nil, fmt.Errorf("lend: %w", err)
	}
	if m != device.ReadWrite {
		s.settle()
	}
	l, err := s.lend(off, n, prot)
	if err != nil {
		done()
		return nil, fmt.Errorf("lend: %w", err)
	}
	l.write = m == device.ReadWrite
	l.end = func() {
		if l.write {
			_ = s.measure() // it fails only for a closed descriptor
		}
		done()
	}
	return l, nil
}

func (s *Segment) lend(off, n int64, prot int) (*loan, error) {
	if !s.Lends() {
		return nil, fmt.Errorf("%w: its memory cannot be lent", device.ErrUnsupported)
	}
	if err := s.rangeOK("lend", off, n); err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("lend no bytes: %w", device.ErrRange)
	}
	// Whole huge pages, so that they can be made and are mapped as such.
	unit, align := int64(os.Getpagesize()), int64(0)
	if p := s.store.pager; p.way != noHuge && s.bytes >= p.hugeBytes {
		unit, align = p.hugeBytes, p.hugeBytes
	}
	lo := off / unit * unit
	hi := min((off+n+unit-1)/unit*unit, s.bytes)
	w, err := s.window(lo, hi-lo, align, prot)
	if err != nil {
		return nil, err
	}
	return &loan{s: s, w: w, lo: lo, off: off, bytes: w.bytes[off-lo:][:n:n]}, nil
}

// Backing implements device.Lender.
func (s *Segment) Backing() any { return s.body }

// Entrust implements device.Lender.
func (s *Segment) Entrust(recall func()) (device.Loan, error) {
	_, done, err := s.store.shared(s)
	if err != nil {
		return nil, fmt.Errorf("entrust: %w", err)
	}
	defer done()
	if !s.weights {
		return nil, fmt.Errorf("entrust: %w", device.ErrNotSealed)
	}
	l, err := s.lend(0, s.bytes, unix.PROT_READ)
	if err != nil {
		return nil, fmt.Errorf("entrust: %w", err)
	}
	l.whole = s.body.whole.bytes != nil
	l.end = func() { s.body.entrusted.drop(l) }
	if !s.body.entrusted.add(l, recall) {
		l.w.close()
		return nil, fmt.Errorf("entrust: %w", device.ErrDestroyed)
	}
	return l, nil
}

// Bytes implements device.Loan.
func (l *loan) Bytes() []byte { return l.bytes }

// Writes implements device.Loan.
func (l *loan) Writes() bool { return l.write || l.whole }

// Return implements device.Loan.
func (l *loan) Return() {
	l.returned.Do(func() {
		l.w.close()
		l.end()
	})
}

// Ready implements device.Loan. Pages of weights are made here, as Fill makes them; scratch has
// had its pages since it was created.
func (l *loan) Ready(off, n int64) error {
	st, page := l.s.store, int64(os.Getpagesize())
	if off < 0 || n < 0 || n > int64(len(l.bytes))-off {
		return fmt.Errorf("make %d bytes at %d of a loan of %d ready: %w", n, off, len(l.bytes), device.ErrRange)
	}
	if n == 0 || !l.write {
		return nil
	}
	l.s.cover.Claim(l.off+off, n)
	if l.s.body.worn {
		return nil // its pages are there, since nobody can take them away
	}
	// From here on off counts from the window's beginning.
	off += l.off - l.lo
	if l.s.weights {
		if err := st.roomFor(n); err != nil {
			return err
		}
		if p := st.pager; p.way != noHuge {
			whole := int64(len(l.w.bytes)) / p.hugeBytes * p.hugeBytes
			lo, hi := off/p.hugeBytes*p.hugeBytes, min((off+n+p.hugeBytes-1)/p.hugeBytes*p.hugeBytes, whole)
			if lo < hi {
				p.makeManyIn(l.s.file, l.w.bytes[lo:hi], l.lo+lo) // what does not come is small pages
			}
		}
	}
	lo := off / page * page
	err := unix.Madvise(l.w.bytes[lo:min((off+n+page-1)/page*page, int64(len(l.w.bytes)))], unix.MADV_POPULATE_WRITE)
	if errors.Is(err, unix.EFAULT) {
		err = fmt.Errorf("%w (kernel: %w)", device.ErrOutOfMemory, err)
	}
	if err != nil {
		return fmt.Errorf("populate a loan: %w", noRoom(err))
	}
	return nil
}

// entrusted are the loans of a segment that end with it. The zero value is ready.
type entrusted struct {
	mu    sync.Mutex
	list  map[*loan]func()
	ended bool
}

// add is false once the segment ends.
func (e *entrusted) add(l *loan, recall func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return false
	}
	if e.list == nil {
		e.list = map[*loan]func(){}
	}
	e.list[l] = recall
	return true
}

func (e *entrusted) drop(l *loan) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.list, l)
}

// recall has all loans returned, and lets nobody have another.
func (e *entrusted) recall() {
	e.mu.Lock()
	list := e.list
	e.list, e.ended = nil, true
	e.mu.Unlock()
	for _, recall := range list {
		recall()
	}
}
