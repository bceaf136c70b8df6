package fdwire

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// child runs a process that does nothing until it is killed.
func child(t *testing.T) (*exec.Cmd, *os.File) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); f.Close() })
	return cmd, f
}

func TestWatcherCallsOnceWhenAProcessEnds(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var files []*os.File
	gone := make(chan int, 100)
	for i := range 20 {
		_, f := child(t)
		files = append(files, f)
		if _, err := w.Watch(f, func() { gone <- i }); err != nil {
			t.Fatal(err)
		}
		// Twice on one process is two watches.
		if _, err := w.Watch(f, func() { gone <- i }); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range files {
		if Exited(f) {
			t.Fatalf("process %d is not running", i)
		}
		if err := Kill(f); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := <-gone; got != i {
				t.Fatalf("killed %d, told of %d", i, got)
			}
		}
		if !Exited(f) {
			t.Fatalf("process %d is running", i)
		}
	}
	// One that has ended already is told at once; the pidfd may be closed meanwhile.
	if _, err := w.Watch(files[3], func() { gone <- 3 }); err != nil {
		t.Fatal(err)
	}
	if got := <-gone; got != 3 {
		t.Fatal(got)
	}
	if err := Kill(files[3]); err != nil {
		t.Fatalf("kill of a dead process: %v", err)
	}
	if len(gone) != 0 {
		t.Fatal("told twice")
	}
}

func TestAStoppedWatchIsSilent(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	_, a := child(t)
	_, b := child(t)
	told := make(chan string, 2)
	stop, err := w.Watch(a, func() { told <- "a" })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Watch(b, func() { told <- "b" }); err != nil {
		t.Fatal(err)
	}
	stop()
	stop()
	if err := errors.Join(Kill(a), Kill(b)); err != nil {
		t.Fatal(err)
	}
	if got := <-told; got != "b" {
		t.Fatalf("told of %s", got)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if len(told) != 0 {
		t.Fatal("told of a stopped watch")
	}
	if _, err := w.Watch(a, func() {}); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("watch after close: %v", err)
	}
	if len(w.live) != 0 {
		t.Fatalf("%d watches left", len(w.live))
	}
}

func TestPeerIsIdentified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want, err := StartTime(os.Getpid())
	if err != nil || want == 0 {
		t.Fatal(want, err)
	}
	check := func(p Peer, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if p.PID != os.Getpid() || p.UID != uint32(os.Getuid()) || p.GID != uint32(os.Getgid()) || p.StartTime != want || p.Exited() {
			t.Fatalf("%+v", p)
		}
		if flags, _ := unix.FcntlInt(p.PidFD.Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
			t.Fatal("the pidfd would leak into children")
		}
		p.Close()
	}
	check(PeerOf(s))
	// As on a kernel without SO_PEERPIDFD.
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		check(peerOf(int(fd), func(int) (int, error) { return -1, unix.ENOPROTOOPT }))
		_, err = peerOf(int(fd), func(int) (int, error) { return -1, unix.ESRCH })
	}); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrPeerGone) {
		t.Fatalf("a dead peer: %v", err)
	}
}

func TestParseStartTime(t *testing.T) {
	rest := " S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 50"
	for _, tc := range []struct {
		stat string
		want uint64
		ok   bool
	}{
		{"12 (isobar)" + rest, 987654, true},
		{"12 (a b) c) (d)" + rest, 987654, true},
		{"12 (x\n) 1 2 3)" + rest, 987654, true},
		{"12 isobar" + rest, 0, false},
		{"12 (isobar) S 1 1", 0, false},
		{"", 0, false},
	} {
		got, err := parseStartTime([]byte(tc.stat))
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%q: %d, %v", tc.stat, got, err)
		}
	}
	if _, err := StartTime(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
}
