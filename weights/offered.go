package weights

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxOfferedBytes is far above any model (1 EiB), and leaves room to add offsets.
const maxOfferedBytes = 1 << 60

// CheckOffered refuses an open file that InspectFile could not read as a model: one that is
// no regular file, that is not open for reading, or that wants reads of whole blocks. It
// asks only the kernel, and reads nothing; f stays the caller's. name is for errors, which
// are ErrNotReadable (a *ReadError).
func CheckOffered(f *os.File, name string) error {
	file, err := describe(f, name)
	if err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return &ReadError{File: name, Err: fmt.Errorf(format, args...)}
	}
	flags := 0
	if err := control(f, func(fd int) (err error) { flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); return err }); err != nil {
		return &ReadError{File: name, Err: err}
	}
	switch {
	case flags&unix.O_PATH != 0, flags&unix.O_ACCMODE == unix.O_WRONLY:
		return refuse("the descriptor is not open for reading: %w", os.ErrPermission)
	case flags&unix.O_DIRECT != 0:
		return refuse("the descriptor is open with O_DIRECT, which reads whole blocks only: open it without: %w", os.ErrInvalid)
	case file.Bytes > maxOfferedBytes:
		return refuse("a file of %d bytes; at most %d: %w", file.Bytes, int64(maxOfferedBytes), os.ErrInvalid)
	}
	return nil
}

// single reads the only file of a model that came as a descriptor. What a sharded model's
// index names cannot be opened from here; that is said, instead of why an index is no model.
func (a *assembly) single(f *os.File) error {
	index := beginsAsJSON(f)
	err := a.add(f, a.at.path())
	if index && errors.Is(err, ErrInvalidModel) {
		return &FormatError{a.at.path(), 0, "is JSON text, an index perhaps: a model of several files cannot be opened by one descriptor; " +
			"load it by its path from a model root, or offer a single .safetensors or .gguf file"}
	}
	return err
}

func beginsAsJSON(f *os.File) bool {
	var b [1]byte
	n, _ := f.ReadAt(b[:], 0) // who parses the header hears of a failure
	return n == 1 && b[0] == '{'
}

// Duplicate is a second descriptor of the same open file: closing one leaves the other.
func Duplicate(f *os.File) (*os.File, error) {
	second := -1
	err := control(f, func(fd int) (err error) {
		second, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(second), f.Name()), nil
}
