package vault

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Listen("/tmp/" + strings.Repeat("x", 103)); err == nil || !strings.Contains(err.Error(), "108 bytes long, at most 107") {
		t.Errorf("long path: %v", err)
	}
	if _, err := Listen("relative"); err == nil {
		t.Error("relative path was taken")
	}
	if _, _, err := Connect(t.Context(), ClientConfig{SocketPath: filepath.Join(dir, "none")}); !errors.Is(err, ErrNoVault) {
		t.Errorf("no vault: %v", err)
	}
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in the way: %v", err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(open, "v")); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
		t.Errorf("a directory for everybody: %v", err)
	}
	path = filepath.Join(dir, "new", "deep", "v")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second listener: %v", err)
	}
	// As a killed vault leaves it: the file without a listener.
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if l, err = Listen(path); err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	unlisten(l)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestInherited(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(key string) string {
			for _, p := range pairs {
				if k, v, _ := strings.Cut(p, "="); k == key {
					return v
				}
			}
			return ""
		}
	}
	if l, err := Inherited(env()); l != nil || err != nil {
		t.Errorf("nothing: %v, %v", l, err)
	}
	if l, err := Inherited(env("LISTEN_PID=1", "LISTEN_FDS=1")); l != nil || err != nil {
		t.Errorf("another's: %v, %v", l, err)
	}
	own := fmt.Sprintf("LISTEN_PID=%d", os.Getpid())
	if _, err := Inherited(env(own, "LISTEN_FDS=2")); err == nil {
		t.Error("two sockets were taken")
	}
	for _, bad := range []string{"x", "-1", "0"} {
		if _, err := Inherited(env(listenerEnv + "=" + bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	path := filepath.Join(t.TempDir(), "v")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	l, err = Inherited(env(fmt.Sprintf("%s=%d", listenerEnv, fd)))
	if err != nil {
		t.Fatal(err)
	}
	defer unlisten(l)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
