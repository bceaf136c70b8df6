package dataplane_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

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
	h.conn("s1").Revoke("a", 1500*time.Millisecond, "its tenant is over quota")
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
	h.conn("s2").Revoke("a", 0, "")
	if err := deaf.Ping(t.Context()); err != nil || m.Segments[0].Bytes[0] != 0 {
		t.Fatal(err)
	}
	// What is not mapped is given back at once.
	h.conn("s2").Revoke("other", 0, "")
	h.want(t, "unmap s2 other")
	if len(h.heard) != 0 {
		t.Fatal(<-h.heard)
	}
	h.conn("s2").Close()
	// The client comes back at once, and may be heard first.
	for got := <-h.heard; got != "ended s2 true"; got = <-h.heard {
		if !strings.HasPrefix(got, "hello ") {
			t.Fatal(got)
		}
	}
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
	lost, err := c.Map(t.Context(), "lost", client.ReadWrite)
	if err != nil {
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
	// What the node does not know is not mapped as far as it knows: nothing is wrong.
	if err := c.Unmap(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	next.want(t, "unmap s1 lost")
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

func TestAnOfferedFileArrives(t *testing.T) {
	h := serve(t, nil)
	c := dial(t, h, nil)
	h.want(t, "hello test held=[] alive=true self=true")
	before := openFDs(t)
	f := memfile(t, "the model")
	claim, err := c.Offer(t.Context(), "m", f)
	if err != nil || claim != "file-claim-of-m" {
		t.Fatal(claim, err)
	}
	h.want(t, `offer s1 m "the model"`)
	if _, err := f.WriteString("!"); err != nil {
		t.Fatal("the file is not the caller's any more:", err)
	}
	if _, err := c.Offer(t.Context(), "", f); !errors.Is(err, schemas.Errorf(schemas.CodeInvalidRequest, "")) {
		t.Fatal(err)
	}
	f.Close()
	if _, err := c.Offer(t.Context(), "closed", f); err == nil {
		t.Fatal("a closed file was offered")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	h.server.Close() // what waits for a node is given up, and its descriptor closed
	g := memfile(t, "never sent")
	for {
		if _, err := c.Offer(over, "late", g); errors.Is(err, context.Canceled) {
			break
		}
	}
	g.Close()
	c.Close()
	if now := openFDs(t); now > before {
		t.Fatalf("%d descriptors, %d before", now, before)
	}
}

func memfile(t *testing.T, content string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("offered", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "offered")
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f
}
