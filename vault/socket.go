package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPathBytes is what a unix socket address holds, less the closing zero.
const maxPathBytes = 107

// listenerEnv tells a spawned vault which descriptor is its listener.
const listenerEnv = "ISOBAR_VAULT_LISTENER"

func checkPath(path string) error {
	if len(path) > maxPathBytes {
		return fmt.Errorf("vault: socket path %q is %d bytes long, at most %d are possible: choose a shorter directory",
			path, len(path), maxPathBytes)
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("vault: socket path %q is not absolute", path)
	}
	return nil
}

// Listen makes the vault's socket: mode 0600, in a directory that it makes with mode
// 0700. A socket that nobody listens on any more is replaced. One that is
// alive, or a file that is no socket, is an error.
func Listen(path string) (*net.UnixListener, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	unlock, err := lockDir(path, true)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return listenLocked(path)
}

func listenLocked(path string) (*net.UnixListener, error) {
	if alive(path) {
		return nil, fmt.Errorf("vault: %s: %w", path, unix.EADDRINUSE)
	}
	switch st, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("vault: %w", err)
	case st.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("vault: %s is in the way and no socket: remove it", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("vault: stale socket: %w", err)
		}
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var result error
		// The mode of the socket at bind becomes that of the file.
		err := raw.Control(func(fd uintptr) { result = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, result)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	ul := l.(*net.UnixListener)
	// Unlisten removes the file, under the lock.
	ul.SetUnlinkOnClose(false)
	return ul, nil
}

// unlisten closes a listener and removes its socket, unless a new vault is being
// started in its place.
func unlisten(l *net.UnixListener) {
	path := l.Addr().String()
	unlock, err := lockDir(path, false)
	if err != nil {
		_ = l.Close()
		return
	}
	defer unlock()
	_ = l.Close()
	// Under the lock nobody binds; if the path is alive it is another's, or
	// systemd's, which keeps its own descriptor.
	if filepath.IsAbs(path) && !alive(path) {
		_ = os.Remove(path)
	}
}

// alive reports whether somebody listens on a socket.
func alive(path string) bool {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		_ = c.Close()
		return true
	}
	// A full backlog belongs to a living listener.
	return errors.Is(err, unix.EAGAIN)
}

// lockDir makes the socket's directory and takes the lock under which sockets
// are made and removed.
func lockDir(path string, wait bool) (unlock func(), err error) {
	dir := filepath.Dir(path)
	if wait {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("vault: %w", err)
		}
		st, err := os.Stat(dir)
		if err != nil {
			return nil, fmt.Errorf("vault: %w", err)
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != uint32(os.Geteuid()) && os.Geteuid() != 0 {
			return nil, fmt.Errorf("vault: directory %s belongs to uid %d, not to %d", dir, sys.Uid, os.Geteuid())
		}
		if st.Mode().Perm()&0o022 != 0 {
			return nil, fmt.Errorf("vault: others may write to directory %s (mode %04o): chmod 0700 it", dir, st.Mode().Perm())
		}
	}
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("vault: lock: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// Inherited returns the listener that the parent process left for a vault: Spawn, or
// systemd by socket activation (LISTEN_PID, LISTEN_FDS). nil if there is none.
// getenv is os.Getenv or a test's.
func Inherited(getenv func(string) string) (*net.UnixListener, error) {
	fd := 0
	switch {
	case getenv(listenerEnv) != "":
		n, err := strconv.Atoi(getenv(listenerEnv))
		if err != nil || n < 3 {
			return nil, fmt.Errorf("vault: %s=%q is no descriptor", listenerEnv, getenv(listenerEnv))
		}
		fd = n
	case getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) && getenv("LISTEN_FDS") != "":
		if getenv("LISTEN_FDS") != "1" {
			return nil, fmt.Errorf("vault: LISTEN_FDS=%q, need exactly one socket", getenv("LISTEN_FDS"))
		}
		fd = 3
	default:
		return nil, nil
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("vault: inherited descriptor %d: %w", fd, err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		_ = l.Close()
		return nil, fmt.Errorf("vault: inherited descriptor %d is no unix socket", fd)
	}
	ul.SetUnlinkOnClose(false)
	return ul, nil
}
