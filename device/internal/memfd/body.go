//go:build linux

package memfd

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device/internal/cover"
)

// body is the memory of a segment: its file, and what of this process is at it. That of weights
// may outlive its segment and become another's; see stock.
type body struct {
	file  *os.File
	id    fileID
	bytes int64
	// whole maps all of it for writing, where it may be used again; else it is empty. It is made
	// before the file is sealed, and stays.
	whole window
	// worn is set once it has been sealed: nothing but whole writes to it any more.
	worn      bool
	entrusted entrusted
}

// end gives the memory back, once nobody uses it any more.
func (b *body) end() error {
	b.entrusted.recall()
	b.whole.close()
	if err := b.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// window maps n bytes from off, page by page; align is as in openWindow.
func (s *Segment) window(off, n, align int64, prot int) (window, error) {
	if whole := s.body.whole.bytes; whole != nil {
		return window{bytes: whole[off:][:n:n]}, nil
	}
	return openWindow(s.file, off, n, align, prot)
}

// writeAt writes all of b.
func (s *Segment) writeAt(b []byte, off int64) error {
	if s.body.worn {
		copy(s.body.whole.bytes[off:], b)
		return nil
	}
	if _, err := s.file.WriteAt(b, off); err != nil {
		return fmt.Errorf("write: %w", noRoom(err))
	}
	return nil
}

// write runs what writes n bytes from off on, all or, as far as is known, nothing.
func (s *Segment) write(off, n int64, do func() error) error {
	fresh := s.cover.Claim(off, n)
	err := do()
	if err != nil {
		s.cover.Disclaim(fresh, off)
	}
	return err
}

// settle sets to zero what nobody has written of memory that had been another segment's.
func (s *Segment) settle() {
	_ = s.cover.Close(func(gaps []cover.Span) error { // nothing of it can fail
		for _, g := range gaps {
			clear(s.body.whole.bytes[g.At:g.End])
		}
		return nil
	})
}

// keepWhole maps memory that may be used again. Without it the memory is used once.
func (b *body) keepWhole(hugeBytes int64) {
	align := int64(0)
	if hugeBytes > 0 && b.bytes >= hugeBytes {
		align = hugeBytes
	}
	if w, err := openWindow(b.file, 0, b.bytes, align, unix.PROT_READ|unix.PROT_WRITE); err == nil {
		b.whole = w
	}
}
