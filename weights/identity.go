package weights

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// describe fills in what the kernel says about an open file. Anything but a
// regular file is refused: a pipe or a device would block or have side effects.
func describe(f *os.File, path string) (File, error) {
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return File{}, &ReadError{File: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return File{}, &ReadError{File: path, Err: fmt.Errorf("not a regular file: %w", os.ErrInvalid)}
	}
	return File{
		Path:       path,
		Bytes:      st.Size,
		Device:     uint64(st.Dev),
		Inode:      st.Ino,
		ModTime:    time.Unix(st.Mtim.Unix()),
		ChangeTime: time.Unix(st.Ctim.Unix()),
		file:       f,
	}, nil
}

// control runs a system call on f's descriptor without taking the file out of the
// runtime's hands, as f.Fd would.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = call(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// unchanged asks the kernel again and compares. Writing, truncating, replacing and
// removing a file all move at least its change time, which nobody can set back.
func (f *File) unchanged() error {
	now, err := describe(f.file, f.Path)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		what  string
		moved bool
	}{
		{"device", now.Device != f.Device},
		{"inode", now.Inode != f.Inode},
		{"size", now.Bytes != f.Bytes},
		{"modification time", !now.ModTime.Equal(f.ModTime)},
		{"change time", !now.ChangeTime.Equal(f.ChangeTime)},
	} {
		if c.moved {
			return &ChangedError{File: f.Path, What: c.what}
		}
	}
	return nil
}
