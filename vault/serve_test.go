package vault

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
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

func TestBreachesOfTheProtocol(t *testing.T) {
	base := descriptors(t)
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
	for d := range descriptors(t) {
		if !base[d] {
			t.Errorf("left open: %s", d)
		}
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
