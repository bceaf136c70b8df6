//go:build linux

package memfd

import (
	"fmt"

	"github.com/isobar-project/isobar/device"
)

// Read implements the driver's Read. pread copies what is there and makes no page: a hole of
// a sparse store reads as zeros.
func (st *Store) Read(ds device.Segment, off int64, b []byte) error {
	s, done, err := st.shared(ds)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	defer done()
	if err := s.rangeOK("read", off, int64(len(b))); err != nil {
		return err
	}
	s.settle()
	if _, err := readFull(s.file, b, off); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

// Write implements the driver's Write.
func (st *Store) Write(ds device.Segment, off int64, b []byte) error {
	s, done, err := st.writable(ds)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer done()
	if err := s.rangeOK("write", off, int64(len(b))); err != nil {
		return err
	}
	if err := s.write(off, int64(len(b)), func() error { return s.writeAt(b, off) }); err != nil {
		return err
	}
	return s.measure()
}
