package dataplane_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	defer peer.Close()
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
	d.heard <- fmt.Sprintf("hello %s held=%v alive=%v self=%v", h.Client, h.Held, !peer.Exited(), peer.PID == os.Getpid())
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
	d.answer(func() { done(nil) })
}

func (d *desk) Ended(session string, conn dataplane.Conn) {
	d.mu.Lock()
	same := d.conns[session] == conn
	d.mu.Unlock()
	d.heard <- fmt.Sprintf("ended %s %v", session, same)
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

type house struct {
	*desk
	server *dataplane.Server
	socket string
	clock  *clock.Manual
	log    *bytes.Buffer
}

func serve(t testing.TB, change func(*dataplane.Config)) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "dp")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{desk: newDesk(), socket: filepath.Join(dir, "s"), clock: clock.NewManual(1e9, time.Unix(0, 0)), log: &bytes.Buffer{}}
	cfg := dataplane.Config{SocketPath: h.socket, Desk: h.desk, Clock: h.clock, Log: slog.New(slog.NewTextHandler(h.log, nil))}
	if change != nil {
		change(&cfg)
	}
	if h.server, err = dataplane.Listen(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.server.Close(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return h
}

func dial(t testing.TB, h *house, change func(*client.Config)) *client.Client {
	t.Helper()
	cfg := client.Config{SocketPath: h.socket, Name: "test"}
	if change != nil {
		change(&cfg)
	}
	c, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// bare is a connection without the client's manners.
type bare struct {
	t testing.TB
	*fdwire.Conn
}

func dialBare(t testing.TB, h *house, hello bool) *bare {
	t.Helper()
	nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: h.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := fdwire.New(nc, fdwire.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	b := &bare{t, conn}
	if hello {
		b.say(map[string]any{"type": "hello", "id": 1})
		b.read("welcome")
	}
	return b
}

func (b *bare) say(m map[string]any, fds ...int) {
	b.t.Helper()
	p, err := fdwire.Encode(m)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = b.Send(fdwire.Message{Packet: p, FDs: fds})
}

type answer struct {
	Type    string `json:"type"`
	ID      uint64 `json:"id"`
	Code    string `json:"error_code"`
	Message string `json:"error_message"`
	Status  int    `json:"status_code"`
	Alloc   string `json:"allocation_id"`
}

func (b *bare) read(wantType string) answer {
	b.t.Helper()
	f, err := b.Read()
	if err != nil {
		b.t.Fatalf("read: %v, want %s", err, wantType)
	}
	defer f.Close()
	var a answer
	if err := fdwire.Decode(f.Body, &a); err != nil || a.Type != wantType {
		b.t.Fatalf("%+v, %v, want %s", a, err, wantType)
	}
	return a
}

func (b *bare) wantEnd() {
	b.t.Helper()
	if _, err := b.Read(); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		b.t.Fatalf("the connection goes on: %v", err)
	}
}

func openFDs(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestASessionFromHelloToEnd(t *testing.T) {
	h := serve(t, nil)
	h.grant(t, "a1", 3, []schemas.Tensor{{Name: "w", DType: "U8", Shape: []int64{16}, Segment: 1, Offset: 32, SizeBytes: 16}})
	c := dial(t, h, nil)
	h.want(t, "hello test held=[] alive=true self=true")
	if s := c.Session(); s.ID != "s1" || s.Node != "n1" || s.BootID != "b1" || s.NATSURL != "nats://127.0.0.1:4222" {
		t.Fatalf("%+v", s)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := c.Map(t.Context(), "a1", client.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	h.want(t, "map s1 a1 rw")
	if m.AllocationID != "a1" || m.SizeBytes != 3*4096-100 || len(m.Segments) != 3 || m.DeviceUUID != "u" {
		t.Fatalf("%+v", m)
	}
	if len(m.Segments[0].Bytes) != 4096-100 || m.Segments[2].Bytes[4095] != 2 {
		t.Fatal("wrong bytes")
	}
	if w := m.Tensor("w"); !bytes.Equal(w, bytes.Repeat([]byte{1}, 16)) || m.Tensor("none") != nil {
		t.Fatalf("tensor %v", w)
	}
	// A second claim on the same grant is not a second mapping.
	if _, err := c.Map(t.Context(), "a1", client.ReadOnly); !errors.Is(err, client.ErrMapped) {
		t.Fatal(err)
	}
	h.want(t, "map s1 a1 ro")
	m.Segments[2].Bytes[0] = 77 // shared: another session sees it
	other := dial(t, h, nil)
	h.want(t, "hello test held=[] alive=true self=true")
	o, err := other.Map(t.Context(), "a1", client.ReadOnly)
	if err != nil || o.Segments[2].Bytes[0] != 77 {
		t.Fatal(err)
	}
	h.want(t, "map s2 a1 ro")
	if err := c.Unmap(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	h.want(t, "unmap s1 a1")
	if err := c.Unmap(t.Context(), m); err != nil {
		t.Fatal("a second unmap must do nothing", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	h.want(t, "ended s1 true")
	if err := c.Ping(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Fatal(err)
	}
	if strings.Contains(h.log.String(), "a1") {
		t.Fatalf("a claim is in the log: %s", h.log)
	}
}

func TestErrorsOfTheContract(t *testing.T) {
	h := serve(t, nil)
	b := dialBare(t, h, true)
	fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 2000)
	for i, tc := range []struct {
		name string
		m    map[string]any
		fds  []int
		code schemas.Code
		text string
	}{
		{"stale claim", map[string]any{"type": "map", "claim": "gone"}, nil, schemas.CodeStaleHandle, "gone"},
		{"a defect", map[string]any{"type": "map", "claim": "broken"}, nil, schemas.CodeInternalError, "log"},
		{"no claim", map[string]any{"type": "map"}, nil, schemas.CodeInvalidRequest, "claim"},
		{"empty claim", map[string]any{"type": "map", "claim": ""}, nil, schemas.CodeInvalidRequest, "claim"},
		{"wrong mode", map[string]any{"type": "map", "claim": "x", "mode": "rwx"}, nil, schemas.CodeInvalidRequest, "mode"},
		{"wrong type", map[string]any{"type": "map", "claim": []int{1}}, nil, schemas.CodeInvalidRequest, ""},
		{"unknown field", map[string]any{"type": "map", "claim": "x", "extra": 1}, nil, schemas.CodeInvalidRequest, "extra"},
		{"long claim", map[string]any{"type": "map", "claim": long}, nil, schemas.CodeInvalidRequest, "2000 bytes"},
		{"no allocation", map[string]any{"type": "unmap"}, nil, schemas.CodeInvalidRequest, "allocation_id"},
		{"long allocation", map[string]any{"type": "unmap", "allocation_id": long}, nil, schemas.CodeInvalidRequest, "2000 bytes"},
		{"hello twice", map[string]any{"type": "hello"}, nil, schemas.CodeInvalidRequest, "already"},
		{"offer", map[string]any{"type": "offer", "name": "f"}, []int{fd}, schemas.CodeNotImplemented, "offer"},
		{"unknown type", map[string]any{"type": "what"}, nil, schemas.CodeInvalidRequest, "what"},
		{"no type", map[string]any{}, nil, schemas.CodeInvalidRequest, "type"},
		{"ping with a field", map[string]any{"type": "ping", "x": 1}, nil, schemas.CodeInvalidRequest, "x"},
	} {
		tc.m["id"] = 100 + i
		b.say(tc.m, tc.fds...)
		a := b.read("error")
		if a.ID != uint64(100+i) || a.Code != string(tc.code) || a.Status != tc.code.Status() || !strings.Contains(a.Message, tc.text) {
			t.Errorf("%s: %+v", tc.name, a)
		}
		if strings.Contains(a.Message, "secret") {
			t.Errorf("%s: the inside is told: %s", tc.name, a.Message)
		}
	}
	b.say(map[string]any{"type": "ping", "id": 7})
	if a := b.read("pong"); a.ID != 7 {
		t.Fatalf("%+v", a)
	}
	// Absent, in any letter case and as an empty string: the contract's rules.
	h.grant(t, "a", 1, nil)
	for _, mode := range []any{"RW", "", nil} {
		b.say(map[string]any{"type": "map", "id": 1, "claim": "a", "mode": mode})
		b.read("mapped")
	}
}

func TestBreachesEndTheConnection(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.FramesPerSecond = 50 })
	b := dialBare(t, h, false)
	b.say(map[string]any{"type": "map", "id": 3, "claim": "a"})
	if a := b.read("error"); a.ID != 3 || a.Code != "INVALID_REQUEST" {
		t.Fatalf("%+v", a)
	}
	b.wantEnd()

	waitGone(t, h)
	b = dialBare(t, h, false)
	waitConnections(t, h, 1)
	h.clock.Advance(5 * time.Second)
	b.wantEnd()

	b = dialBare(t, h, false)
	b.say(map[string]any{"type": "hello", "id": 1, "client": "unwelcome"})
	if a := b.read("error"); a.Code != "FORBIDDEN" {
		t.Fatalf("%+v", a)
	}
	b.wantEnd()

	b = dialBare(t, h, true)
	h.want(t, "hello  held=[] alive=true self=true")
	for range 60 {
		b.say(map[string]any{"type": "ping", "id": 1})
	}
	for range 49 {
		b.read("pong")
	}
	if a := b.read("error"); a.Code != "BUSY" {
		t.Fatalf("%+v", a)
	}
	b.wantEnd()
	h.want(t, "ended s1 true")
	if len(h.heard) != 0 {
		t.Fatalf("the desk heard %q", <-h.heard)
	}
}

func TestTheRateIsEarnedAgain(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.FramesPerSecond = 10 })
	b := dialBare(t, h, true)
	for range 5 {
		for range 9 {
			b.say(map[string]any{"type": "ping", "id": 1})
			b.read("pong")
		}
		h.clock.Advance(time.Second)
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.MaxConnectionsPerUID = 2 })
	a, b := dialBare(t, h, true), dialBare(t, h, true)
	dialBare(t, h, false).wantEnd()
	a.Close()
	h.want(t, "hello  held=[] alive=true self=true")
	h.want(t, "hello  held=[] alive=true self=true")
	h.want(t, "ended s1 true") // counted out before the desk hears of it
	dialBare(t, h, true)
	b.say(map[string]any{"type": "ping", "id": 1})
	b.read("pong")

	h = serve(t, func(c *dataplane.Config) { c.MaxConnections = 1 })
	dialBare(t, h, true)
	dialBare(t, h, false).wantEnd()

	h = serve(t, func(c *dataplane.Config) { c.AllowUIDs = []uint32{12345} })
	dialBare(t, h, false).wantEnd()
	if st, err := os.Stat(h.socket); err != nil || st.Mode().Perm() != 0o666 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
	h = serve(t, nil)
	if st, err := os.Stat(h.socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
}

func TestUnansweredRequestsAreLimited(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.MaxOutstanding = 3 })
	h.grant(t, "a", 1, nil)
	b := dialBare(t, h, true)
	held := make(chan func(), 10)
	h.mu.Lock()
	h.hold = func(done func()) { held <- done }
	h.mu.Unlock()
	for i := range 4 {
		b.say(map[string]any{"type": "map", "id": 10 + i, "claim": "a"})
	}
	if a := b.read("error"); a.ID != 13 || a.Code != "BUSY" {
		t.Fatalf("%+v", a)
	}
	for range 3 {
		(<-held)()
		b.read("mapped")
	}
	b.say(map[string]any{"type": "unmap", "id": 20, "allocation_id": "a"})
	(<-held)()
	if a := b.read("unmapped"); a.ID != 20 || a.Alloc != "a" {
		t.Fatalf("%+v", a)
	}
}

func TestAnswersAfterTheEnd(t *testing.T) {
	h := serve(t, nil)
	h.grant(t, "a", 2, nil)
	held := make(chan func(), 10)
	h.mu.Lock()
	h.hold = func(done func()) { held <- done }
	h.mu.Unlock()
	before := openFDs(t)

	// The client goes before the desk has answered its hello: the desk hears of the
	// end once it has.
	b := dialBare(t, h, false)
	b.say(map[string]any{"type": "hello", "id": 1})
	h.want(t, "hello  held=[] alive=true self=true")
	b.Close()
	welcome := <-held
	waitGone(t, h)
	welcome()
	h.want(t, "ended s1 true")

	// The client goes before its mapping is ready: the files are closed.
	b = dialBare(t, h, false)
	b.say(map[string]any{"type": "hello", "id": 1})
	h.want(t, "hello  held=[] alive=true self=true")
	(<-held)()
	b.read("welcome")
	b.say(map[string]any{"type": "map", "id": 1, "claim": "a"})
	h.want(t, "map s2 a ro")
	b.Close()
	h.want(t, "ended s2 true")
	(<-held)()
	if now := openFDs(t); now != before {
		t.Fatalf("%d descriptors, %d before", now, before)
	}
}

// waitGone waits until no connection is left.
func waitGone(t *testing.T, h *house) { waitConnections(t, h, 0) }

func waitConnections(t *testing.T, h *house, n int) {
	t.Helper()
	for h.server.Connections() != n {
		runtime.Gosched()
	}
}

func TestAMappingInParts(t *testing.T) {
	h := serve(t, nil)
	const n = 1000
	var tensors []schemas.Tensor
	for i := range 20000 {
		tensors = append(tensors, schemas.Tensor{
			Name: fmt.Sprintf("model.layers.%d.%s", i, strings.Repeat("x", 80)), DType: "U8", Shape: []int64{2, 8}, Segment: i % n, Offset: 16, SizeBytes: 16,
		})
	}
	h.grant(t, "big", n, tensors)
	before := openFDs(t)
	c := dial(t, h, nil)
	start := time.Now()
	m, err := c.Map(t.Context(), "big", client.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d segments and %d tensors mapped in %v", len(m.Segments), len(m.Tensors), time.Since(start))
	if len(m.Segments) != n || len(m.Tensors) != len(tensors) {
		t.Fatalf("%d segments, %d tensors", len(m.Segments), len(m.Tensors))
	}
	for i := range m.Segments {
		if b := m.Segments[i].Bytes; b[0] != byte(i) || b[len(b)-1] != byte(i) {
			t.Fatalf("segment %d is another", i)
		}
	}
	for _, i := range []int{0, 999, 19999} {
		if b := m.Tensor(tensors[i].Name); len(b) != 16 || b[0] != byte(i%n) {
			t.Fatalf("tensor %d: %v", i, b)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	waitGone(t, h)
	if now := openFDs(t); now != before {
		t.Fatalf("%d descriptors, %d before", now, before)
	}
}

func TestPartsKeepTheContract(t *testing.T) {
	h := serve(t, nil)
	h.grant(t, "parts", 300, []schemas.Tensor{{Name: "last", Segment: 299, SizeBytes: 1}})
	b := dialBare(t, h, true)
	b.say(map[string]any{"type": "map", "id": 9, "claim": "parts"})
	index := 0
	for _, want := range []struct {
		segments int
		more     bool
	}{{128, true}, {128, true}, {44, false}} {
		f, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			ID       uint64
			More     bool              `json:"more"`
			Alloc    string            `json:"allocation_id"`
			Segments []schemas.Segment `json:"segments"`
		}
		if err := fdwire.Decode(f.Body, &m); err != nil {
			t.Fatal(err)
		}
		if len(m.Segments) != want.segments || len(f.FDs) != want.segments || m.More != want.more || m.Alloc != "parts" {
			t.Fatalf("%d segments, %d descriptors, more %v", len(m.Segments), len(f.FDs), m.More)
		}
		for i, s := range m.Segments {
			var first [1]byte
			if _, err := unix.Pread(f.FDs[s.FD], first[:], 0); s.FD != i || err != nil || first[0] != byte(index) {
				t.Fatalf("segment %d: fd %d, content %d, %v", index, s.FD, first[0], err)
			}
			index++
		}
		f.Close()
	}
}

func TestASlowReaderIsDisconnected(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.QueueBytes = 64 << 10 })
	var tensors []schemas.Tensor
	for i := range 3000 {
		tensors = append(tensors, schemas.Tensor{Name: fmt.Sprintf("tensor-%d", i)})
	}
	h.grant(t, "a", 10, tensors)
	before := openFDs(t)
	b := dialBare(t, h, true)
	for i := range 20 {
		b.say(map[string]any{"type": "map", "id": i + 2, "claim": "a"})
	}
	h.want(t, "hello  held=[] alive=true self=true")
	for {
		if got := <-h.heard; got == "ended s1 true" {
			break
		}
	}
	// Another client is not held up meanwhile.
	c := dial(t, h, nil)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Close()
	c.Close()
	waitGone(t, h)
	if now := openFDs(t); now != before {
		t.Fatalf("%d descriptors, %d before", now, before)
	}
}

// mapped is how many segments of grants this process has mapped.
func mapped(t *testing.T) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), "isobar-test")
}

func TestRevoke(t *testing.T) {
	h := serve(t, nil)
	h.grant(t, "a", 1, nil)
	got := make(chan client.Revocation, 1)
	c := dial(t, h, func(cfg *client.Config) { cfg.OnRevoke = func(r client.Revocation) { got <- r } })
	m, err := c.Map(t.Context(), "a", client.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	h.want(t, "hello test held=[] alive=true self=true")
	h.want(t, "map s1 a rw")
	if mapped(t) != 1 {
		t.Fatalf("%d mappings", mapped(t))
	}
	h.conns["s1"].Revoke("a", 1500*time.Millisecond, "its tenant is over quota")
	r := <-got
	if r.AllocationID != "a" || r.Deadline != 1500*time.Millisecond || r.Reason != "its tenant is over quota" || r.Mapping != m {
		t.Fatalf("%+v", r)
	}
	h.want(t, "unmap s1 a")
	if mapped(t) != 0 {
		t.Fatal("it is still mapped")
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	// One that does not listen keeps what it has.
	deaf := dial(t, h, nil)
	m, err = deaf.Map(t.Context(), "a", client.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	h.want(t, "hello test held=[] alive=true self=true")
	h.want(t, "map s2 a rw")
	h.conns["s2"].Revoke("a", 0, "")
	if err := deaf.Ping(t.Context()); err != nil || m.Segments[0].Bytes[0] != 0 {
		t.Fatal(err)
	}
	// What is not mapped is given back at once.
	h.conns["s2"].Revoke("other", 0, "")
	h.want(t, "unmap s2 other")
	if len(h.heard) != 0 {
		t.Fatal(<-h.heard)
	}
	h.conns["s2"].Close()
	h.want(t, "ended s2 true")
}

func TestMappingsOutliveTheNode(t *testing.T) {
	h := serve(t, nil)
	h.grant(t, "kept", 2, nil)
	h.grant(t, "lost", 1, nil)
	resumed := make(chan client.Resumption, 1)
	c := dial(t, h, func(cfg *client.Config) { cfg.OnResume = func(r client.Resumption) { resumed <- r } })
	kept, err := c.Map(t.Context(), "kept", client.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Map(t.Context(), "lost", client.ReadWrite); err != nil {
		t.Fatal(err)
	}
	kept.Segments[1].Bytes[5] = 99

	// A request on its way when the node dies.
	reached := make(chan struct{})
	h.mu.Lock()
	h.hold = func(func()) { close(reached) }
	h.mu.Unlock()
	failed := make(chan error, 1)
	go func() { _, err := c.Map(t.Context(), "kept", client.ReadOnly); failed <- err }()
	<-reached
	if err := h.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, client.ErrDisconnected) {
		t.Fatal(err)
	}
	// The node's own end is not its sessions' end.
	for len(h.heard) > 0 {
		if got := <-h.heard; strings.HasPrefix(got, "ended") {
			t.Fatal(got)
		}
	}
	if kept.Segments[1].Bytes[5] != 99 {
		t.Fatal("the memory has changed")
	}
	// One that is asked while no node runs waits for the next.
	ponged := make(chan error, 1)
	go func() { ponged <- c.Ping(t.Context()) }()

	next := newDesk()
	next.known["s1"] = true
	next.maps["kept"] = h.maps["kept"]
	server, err := dataplane.Listen(dataplane.Config{SocketPath: h.socket, Desk: next})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	r := <-resumed
	if !r.Resumed || r.Session.ID != "s1" || len(r.Lost) != 1 || r.Lost[0] != "lost" {
		t.Fatalf("%+v", r)
	}
	next.want(t, "hello test held=[kept lost] alive=true self=true")
	if err := <-ponged; err != nil {
		t.Fatal(err)
	}
	if err := c.Unmap(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	next.want(t, "unmap s1 kept")
}

func TestACancelledMapIsGivenBack(t *testing.T) {
	h := serve(t, nil)
	h.grant(t, "a", 200, nil)
	c := dial(t, h, nil)
	before := openFDs(t)
	held := make(chan func(), 1)
	h.mu.Lock()
	h.hold = func(done func()) { held <- done }
	h.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { _, err := c.Map(ctx, "a", client.ReadOnly); failed <- err }()
	done := <-held
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	h.want(t, "hello test held=[] alive=true self=true")
	h.want(t, "map s1 a ro")
	h.mu.Lock()
	h.hold = nil
	h.mu.Unlock()
	done()
	h.want(t, "unmap s1 a")
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := openFDs(t); now != before {
		t.Fatalf("%d descriptors, %d before", now, before)
	}
}

func TestAClientDistrustsWhatItIsSent(t *testing.T) {
	h := serve(t, nil)
	h.grant(t, "good", 2, nil)
	good := h.maps["good"]
	for name, spoil := range map[string]func(*dataplane.Mapping){
		"short file":      func(m *dataplane.Mapping) { m.Segments[1].SegmentBytes, m.Segments[1].SizeBytes = 8192, 8192 },
		"negative offset": func(m *dataplane.Mapping) { m.Segments[1].Offset = -4096 },
		"beyond the end":  func(m *dataplane.Mapping) { m.Segments[1].Offset = 1 << 62 },
		"nothing":         func(m *dataplane.Mapping) { m.Segments[1].SizeBytes = 0 },
	} {
		h.mu.Lock()
		h.maps[name] = func() *dataplane.Mapping { m := good(); m.AllocationID = name; spoil(m); return m }
		h.mu.Unlock()
	}
	c := dial(t, h, nil)
	before := openFDs(t)
	for _, name := range []string{"short file", "negative offset", "beyond the end", "nothing"} {
		for len(h.heard) > 0 {
			<-h.heard
		}
		if _, err := c.Map(t.Context(), name, client.ReadWrite); err == nil {
			t.Fatalf("%s was mapped", name)
		}
		h.want(t, "map s1 "+name+" rw")
		h.want(t, "unmap s1 "+name)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := openFDs(t); now != before {
		t.Fatalf("%d descriptors, %d before", now, before)
	}
}

func TestARefusedResumptionIsFinal(t *testing.T) {
	h := serve(t, nil)
	heard := make(chan client.Resumption, 1)
	c := dial(t, h, func(cfg *client.Config) { cfg.OnResume = func(r client.Resumption) { heard <- r }; cfg.Name = "x" })
	h.server.Close()
	server, err := dataplane.Listen(dataplane.Config{SocketPath: h.socket, Desk: refusing{h.desk}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if r := <-heard; !errors.Is(r.Err, schemas.Errorf(schemas.CodeForbidden, "")) {
		t.Fatalf("%+v", r)
	}
	if err := c.Ping(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Fatal(err)
	}
}

type refusing struct{ *desk }

func (r refusing) Hello(peer fdwire.Peer, h dataplane.Hello, conn dataplane.Conn, done func(dataplane.Welcome, error)) {
	h.Client = "unwelcome"
	r.desk.Hello(peer, h, conn, done)
}
