package store

import (
	"errors"
	"fmt"
)

var (
	// ErrFull means that the region has no room for the transaction. Nothing
	// was changed, in the region or in the state beside it.
	ErrFull = errors.New("store: the region is full")
	// ErrUnformatted means that the memory is no region: either fresh, or its
	// writer died inside Format. Nothing can have been recorded in it.
	ErrUnformatted = errors.New("store: the memory is not formatted")
	// ErrNotZero means that Format was given memory that something is in.
	ErrNotZero = errors.New("store: the memory to format is not zero")
	// ErrNoRecord means that an update or delete named an id without a record.
	ErrNoRecord = errors.New("store: no such record")
	// ErrExhausted means that the region has no transaction numbers left.
	ErrExhausted = errors.New("store: the region has used up its transaction numbers")
)

// CorruptError describes an image that no writer can have left behind.
type CorruptError struct {
	Offset int    // byte of the region where it shows
	Reason string // what is wrong there
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("store: the region is corrupt at byte %d: %s", e.Offset, e.Reason)
}

func corrupt(off int, reason string) *CorruptError {
	return &CorruptError{Offset: off, Reason: reason}
}

// VersionError describes a region that another version of the format wrote.
type VersionError struct {
	Found     uint64 // the region's
	Supported uint64 // this package's
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("store: the region has format version %d, this build reads version %d only: "+
		"start the build that wrote it, drain it, and start this one again", e.Found, e.Supported)
}
