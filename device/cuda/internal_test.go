//go:build linux

package cuda

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// Pieces fail in any order; what counts as filled ends at the first byte that is not there.
func TestFillEndsAtTheFirstGap(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	w := &spread{next: 16}
	w.fail(8, second)
	w.fail(4, first)
	w.fail(12, second)
	if w.failed != 4 || !errors.Is(w.err, first) {
		t.Errorf("filled to %d with %v, want 4 with the error of that piece", w.failed, w.err)
	}
}

// A descriptor is known again, as a duplicate too where the kernel can compare them.
func TestDescriptionsAreKnownAgain(t *testing.T) {
	open := func() *Segment {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return &Segment{file: f}
	}
	duplicate := func(s *Segment) *Segment {
		fd, err := unix.FcntlInt(s.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "duplicate")
		t.Cleanup(func() { _ = f.Close() })
		return &Segment{file: f}
	}
	for _, unordered := range []bool{false, true} {
		ds := descriptions{unordered: unordered}
		var list []*Segment
		for range 20 {
			s := open()
			list = append(list, s)
			if err := ds.add(s); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range list {
			if err := ds.add(&Segment{file: s.file}); !errors.Is(err, device.ErrMismatch) {
				t.Errorf("the same descriptor again: %v", err)
			}
			if err := ds.add(duplicate(s)); !ds.unordered && !errors.Is(err, device.ErrMismatch) {
				t.Errorf("a duplicate: %v", err)
			}
		}
		ds.remove(list[3])
		if err := ds.add(list[3]); err != nil {
			t.Errorf("removed, and added again: %v", err)
		}
	}
}
