package dataplane_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/fdwire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	_ = b.Send(fdwire.Message{Packet: p, FDs: fds, Done: func() {}}) // they stay the caller's
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

// waitGone waits until no connection is left.
func waitGone(t *testing.T, h *house) { waitConnections(t, h, 0) }

func waitConnections(t *testing.T, h *house, n int) {
	t.Helper()
	for h.server.Connections() != n {
		runtime.Gosched()
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
