//go:build linux

package memfd

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// alone is true exactly when no other open file description of f's file exists:
// nobody opened it anew, and nobody maps what he opened. Duplicates and mappings
// of f's own description, the vault's among them, don't count.
//
// It takes a write lease and drops it at once. An open that falls in between waits
// until then, which is why Export and Released of a segment exclude each other.
func alone(f *os.File) (bool, error) {
	defer runtime.KeepAlive(f)
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take write lease: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		return false, fmt.Errorf("drop write lease: %w", err)
	}
	return true, nil
}

// lease says what the kernel's write leases are good for here.
type lease struct {
	// readersCount: a read-only description disturbs the lease too.
	readersCount bool
}

// probeLease plays a session's life on a page: opened, mapped, closed, unmapped. It
// fails, wrapping ErrUnsupported, where a write lease on a memfd is not the proof of
// release that drivers rely on.
func probeLease() (lease, error) {
	fail := func(what string, err error) (lease, error) {
		if err == nil {
			err = errors.New("the kernel gave the wrong answer")
		}
		return lease{}, fmt.Errorf("%w: write leases on memfds (%s): %w; release of shared memory could not be proved: "+
			"needs Linux 5.1, /proc, sysctl fs.leases-enable=1, and fcntl F_SETLEASE not filtered by seccomp", device.ErrUnsupported, what, err)
	}
	f, err := newFile("isobar-probe", int64(os.Getpagesize()), true)
	if err != nil {
		return fail("create", err)
	}
	defer f.Close()
	if ok, err := alone(f); err != nil || !ok {
		return fail("file of our own", err)
	}
	session, err := reopen(f, unix.O_RDWR)
	if err != nil {
		return fail("reopen", err)
	}
	m, err := unix.Mmap(int(session.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		_ = session.Close()
		return fail("map", err)
	}
	opened, errOpened := alone(f)
	_ = session.Close()
	mapped, errMapped := alone(f)
	if err := unix.Munmap(m); err != nil {
		return fail("unmap", err)
	}
	freed, errFreed := alone(f)
	switch {
	case errOpened != nil || opened:
		return fail("open elsewhere", errOpened)
	case errMapped != nil || mapped:
		return fail("mapped elsewhere", errMapped)
	case errFreed != nil || !freed:
		return fail("unmapped again", errFreed)
	}
	reader, err := reopen(f, unix.O_RDONLY)
	if err != nil {
		return fail("reopen for reading", err)
	}
	defer reader.Close()
	free, err := alone(f)
	if err != nil {
		return fail("open for reading", err)
	}
	return lease{readersCount: !free}, nil
}
