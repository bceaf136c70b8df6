//go:build linux

package cuda

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
	"github.com/isobar-project/isobar/device/internal/cover"
)

// Segment is a VMM handle, mapped whole in this process; it implements device.Segment.
type Segment struct {
	d       *Driver
	file    *os.File
	handle  api.Handle
	at      api.Pointer
	bytes   int64
	weights bool
	unclear bool // need not be zero
	sealed  atomic.Bool
	cover   cover.Cover

	// use is held shared by whatever works on the memory, and alone where it ends.
	use          sync.RWMutex
	placed, dead bool // guarded by use
	underWay     bool // is being made, guarded by use
	// back is closed when a destroyed segment's bytes are the driver's no more; leaves, guarded
	// by the driver's lock, that it was destroyed.
	back   chan struct{}
	leaves bool
	// exported: another process may have it. What of giving it back has been done is noted by the
	// one that does it.
	exported           atomic.Bool
	unmapped, released bool

	opened sync.Mutex
	peers  map[api.Device]bool // whether other GPUs were let at it, guarded by opened
}

// Bytes implements device.Segment.
func (s *Segment) Bytes() int64 { return s.bytes }

// Weights implements device.Segment.
func (s *Segment) Weights() bool { return s.weights }

// Sealed implements device.Segment.
func (s *Segment) Sealed() bool { return s.sealed.Load() }

// File implements device.Segment.
func (s *Segment) File() *os.File { return s.file }

// usable says why nothing can be done with the segment's bytes. use is held.
func (s *Segment) usable() error {
	switch {
	case s.dead:
		return device.ErrDestroyed
	case !s.placed:
		return device.ErrUnfinished
	}
	return nil
}

// rangeOK checks that n bytes from off lie inside the segment.
func (s *Segment) rangeOK(what string, off, n int64) error {
	if off < 0 || n < 0 || off > s.bytes || n > s.bytes-off {
		return fmt.Errorf("%s %d bytes at %d in a segment of %d: %w", what, n, off, s.bytes, device.ErrRange)
	}
	return nil
}

// pointer is the address of a byte of the segment.
func (s *Segment) pointer(off int64) api.Pointer { return s.at + api.Pointer(off) }

// The mark of sealed weights is a status flag of the open file description, which the vault's
// copy shares: nothing writes to the descriptor, so that the flag means nothing else. It is a
// note, as everything about sealing is on a GPU: who has the descriptor can put it on and take
// it off. So it only ever adds to what the ledger says of weights, and means nothing on scratch,
// whose owners come and go.
const sealMark = unix.O_APPEND

// marked tells whether a descriptor bears the mark.
func marked(f *os.File) (bool, error) {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return false, fmt.Errorf("read the descriptor's flags: %w", err)
	}
	return flags&sealMark != 0, nil
}

// mark puts it on.
func mark(f *os.File) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|sealMark)
	}
	if err != nil {
		return fmt.Errorf("mark the descriptor as sealed: %w", err)
	}
	return nil
}

// descriptions are the live segments in the kernel's order of their open file descriptions:
// the only identity that a GPU's descriptor has.
type descriptions struct {
	list []*Segment
	// unordered is set where the kernel does not compare them; then only the same descriptor
	// is known for the same.
	unordered bool
}

// add fails if a live segment has the same description.
func (ds *descriptions) add(s *Segment) error {
	at, found := 0, false
	if !ds.unordered {
		at, found = slices.BinarySearchFunc(ds.list, s, func(e, s *Segment) int {
			order, err := compare(os.Getpid(), int(e.file.Fd()), os.Getpid(), int(s.file.Fd()))
			if err != nil {
				ds.unordered = true
			}
			return order
		})
	}
	if ds.unordered {
		at = 0
		found = slices.ContainsFunc(ds.list, func(e *Segment) bool { return e.file.Fd() == s.file.Fd() })
	}
	if found {
		return fmt.Errorf("%w: the descriptor is a segment of this driver already", device.ErrMismatch)
	}
	ds.list = slices.Insert(ds.list, at, s)
	return nil
}

// remove forgets a segment.
func (ds *descriptions) remove(s *Segment) {
	if i := slices.Index(ds.list, s); i >= 0 {
		ds.list = slices.Delete(ds.list, i, i+1)
	}
}

// compare gives the kernel's order of two open file descriptions: negative, 0 (the same one)
// or positive.
func compare(pidA, fdA, pidB, fdB int) (int, error) {
	const file = 0 // KCMP_FILE
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pidA), uintptr(pidB), file, uintptr(fdA), uintptr(fdB), 0)
	if errno != 0 {
		return 0, errno
	}
	switch r {
	case 0:
		return 0, nil
	case 1:
		return -1, nil
	default:
		return 1, nil
	}
}
