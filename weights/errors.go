package weights

import (
	"errors"
	"fmt"
	"strings"
)

// Sentinels: what a failure means on the wire. Every error of this package that
// is a model's or its files' fault answers true to errors.Is for exactly one of
// them; cancellation and the sink's own errors answer false to both.
var (
	// ErrInvalidModel is INVALID_MODEL: the bytes are no sound model, or did not
	// stay the same while they were read.
	ErrInvalidModel = errors.New("not a sound model")
	// ErrNotReadable is FILE_NOT_READABLE: missing, not permitted, not a regular
	// file, or outside the model roots.
	ErrNotReadable = errors.New("model file is not readable")
)

// FormatError says where and why a file is not a sound model.
type FormatError struct {
	File   string // path as the caller may see it
	Offset int64  // byte in the file at or before which the fault was noticed
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: byte %d: %s", e.File, e.Offset, e.Reason)
}

// Is makes a FormatError an ErrInvalidModel.
func (e *FormatError) Is(target error) bool { return target == ErrInvalidModel }

// ChangedError says that a file is no longer the one that Inspect described.
type ChangedError struct {
	File string
	What string // what differs: "size", "modification time", …
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s changed while it was being loaded (%s)", e.File, e.What)
}

// Is makes a ChangedError an ErrInvalidModel.
func (e *ChangedError) Is(target error) bool { return target == ErrInvalidModel }

// ReadError is a failure of the operating system, wrapped: errors.Is with
// fs.ErrNotExist and the like sees through it.
type ReadError struct {
	File string
	Err  error
}

func (e *ReadError) Error() string { return fmt.Sprintf("read %s: %v", e.File, e.Err) }
func (e *ReadError) Unwrap() error { return e.Err }

// Is makes a ReadError an ErrNotReadable.
func (e *ReadError) Is(target error) bool { return target == ErrNotReadable }

// OutsideError refuses a path that does not lie in any model root. It is the same
// whether or not something exists there.
type OutsideError struct {
	Path  string
	Roots []string
}

func (e *OutsideError) Error() string {
	if len(e.Roots) == 0 {
		return fmt.Sprintf("%s: no model root is configured", e.Path)
	}
	return fmt.Sprintf("%s: outside the model roots (%s)", e.Path, strings.Join(e.Roots, ", "))
}

// Is makes an OutsideError an ErrNotReadable.
func (e *OutsideError) Is(target error) bool { return target == ErrNotReadable }
