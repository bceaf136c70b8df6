package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/fdwire"
)

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

// A device's descriptor stands for more than its file: a GPU's memory. It is never replaced.
func TestADeviceIsNotOpenedAnew(t *testing.T) {
	// The flag belongs to the open file description, so that another one would not have it.
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_APPEND|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var one table
	one.put(7, "gpu-0", fd)
	defer one.close()
	if used, err := one.inUse(leaseRefused); used.ID != 7 || err != nil {
		t.Errorf("unused, %v", err)
	}
	flags, err := unix.FcntlInt(uintptr(one.slots[0].fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_APPEND == 0 {
		t.Errorf("flags %#x, %v: the descriptor was replaced", flags, err)
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

// puppet is a listener whose vault welcomes one node, with an empty table, and then does what
// it is told to with every message.
func puppet(t *testing.T, take func(*fdwire.Conn, *message)) (socket string, serving *sync.WaitGroup) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "v")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unlisten(l) })
	serving = &sync.WaitGroup{}
	serving.Go(func() {
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
			m, f, err := receive(conn)
			f.Close()
			if err != nil {
				return
			}
			take(conn, m)
		}
	})
	return socket, serving
}

// However many callers drop at once, the vault need not read them all at once.
func TestDropsWaitForEachOther(t *testing.T) {
	const callers = 10 * maxDrops
	var begun sync.WaitGroup
	begun.Add(callers)
	var c *Client
	most := 0
	socket, serving := puppet(t, func(conn *fdwire.Conn, m *message) {
		begun.Wait()
		c.mu.Lock()
		most = max(most, len(c.pending))
		c.mu.Unlock()
		send(conn, &message{Type: typeDropped, ID: m.ID}, nil, nil)
	})
	c, _, err := Connect(t.Context(), ClientConfig{SocketPath: socket})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for id := range uint64(callers) {
		all.Go(func() {
			begun.Done()
			if err := c.Drop(id); err != nil {
				t.Errorf("dropping %d: %v", id, err)
			}
		})
	}
	all.Wait()
	c.Close(false)
	serving.Wait()
	if most > maxDrops {
		t.Errorf("%d drops waited for their answers at once", most)
	}
}

func TestAVaultThatFallsSilentIsLost(t *testing.T) {
	got := make(chan struct{})
	socket, serving := puppet(t, func(*fdwire.Conn, *message) { got <- struct{}{} })
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
