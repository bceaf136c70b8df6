package fdwire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPathBytes is what a unix socket address holds, less the closing zero.
const maxPathBytes = 107

// CheckPath tells whether a socket can have this path.
func CheckPath(path string) error {
	if len(path) > maxPathBytes {
		return fmt.Errorf("socket path %q is %d bytes long, at most %d are possible: choose a shorter directory",
			path, len(path), maxPathBytes)
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("socket path %q is not absolute", path)
	}
	return nil
}

// Listen makes a stream socket with the given permissions in an existing directory. A
// socket that nobody listens on any more is replaced; one that is alive, or a file
// that is no socket, is an error. Two processes must not do so at once for one
// path. The file stays when the listener is closed.
func Listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	if Alive(path) {
		return nil, fmt.Errorf("%s: %w", path, unix.EADDRINUSE)
	}
	switch st, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("%s is in the way and no socket: remove it", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("stale socket: %w", err)
		}
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var result error
		// The mode of the socket at bind, less the umask, becomes that of the file.
		err := raw.Control(func(fd uintptr) { result = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, result)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false)
	if mode.Perm() != 0o600 {
		if err := os.Chmod(path, mode.Perm()); err != nil {
			_ = ul.Close()
			return nil, err
		}
	}
	return ul, nil
}

// Alive reports whether somebody listens on a socket.
func Alive(path string) bool {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		_ = c.Close()
		return true
	}
	// A full backlog belongs to a living listener.
	return errors.Is(err, unix.EAGAIN)
}
