package dataplane_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

// desk is a Desk with memory to give away. A claim is "ALLOCATION"; sessions are
// "s1", "s2", … with the token "t-" + id.
type desk struct {
	mu       sync.Mutex
	sessions int
	conns    map[string]dataplane.Conn
	known    map[string]bool // sessions of a former node, to be resumed
	maps     map[string]func() *dataplane.Mapping
	heard    chan string       // every call, as text
	hold     func(done func()) // keeps answers back, if set
}

func newDesk() *desk {
	return &desk{conns: map[string]dataplane.Conn{}, known: map[string]bool{}, maps: map[string]func() *dataplane.Mapping{}, heard: make(chan string, 10000)}
}

func (d *desk) answer(f func()) {
	d.mu.Lock()
	hold := d.hold
	d.mu.Unlock()
	if hold != nil {
		hold(f)
		return
	}
	f()
}

func (d *desk) Hello(peer fdwire.Peer, h dataplane.Hello, conn dataplane.Conn, done func(dataplane.Welcome, error)) {
	// Closed before anybody is answered: a test may count descriptors from then on.
	alive, self := !peer.Exited(), peer.PID == os.Getpid()
	peer.Close()
	if h.Client == "unwelcome" {
		done(dataplane.Welcome{}, schemas.Errorf(schemas.CodeForbidden, "not you"))
		return
	}
	d.mu.Lock()
	w := dataplane.Welcome{Node: "n1", BootID: "b1", NATSURL: "nats://127.0.0.1:4222"}
	if d.known[h.SessionID] && h.ResumeToken == "t-"+h.SessionID {
		w.SessionID, w.Resumed = h.SessionID, true
	} else {
		d.sessions++
		w.SessionID = fmt.Sprintf("s%d", d.sessions)
	}
	for _, id := range h.Held {
		if d.maps[id] == nil {
			w.Lost = append(w.Lost, id)
		}
	}
	w.ResumeToken = "t-" + w.SessionID
	d.conns[w.SessionID] = conn
	d.mu.Unlock()
	d.heard <- fmt.Sprintf("hello %s held=%v alive=%v self=%v", h.Client, h.Held, alive, self)
	d.answer(func() { done(w, nil) })
}

func (d *desk) Map(session, claim string, mode dataplane.Mode, done func(*dataplane.Mapping, error)) {
	d.heard <- fmt.Sprintf("map %s %s %s", session, claim, mode)
	d.mu.Lock()
	make := d.maps[claim]
	d.mu.Unlock()
	d.answer(func() {
		switch {
		case claim == "broken":
			done(nil, errors.New("the secret inside"))
		case make == nil:
			done(nil, schemas.Errorf(schemas.CodeStaleHandle, "the claim is gone"))
		default:
			done(make(), nil)
		}
	})
}

func (d *desk) Unmap(session, allocation string, done func(error)) {
	d.heard <- fmt.Sprintf("unmap %s %s", session, allocation)
	var err error
	if allocation == "lost" {
		err = schemas.Errorf(schemas.CodeAllocationNotFound, "no allocation %s", allocation)
	}
	d.answer(func() { done(err) })
}

// Offer reads what the file holds, as the desk of a node would.
func (d *desk) Offer(session, name string, file *os.File, done func(string, error)) {
	defer file.Close()
	text := make([]byte, 32)
	n, err := file.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		done("", schemas.Errorf(schemas.CodeFileNotReadable, "%v", err))
		return
	}
	d.heard <- fmt.Sprintf("offer %s %s %q", session, name, text[:n])
	d.answer(func() { done("file-claim-of-"+name, nil) })
}

func (d *desk) Ended(session string, conn dataplane.Conn) {
	d.mu.Lock()
	same := d.conns[session] == conn
	d.mu.Unlock()
	d.heard <- fmt.Sprintf("ended %s %v", session, same)
}

// conn is the connection of a session.
func (d *desk) conn(session string) dataplane.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conns[session]
}

func (d *desk) want(t *testing.T, want string) {
	t.Helper()
	if got := <-d.heard; got != want {
		t.Fatalf("the desk heard %q, want %q", got, want)
	}
}

// grant makes an allocation of n memfd segments. The grant begins at offset 100 of
// the first and each segment is filled with its index.
func (d *desk) grant(t testing.TB, id string, n int, tensors []schemas.Tensor) {
	t.Helper()
	const size = 4096
	fds := make([]int, n)
	for i := range fds {
		var err error
		if fds[i], err = unix.MemfdCreate("isobar-test", unix.MFD_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Pwrite(fds[i], bytes.Repeat([]byte{byte(i)}, size), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.maps[id] = func() *dataplane.Mapping {
		m := &dataplane.Mapping{AllocationID: id, Kind: "memfd", DeviceUUID: "u", Tensors: tensors}
		for i, fd := range fds {
			own, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
			if err != nil {
				panic(err)
			}
			s := dataplane.Segment{File: own, SegmentBytes: size, SizeBytes: size}
			if i == 0 {
				s.Offset, s.SizeBytes = 100, size-100
			}
			m.SizeBytes += s.SizeBytes
			m.Segments = append(m.Segments, s)
		}
		return m
	}
}

type refusing struct{ *desk }

func (r refusing) Hello(peer fdwire.Peer, h dataplane.Hello, conn dataplane.Conn, done func(dataplane.Welcome, error)) {
	h.Client = "unwelcome"
	r.desk.Hello(peer, h, conn, done)
}
