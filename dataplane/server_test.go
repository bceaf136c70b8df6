package dataplane_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

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
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, fd := range append(pipe[:], fd) {
			unix.Close(fd)
		}
	})
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
		{"offer without a name", map[string]any{"type": "offer"}, []int{fd}, schemas.CodeInvalidRequest, "name"},
		{"offer with a long name", map[string]any{"type": "offer", "name": long}, []int{fd}, schemas.CodeInvalidRequest, "2000 bytes"},
		{"offer without a file", map[string]any{"type": "offer", "name": "f"}, nil, schemas.CodeInvalidRequest, "descriptor"},
		{"offer of a pipe", map[string]any{"type": "offer", "name": "f"}, []int{pipe[0]}, schemas.CodeFileNotReadable, "illegal seek"},
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
