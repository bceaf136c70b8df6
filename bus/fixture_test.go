package bus_test

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/bus/local"
	"github.com/isobar-project/isobar/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests; none of them gets near it.
const patience = 5 * time.Second

// desk is a fake of the actors: it hands every command to a function.
type desk func(c *actors.Command)

func (d desk) Submit(c *actors.Command) { d(c) }

// ledger records events instead of publishing them.
type ledger struct {
	mu     sync.Mutex
	events []schemas.Event
	more   chan struct{}
}

func newLedger() *ledger { return &ledger{more: make(chan struct{}, 1024)} }

func (l *ledger) Publish(e schemas.Event) {
	l.mu.Lock()
	l.events = append(l.events, e)
	l.mu.Unlock()
	l.more <- struct{}{}
}

func (l *ledger) next(t testing.TB) schemas.Event {
	t.Helper()
	select {
	case <-l.more:
	case <-time.After(patience):
		t.Fatal("no event was published")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.events[0]
	l.events = l.events[1:]
	return e
}

// records keeps log messages.
type records struct {
	mu   sync.Mutex
	text []byte
}

func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, b...)
	return len(b), nil
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.text)
}

func (r *records) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

func startServer(t testing.TB, c bus.ServerConfig) *bus.Server {
	t.Helper()
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	s, err := bus.StartServer(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func dial(t testing.TB, c conn.Config) *nats.Conn {
	t.Helper()
	nc, err := conn.Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func localLink(t testing.TB, s *bus.Server) *local.Client {
	t.Helper()
	user, password := s.Credentials()
	l, err := local.Dial(local.Config{Server: s, Username: user, Password: password, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// plain is a connection as any NATS client makes it, over TCP.
func plain(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// node is a server and a service with a fake desk.
type node struct {
	server *bus.Server
	events *ledger
	log    *records
}

func startNode(t testing.TB, d actors.Desk, change func(*bus.ServiceConfig)) *node {
	t.Helper()
	n := &node{server: startServer(t, bus.ServerConfig{}), events: newLedger(), log: &records{}}
	c := bus.ServiceConfig{Link: localLink(t, n.server), Node: "here", Version: "1.2.3", Desk: d, Events: n.events, Log: n.log.logger()}
	if change != nil {
		change(&c)
	}
	s, err := bus.NewService(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return n
}

// granted is a typical answer to allocate.
func granted() *schemas.AllocateReply {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	return &schemas.AllocateReply{
		Finished: schemas.Done(), Success: true, DeviceID: "ram-0", AllocationID: "0192f0c1-7b1e-7c3a-9d2e-2f8f4c1d5a77",
		Allocation: schemas.Allocation{AllocationID: "0192f0c1-7b1e-7c3a-9d2e-2f8f4c1d5a77", Node: "here", DeviceID: "ram-0",
			SizeBytes: 1 << 20, GrantedBytes: 1 << 20, AllocationType: schemas.DeviceTypeRAM, Class: schemas.ClassScratch,
			Purpose: "kv-cache", Status: schemas.AllocationActive, Owner: schemas.Owner{Tenant: "default"}, CreatedAt: at, Timestamp: at},
		AllocationTimeMs: 0.021, Evicted: nil, AvailableMemoryBytes: 8 << 30, UtilizationPercentage: 12.5, AllocatedAt: at,
		Handle: &schemas.Handle{Kind: schemas.HandleMemfd, Node: "here", DataSocket: "/run/user/1000/isobar/data.sock",
			Claim: "c2VjcmV0LWNsYWltLXNlY3JldC1jbGFpbQ", ClaimExpiresAt: at.Add(time.Minute), SizeBytes: 1 << 20, SegmentCount: 1},
	}
}
