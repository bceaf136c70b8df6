//go:build linux

package memfd

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/internal/cover"
)

// Segment is a memfd; it implements device.Segment.
type Segment struct {
	store   *Store
	file    *os.File
	body    *body // of which file and bytes are
	bytes   int64
	weights bool
	sealed  atomic.Bool
	cover   cover.Cover // of memory that had been another segment's

	// resident is what the kernel held of it when we last had reason to look.
	resident atomic.Int64
	meter    sync.Mutex // held while looking, so that an older look cannot overwrite a newer

	// use is held shared by whatever works on the file, and alone by what must not
	// meet such work: the lease, sealing, closing the descriptor.
	use  sync.RWMutex
	dead bool // guarded by use
}

func newSegment(st *Store, b *body, weights bool) *Segment {
	return &Segment{store: st, file: b.file, body: b, bytes: b.bytes, weights: weights}
}

// Bytes implements device.Segment.
func (s *Segment) Bytes() int64 { return s.bytes }

// Weights implements device.Segment.
func (s *Segment) Weights() bool { return s.weights }

// Sealed implements device.Segment.
func (s *Segment) Sealed() bool { return s.sealed.Load() }

// File implements device.Segment.
func (s *Segment) File() *os.File { return s.file }

// measure asks the kernel what the file occupies and keeps the driver's sum right.
func (s *Segment) measure() error {
	s.meter.Lock()
	defer s.meter.Unlock()
	now, err := residentBytes(s.file)
	if err != nil {
		return err
	}
	before := s.resident.Swap(now)
	s.store.resident.Add(now - before)
	return nil
}

// rangeOK checks that n bytes from off lie inside the segment.
func (s *Segment) rangeOK(what string, off, n int64) error {
	if off < 0 || n < 0 || off > s.bytes || n > s.bytes-off {
		return fmt.Errorf("%s %d bytes at %d in a segment of %d: %w", what, n, off, s.bytes, device.ErrRange)
	}
	return nil
}
