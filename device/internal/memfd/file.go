//go:build linux

package memfd

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

const (
	// baseSeals keep the size as it is; every segment has them from birth.
	baseSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	// writeSeals end all writing.
	//
	// F_SEAL_FUTURE_WRITE forbids write(2), punching and every later writable
	// mapping through any description, one reopened through /proc included, and
	// lets a read-write description be mapped for reading on every kernel since
	// 5.1. F_SEAL_WRITE would refuse that mapping on kernels before 6.7, and the
	// sessions' descriptions are read-write on purpose (see Reopen). What
	// FUTURE_WRITE leaves open, a writable mapping made earlier, nobody else can
	// have: unsealed weights are never exported, and Seal has the lease prove that
	// nobody else has the file. This process keeps one where the memory may be used
	// again (see stock), and writes to it only while the segment is not sealed.
	writeSeals = unix.F_SEAL_FUTURE_WRITE
)

// newFile makes a memfd of the given size, sealed against changing it. noMoreSeals
// adds F_SEAL_SEAL: what scratch needs, and weights get at Seal.
//
// The description that memfd_create gives does not count as a writer of its own
// file, so that no lease can ever be had on it. What is returned is opened anew
// through /proc, and does.
func newFile(label string, bytes int64, noMoreSeals bool) (*os.File, error) {
	// Memory that cannot be executed, where the kernel knows that (6.3): some
	// machines refuse any other.
	fd, err := unix.MemfdCreate(label, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(label, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return nil, fmt.Errorf("create memfd: %w (raise the limit of open files: every segment needs one)", err)
		}
		return nil, fmt.Errorf("create memfd: %w", noRoom(err))
	}
	born := os.NewFile(uintptr(fd), label)
	f, err := reopen(born, unix.O_RDWR)
	_ = born.Close()
	if err != nil {
		return nil, err
	}
	seals := baseSeals
	if noMoreSeals {
		seals |= unix.F_SEAL_SEAL
	}
	if err := f.Truncate(bytes); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("size memfd to %d bytes: %w", bytes, noRoom(err))
	}
	if err := addSeals(f, seals); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func addSeals(f *os.File, seals int) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	runtime.KeepAlive(f)
	if err != nil {
		return fmt.Errorf("seal memfd: %w", err)
	}
	return nil
}

// verify checks that f is the memfd of a segment of these bytes and tells whether
// it is sealed against writing.
func verify(f *os.File, bytes int64, o device.ImportOptions) (sealed bool, err error) {
	st, err := stat(f)
	if err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != bytes {
		return false, fmt.Errorf("%w: size %d, recorded %d", device.ErrMismatch, st.Size, bytes)
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return false, fmt.Errorf("read descriptor flags: %w", err)
	}
	if flags&unix.O_ACCMODE != unix.O_RDWR {
		return false, fmt.Errorf("%w: not the original descriptor (it is not read-write)", device.ErrMismatch)
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	runtime.KeepAlive(f)
	if errors.Is(err, unix.EINVAL) {
		return false, fmt.Errorf("%w: not a memfd", device.ErrMismatch)
	}
	if err != nil {
		return false, fmt.Errorf("read seals: %w", err)
	}
	sealed = seals&(unix.F_SEAL_FUTURE_WRITE|unix.F_SEAL_WRITE) != 0
	final := seals&unix.F_SEAL_SEAL != 0
	switch {
	case seals&baseSeals != baseSeals:
		return false, fmt.Errorf("%w: its size is not sealed", device.ErrMismatch)
	case !o.Weights && (sealed || !final):
		return false, fmt.Errorf("%w: seals %#x are not those of scratch", device.ErrMismatch, seals)
	case o.Weights && o.Sealed && !sealed:
		return false, fmt.Errorf("%w: recorded as sealed, but it can be written", device.ErrMismatch)
	case o.Weights && sealed != final:
		return false, fmt.Errorf("%w: seals %#x are not those of weights", device.ErrMismatch, seals)
	}
	return sealed, nil
}

// reopen makes a new open file description. It goes through /proc, because that is
// the only way to one; dup shares the old.
func reopen(f *os.File, flags int) (*os.File, error) {
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
	}
	runtime.KeepAlive(f)
	if err != nil {
		return nil, fmt.Errorf("reopen memfd through %s: %w (is /proc mounted?)", path, err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func stat(f *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	runtime.KeepAlive(f)
	if err != nil {
		return st, fmt.Errorf("stat memfd: %w", err)
	}
	return st, nil
}

// residentBytes is what the kernel says the file occupies.
func residentBytes(f *os.File) (int64, error) {
	st, err := stat(f)
	return st.Blocks * 512, err
}

// noRoom turns the kernel's ways of saying so into ErrOutOfMemory.
func noRoom(err error) error {
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w (kernel: %w)", device.ErrOutOfMemory, err)
	}
	return err
}

// cleanLabel makes a name that memfd_create takes: at most 64 bytes, no NUL.
func cleanLabel(label, fallback string) string {
	if label == "" {
		label = fallback
	}
	label = strings.ReplaceAll(label, "\x00", "")
	return label[:min(len(label), 64)]
}
