package vault

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/fdwire"
)

// listenerEnv tells a spawned vault which descriptor is its listener.
const listenerEnv = "ISOBAR_VAULT_LISTENER"

func checkPath(path string) error {
	if err := fdwire.CheckPath(path); err != nil {
		return fmt.Errorf("vault: %w", err)
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
	l, err := fdwire.Listen(path, 0o600)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return l, nil
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
	if filepath.IsAbs(path) && !fdwire.Alive(path) {
		_ = os.Remove(path)
	}
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
