package device

import (
	"errors"
	"fmt"
)

// The errors of every driver. They are wrapped with the call, the sizes and,
// where the operator can do something, the fix: branch with errors.Is.
var (
	// ErrOutOfMemory: the device, or the caller's control group, has no room for
	// the bytes. Nothing was kept; making room and trying again may help.
	ErrOutOfMemory = errors.New("out of device memory")
	// ErrLost: the device does not answer any more and will not again.
	ErrLost = errors.New("device lost")
	// ErrContext, beside ErrLost: what this process had of the device has ended, and the device
	// may be well. A new process may have it again, with all memory whose descriptors are kept.
	ErrContext = errors.New("the process's context has ended")
	// ErrClosed: the driver was closed.
	ErrClosed = errors.New("driver is closed")
	// ErrDestroyed: the segment was destroyed.
	ErrDestroyed = errors.New("segment is destroyed")
	// ErrUnfinished: the segment was begun and is not finished (Stager).
	ErrUnfinished = errors.New("segment is not finished")
	// ErrForeign: the segment belongs to another driver.
	ErrForeign = errors.New("segment belongs to another driver")
	// ErrSealed: the segment can no longer be written.
	ErrSealed = errors.New("segment is sealed")
	// ErrNotSealed: weights cannot leave the node before they are sealed.
	ErrNotSealed = errors.New("segment is not sealed yet")
	// ErrScratch: the call is for weights only.
	ErrScratch = errors.New("segment is scratch, not weights")
	// ErrShared: weights cannot be sealed while somebody else holds them.
	ErrShared = errors.New("segment is held by another process")
	// ErrRange: offset and length do not fit the segment, or overlap.
	ErrRange = errors.New("range does not fit the segment")
	// ErrSize: not a positive multiple of the granularity.
	ErrSize = errors.New("not a positive multiple of the granularity")
	// ErrMismatch: an imported descriptor is not what the ledger says it is.
	ErrMismatch = errors.New("descriptor does not match the record")
	// ErrNoProof: the driver cannot prove release by itself.
	ErrNoProof = errors.New("release cannot be proved by this driver")
	// ErrUnsupported: the machine lacks what the driver needs.
	ErrUnsupported = errors.New("not supported on this machine")
)

// OwedError is what Destroy says of memory that is not back although this process has done what
// it can: one of the driver's calls hangs or has failed, or another process still maps it. The
// bytes are the driver's until they are back (Sample.OursBytes), and nobody else's.
type OwedError struct {
	// Bytes that are not back.
	Bytes int64
	// Why says so for people.
	Why string
	// Holders are the processes that are charged with them; nobody where it is the driver that
	// keeps them.
	Holders []Holder
	// Back is closed when they are, or when the device is lost.
	Back <-chan struct{}
}

func (e *OwedError) Error() string {
	return fmt.Sprintf("%d bytes are not back: %s", e.Bytes, e.Why)
}
