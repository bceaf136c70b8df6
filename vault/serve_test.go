package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/fdwire"
)

// inside is a vault in this process with a clock moved by hand.
type inside struct {
	socket string
	clock  *clock.Manual
	ended  chan error
	trims  chan struct{}
	stop   func() // ends it and waits
}

func serveInside(t *testing.T, change func(*Config)) *inside {
	t.Helper()
	dir, err := os.MkdirTemp("", "vault")
	if err != nil {
		t.Fatal(err)
	}
	v := &inside{
		socket: filepath.Join(dir, "v"), clock: clock.NewManual(1e9, time.Unix(0, 0)),
		ended: make(chan error, 1), trims: make(chan struct{}, 100),
	}
	l, err := Listen(v.socket)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Listener: l, Clock: v.clock, Trim: func() { v.trims <- struct{}{} }}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { v.ended <- Serve(ctx, cfg); close(stopped) }()
	v.stop = func() { cancel(); <-stopped }
	t.Cleanup(func() { v.stop(); os.RemoveAll(dir) })
	return v
}

func (v *inside) running(t *testing.T) {
	t.Helper()
	// The answer shows that what the clock set off is done: both take the lock.
	if _, err := Query(t.Context(), ClientConfig{SocketPath: v.socket}); err != nil {
		t.Fatalf("the vault is not running: %v", err)
	}
}

func TestMemoryOutlivesTheTimeoutWhileItIsUsed(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		t.Run(fmt.Sprintf("reopened=%v", reopened), func(t *testing.T) { outlives(t, reopened) })
	}
}

func outlives(t *testing.T, reopened bool) {
	v := serveInside(t, func(c *Config) { c.NodeTimeout = 10 * time.Minute; c.RecheckEvery = time.Minute })
	c, _, err := Connect(t.Context(), ClientConfig{SocketPath: v.socket})
	if err != nil {
		t.Fatal(err)
	}
	f, err := segment(300)
	if err != nil {
		t.Fatal(err)
	}
	if reopened {
		again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		f = again
	}
	if err := c.Put(Entry{ID: 300, File: f}); err != nil {
		t.Fatal(err)
	}
	// A session as nodes make them: a description of its own, mapped, its descriptor
	// closed.
	session, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(session.Fd()), 0, segmentBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	session.Close()
	f.Close()
	v.clock.Advance(time.Hour) // while the node holds it no time counts
	v.running(t)
	if err := c.Close(true); err != nil {
		t.Fatal(err)
	}
	v.clock.Advance(10*time.Minute - 1)
	v.running(t)
	v.clock.Advance(time.Hour + 1) // to the moment of a recheck
	v.running(t)
	// The checks have not harmed what is held.
	c, entries, err := Connect(t.Context(), ClientConfig{SocketPath: v.socket})
	if err != nil {
		t.Fatal(err)
	}
	wantEntries(t, entries, 300, 1)
	if err := errors.Join(entries[0].File.Close(), c.Close(true)); err != nil {
		t.Fatal(err)
	}
	v.running(t)
	v.clock.Advance(11 * time.Minute) // to the moment of a recheck
	v.running(t)
	if err := unix.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	v.clock.Advance(59 * time.Second)
	v.running(t)
	v.clock.Advance(time.Second)
	if err := <-v.ended; err != nil {
		t.Fatal(err)
	}
	v.ended <- nil
	if _, err := os.Stat(v.socket); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the socket is still there: %v", err)
	}
}

func TestUnusedMemoryGoesAfterTheTimeout(t *testing.T) {
	const scratch = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	for _, tc := range []struct {
		name   string
		seals  int
		reopen bool // the node keeps a description made by open, not memfd_create's
	}{
		{"scratch", scratch, false}, {"weights", unix.F_SEAL_FUTURE_WRITE, false}, {"sealed", unix.F_SEAL_WRITE, false},
		{"scratch, reopened", scratch, true}, {"weights, reopened", unix.F_SEAL_FUTURE_WRITE, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := serveInside(t, nil)
			c, _, err := Connect(t.Context(), ClientConfig{SocketPath: v.socket})
			if err != nil {
				t.Fatal(err)
			}
			f, err := segment(300)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, tc.seals); err != nil {
				t.Fatal(err)
			}
			if tc.reopen {
				again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
				f = again
			}
			// The node's own descriptors go with it.
			if err := errors.Join(c.Put(Entry{ID: 300, File: f}), f.Close(), c.Close(true)); err != nil {
				t.Fatal(err)
			}
			v.running(t)
			v.clock.Advance(10*time.Minute - 1)
			v.running(t)
			v.clock.Advance(1)
			if err := <-v.ended; err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestWhatTakesNoLeaseCountsAsUsed(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	e, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(e)
	for name, fd := range map[string]int{"pipe": p[0], "socket": s, "anonymous inode": e} {
		held, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		var one table
		one.put(7, name, held)
		if used, err := one.inUse(leaseRefused); used.ID != 7 {
			t.Errorf("%s: unused, %v", name, err)
		}
		one.close()
	}
}

func TestAVaultThatNobodyNeedsEnds(t *testing.T) {
	v := serveInside(t, nil)
	v.running(t)
	v.clock.Advance(10 * time.Minute)
	if err := <-v.ended; err != nil {
		t.Fatal(err)
	}
}

func TestTrimFollowsABurstOnce(t *testing.T) {
	v := serveInside(t, nil)
	v.running(t)
	v.clock.Advance(time.Second)
	<-v.trims
	v.clock.Advance(5 * time.Minute)
	if len(v.trims) != 0 {
		t.Fatal("trimmed without any work")
	}
	v.running(t)
	v.clock.Advance(time.Second)
	<-v.trims
}

func TestTheSilentMustSayHello(t *testing.T) {
	v := serveInside(t, nil)
	nc, err := net.Dial("unix", v.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	v.running(t) // accepted after nc
	v.clock.Advance(5 * time.Second)
	if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("read %d, %v", n, err)
	}
	v.running(t)
}

func TestBreachesOfTheProtocol(t *testing.T) {
	base := fdsOf(t, os.Getpid())
	v := serveInside(t, nil)
	fd := func() []int {
		f, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		return []int{f}
	}
	node := &message{Type: typeHello, ID: 1, Version: protocolVersion, Role: roleNode}
	query := &message{Type: typeHello, ID: 1, Version: protocolVersion, Role: roleQuery}
	for _, tc := range []struct {
		name  string
		hello *message
		m     *message
		fds   []int
		code  error
	}{
		{name: "put before hello", m: &message{Type: typePut, Entries: []wireEntry{{ID: 1}}}, fds: fd()},
		{name: "put by a query", hello: query, m: &message{Type: typePut, Entries: []wireEntry{{ID: 1}}}, fds: fd()},
		{name: "fetch by a query", hello: query, m: &message{Type: typeFetch}},
		{name: "drop by a query", hello: query, m: &message{Type: typeDrop, IDs: []uint64{1}}},
		{name: "entry without descriptor", hello: node, m: &message{Type: typePut, Entries: []wireEntry{{ID: 1}}}},
		{name: "descriptor without entry", hello: node, m: &message{Type: typePut}, fds: fd()},
		{name: "long label", hello: node, m: &message{Type: typePut, Entries: []wireEntry{{ID: 1, Label: strings.Repeat("x", 65)}}}, fds: fd()},
		{name: "unknown message", hello: node, m: &message{Type: "what"}},
		{name: "unknown role", m: &message{Type: typeHello, Version: protocolVersion, Role: "king"}},
		{name: "another version", m: &message{Type: typeHello, Version: 99, Role: roleNode}, code: ErrVersion},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: v.socket, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			conn, err := fdwire.New(nc, fdwire.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if tc.hello != nil {
				send(conn, tc.hello, nil, nil)
				if _, _, err := receive(conn); err != nil {
					t.Fatal(err)
				}
			}
			send(conn, tc.m, tc.fds, nil)
			_, _, err = receive(conn)
			if err == nil || tc.code != nil && !errors.Is(err, tc.code) {
				t.Fatalf("answer: %v", err)
			}
			if tc.hello == node {
				// The process lives on, so its hold does; give it back for the next case.
				c, entries, err := Connect(t.Context(), ClientConfig{SocketPath: v.socket})
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					e.File.Close()
				}
				f, err := segment(900)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if err := c.Put(Entry{ID: uint64(time.Now().UnixNano()), File: f}); err != nil {
					t.Fatal(err)
				}
				if err := c.Close(true); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	stats, err := Query(t.Context(), ClientConfig{SocketPath: v.socket})
	if err != nil || len(stats) != 4 {
		t.Fatalf("%+v, %v", stats, err)
	}
	v.stop()
	if now := fdsOf(t, os.Getpid()); now != base {
		t.Fatalf("%d descriptors, %d before", now, base)
	}
}

func TestPutRefusals(t *testing.T) {
	v := serveInside(t, nil)
	c, _ := connect(t, v.socket)
	f, err := segment(300)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.Put(Entry{ID: 300, File: f}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		entries []Entry
		want    error
		held    int
	}{
		{"held already", []Entry{{ID: 301, File: f}, {ID: 300, File: f}, {ID: 302, File: f}}, ErrExists, 3},
		{"twice in one put", []Entry{{ID: 303, File: f}, {ID: 303, File: f}}, ErrExists, 3},
		{"long label", []Entry{{ID: 304, File: f, Label: strings.Repeat("x", 65)}}, nil, 3},
		{"no file", []Entry{{ID: 305}}, nil, 3},
		{"too many", make([]Entry, 0), nil, 3},
	} {
		if tc.name == "too many" {
			c.mu.Lock()
			was := c.capacity
			c.capacity = c.held
			c.mu.Unlock()
			if err := c.Put(Entry{ID: 306, File: f}); !errors.Is(err, ErrFull) {
				t.Errorf("beyond the capacity: %v", err)
			}
			c.mu.Lock()
			c.capacity = was
			c.mu.Unlock()
			continue
		}
		err := c.Put(tc.entries...)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if stats, err := c.List(); err != nil || len(stats) != tc.held {
			t.Errorf("%s: holds %v, %v", tc.name, stats, err)
		}
	}
	if err := c.Drop(300, 301, 302, 999); err != nil {
		t.Fatal(err)
	}
	if stats, err := c.List(); err != nil || len(stats) != 0 {
		t.Fatal(stats, err)
	}
}

func TestAVaultThatFallsSilentIsLost(t *testing.T) {
	// A listener whose vault welcomes and then says nothing.
	dir := t.TempDir()
	socket := filepath.Join(dir, "v")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer unlisten(l)
	var serving sync.WaitGroup
	serving.Add(1)
	got := make(chan struct{})
	go func() {
		defer serving.Done()
		nc, err := l.AcceptUnix()
		if err != nil {
			return
		}
		conn, err := fdwire.New(nc, fdwire.Config{})
		if err != nil {
			return
		}
		defer conn.Close()
		for _, answer := range []*message{{Type: typeWelcome, ID: 1, Capacity: 10}, {Type: typeTable, ID: 1}} {
			if _, f, err := receive(conn); err != nil {
				return
			} else {
				f.Close()
			}
			send(conn, answer, nil, nil)
		}
		for {
			_, f, err := receive(conn)
			f.Close()
			if err != nil {
				return
			}
			got <- struct{}{}
		}
	}()
	clk := clock.NewManual(1e9, time.Unix(0, 0))
	c, _, err := Connect(t.Context(), ClientConfig{SocketPath: socket, Clock: clk, Timeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	f, err := segment(1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	failed := make(chan error)
	go func() { failed <- c.Put(Entry{ID: 1, File: f}) }()
	<-got
	clk.Advance(3 * time.Second)
	<-c.Lost()
	if err := <-failed; !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	c.Close(false)
	serving.Wait()
}

func TestConnectGivesUpWithItsContext(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "v")
	l, err := Listen(socket) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer unlisten(l)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { _, _, err := Connect(ctx, ClientConfig{SocketPath: socket}); failed <- err }()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

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

func TestOffKeepsTheInterfacesPromises(t *testing.T) {
	k := Off()
	f, err := segment(1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := k.Put(Entry{ID: 2, Label: "b", File: f}, Entry{ID: 1, Label: "a", File: f}); err != nil {
		t.Fatal(err)
	}
	if err := k.Put(Entry{ID: 2, File: f}); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	stats, err := k.List()
	if err != nil || len(stats) != 2 || stats[0] != (Stat{1, "a", segmentBytes, segmentBytes}) {
		t.Fatal(stats, err)
	}
	if err := k.Drop(1, 7); err != nil {
		t.Fatal(err)
	}
	if stats, _ := k.List(); len(stats) != 1 {
		t.Fatal(stats)
	}
	if err := errors.Join(k.Close(true), k.Close(false)); err != nil {
		t.Fatal(err)
	}
	<-k.Lost()
}
