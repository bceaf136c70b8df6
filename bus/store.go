package bus

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// takeStore makes JetStream's folder and takes it for one server: two of them that write the
// same streams spoil both histories. It is the server's until the file is closed, or the
// process ends in whatever way. Errors are *StartError.
func (c ServerConfig) takeStore() (*os.File, error) {
	if err := os.MkdirAll(c.StoreDir, 0o700); err != nil {
		return nil, c.unwritable(err)
	}
	if err := c.tryStore(); err != nil {
		return nil, c.unwritable(err)
	}
	dir, err := os.Open(c.StoreDir)
	if err != nil {
		return nil, c.unwritable(err)
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	switch {
	case err == nil:
		return dir, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		_ = dir.Close()
		return nil, &StartError{Kind: StoreTaken, Err: fmt.Errorf("another server keeps its streams in %s", c.StoreDir),
			Fix: "stop the node that runs there, or choose another folder with --state-dir"}
	default:
		_ = dir.Close()
		return nil, c.unwritable(&os.PathError{Op: "lock", Path: c.StoreDir, Err: err})
	}
}

// tryStore finds out whether a file can be made there.
func (c ServerConfig) tryStore() error {
	f, err := os.CreateTemp(c.StoreDir, ".probe-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// unwritable is the error of a folder that the server cannot use.
func (c ServerConfig) unwritable(err error) *StartError {
	fix := fmt.Sprintf("the folder %s must be writable by this user: correct its owner and mode, or choose another with --state-dir", c.StoreDir)
	if noSpace(err) {
		fix = noSpaceFix
	}
	return &StartError{Kind: StoreUnwritable, Err: err, Fix: fix}
}

// noSpaceFix is what to do about a full disk under the streams.
const noSpaceFix = "make room on the disk of the streams, and start the node again"

// noSpace tells whether a disk is full, or its user's share of it.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
