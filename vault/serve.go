package vault

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/fdwire"
)

// Config of a vault. The zero value with a SocketPath is sound.
type Config struct {
	// SocketPath is where to listen, at most 107 bytes. Its directory is made with
	// mode 0700.
	SocketPath string
	// Listener is used instead, if set: by Spawn and by socket activation (see
	// Inherited). Serve closes it.
	Listener *net.UnixListener
	// NodeTimeout is how long memory waits for the next node; 0: 10 minutes.
	NodeTimeout time.Duration
	// RecheckEvery is how often a vault that would end asks again whether its memory
	// is used; 0: 1 minute.
	RecheckEvery time.Duration
	// PingTimeout is how long a node may take to answer before it counts as silent;
	// 0: 2 seconds. A node answers from a goroutine that does nothing else.
	PingTimeout time.Duration
	// KillTimeout is how long the kernel may take to end a process; 0: 10 seconds,
	// since that of a process with much pinned memory takes seconds.
	KillTimeout time.Duration
	// HelloTimeout closes connections that do not say who they are; 0: 5 seconds.
	HelloTimeout time.Duration
	// MaxConnections at a time; 0: 64.
	MaxConnections int

	Log     *slog.Logger       // nil: discarded
	Clock   clock.Clock        // nil: the machine's
	Watcher fdwire.ExitWatcher // nil: a fdwire.Watcher
	// InUse tells whether anybody but the caller uses the memory of a descriptor;
	// nil: by write lease.
	InUse func(fd int) (bool, error)
	// Trim gives memory back to the system; called once after each burst of messages,
	// when none has come for TrimAfter. nil: not at all; Run sets it.
	Trim func()
	// TrimAfter is that time; 0: 1 second.
	TrimAfter time.Duration
	// Guard checks messages before they are decoded; nil: fdwire's default.
	Guard func([]byte) error
}

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&c.NodeTimeout, 10 * time.Minute}, {&c.RecheckEvery, time.Minute}, {&c.PingTimeout, 2 * time.Second},
		{&c.KillTimeout, 10 * time.Second}, {&c.HelloTimeout, 5 * time.Second}, {&c.TrimAfter, time.Second},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("vault: negative duration %s", *d.value)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 64
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.InUse == nil {
		c.InUse = leaseRefused
	}
	return c, nil
}

// Serve is a vault until it ends: nil when nobody needs it any more or ctx is
// cancelled; all descriptors are then closed.
func Serve(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	l := cfg.Listener
	if l == nil {
		if l, err = Listen(cfg.SocketPath); err != nil {
			return err
		}
	}
	own := cfg.Watcher == nil
	if own {
		w, err := fdwire.NewWatcher()
		if err != nil {
			_ = l.Close()
			return err
		}
		defer w.Close()
		cfg.Watcher = w
	}
	s := &server{cfg: cfg, listener: l, conns: map[uint64]*session{}, over: make(chan struct{}), capacity: capacity()}
	s.fence = fence{pingTimeout: cfg.PingTimeout, endTimeout: cfg.KillTimeout}
	s.mu.Lock()
	s.used()
	s.settle(false)
	s.mu.Unlock()
	s.running.Add(1)
	go s.accept()
	select {
	case <-ctx.Done():
	case <-s.over:
	}
	s.shutdown()
	return nil
}

// reserveFDs are left for connections, pidfds and a page of duplicates in flight
// for the next node.
const reserveFDs = 64 + 4*maxBatch

func capacity() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<30)) - reserveFDs
}

// server is the shell around fence and table. Everything below mu is done under it;
// nothing there blocks.
type server struct {
	cfg      Config
	listener *net.UnixListener
	capacity int
	running  sync.WaitGroup
	over     chan struct{} // closed when the vault has decided to end

	mu       sync.Mutex
	ended    bool
	table    table
	fence    fence
	conns    map[uint64]*session // connected, or holding
	lastConn uint64
	pings    uint64
	alarm    clock.Timer // of the fence
	vacancy  clock.Timer // of the end
	trim     clock.Timer // of the trim, pending after any message
	lastUse  clock.Instant
}

// session is one connection, and the process behind it for as long as that holds
// the vault.
type session struct {
	id      uint64
	conn    *fdwire.Conn
	peer    fdwire.Peer
	hello   bool
	helloID uint64
	node    bool // admitted
	open    bool // connected
	timer   clock.Timer
	unwatch func()
}

func (s *server) accept() {
	defer s.running.Done()
	fdwire.Accept(s.listener, s.cfg.Clock, s.over, s.cfg.Log, s.admitConn)
}

// admitConn lets in processes of our own user and root.
func (s *server) admitConn(nc *net.UnixConn) error {
	conn, err := fdwire.New(nc, wireConfig(s.cfg.Guard))
	if err != nil {
		_ = nc.Close()
		return err
	}
	peer, err := conn.Peer()
	if err != nil {
		_ = conn.Close()
		return err
	}
	if own := uint32(os.Geteuid()); peer.UID != own && peer.UID != 0 {
		send(conn, &message{Type: typeError, Code: codeForbidden, Error: "the vault serves its own user only"}, nil, nil)
		_ = conn.Close()
		peer.Close()
		return fmt.Errorf("pid %d has uid %d, not %d", peer.PID, peer.UID, own)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || len(s.conns) >= s.cfg.MaxConnections {
		_ = conn.Close()
		peer.Close()
		return fmt.Errorf("pid %d: ending, or %d connections are open", peer.PID, len(s.conns))
	}
	s.lastConn++
	c := &session{id: s.lastConn, conn: conn, peer: peer, open: true}
	c.timer = s.cfg.Clock.AfterFunc(s.cfg.HelloTimeout, func() { s.helloLate(c) })
	s.conns[c.id] = c
	s.running.Add(1)
	go s.read(c)
	return nil
}

func (s *server) helloLate(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.hello {
		_ = c.conn.Close()
	}
}

func (s *server) read(c *session) {
	defer s.running.Done()
	for {
		f, err := c.conn.Read()
		if err != nil {
			break
		}
		err = s.handle(c, &f)
		f.Close()
		if err != nil {
			s.cfg.Log.Warn("connection closed", "pid", c.peer.PID, "error", err)
			break
		}
	}
	_ = c.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.open = false
	c.timer.Stop()
	if !s.ended {
		s.apply(s.fence.disconnected(s.cfg.Clock.Now(), c.id))
	}
	if !c.node {
		delete(s.conns, c.id)
		c.peer.Close()
	}
	s.settle(false)
}

func (s *server) handle(c *session, f *fdwire.Frame) error {
	var m message
	if err := fdwire.Decode(f.Body, &m); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return net.ErrClosed
	}
	s.used()
	err := s.dispatch(c, &m, f)
	if err != nil {
		send(c.conn, &message{Type: typeError, ID: m.ID, Code: codeProtocol, Error: err.Error()}, nil, nil)
	}
	s.settle(false)
	return err
}

func (s *server) dispatch(c *session, m *message, f *fdwire.Frame) error {
	switch {
	case m.Type == typeHello && !c.hello:
		return s.hello(c, m)
	case !c.hello:
		return fmt.Errorf("%q before hello", m.Type)
	case m.Type == typeList:
		s.list(c, m)
		return nil
	case !c.node:
		return fmt.Errorf("%q by one who does not hold the vault", m.Type)
	}
	switch m.Type {
	case typePong:
		if m.ID == s.pings {
			s.apply(s.fence.pong(s.cfg.Clock.Now(), c.id))
		}
	case typeFetch:
		return s.fetch(c, m)
	case typePut:
		return s.put(c, m, f)
	case typeDrop:
		for _, id := range m.IDs {
			s.table.drop(id)
		}
		send(c.conn, &message{Type: typeDropped, ID: m.ID}, nil, nil)
	case typeBye:
		send(c.conn, &message{Type: typeBye, ID: m.ID}, nil, nil)
		s.apply(s.fence.bye(s.cfg.Clock.Now(), c.id))
		s.settle(true)
	default:
		return fmt.Errorf("unknown message %q", m.Type)
	}
	return nil
}

func (s *server) hello(c *session, m *message) error {
	c.hello, c.helloID = true, m.ID
	c.timer.Stop()
	if m.Version != protocolVersion {
		send(c.conn, &message{Type: typeError, ID: m.ID, Version: protocolVersion, Code: codeVersion, Error: "other version"}, nil, nil)
		return nil
	}
	switch m.Role {
	case roleQuery:
		s.welcome(c)
	case roleNode:
		s.apply(s.fence.hello(s.cfg.Clock.Now(), claimant{
			conn: c.id, pid: c.peer.PID, start: c.peer.StartTime, takeOver: m.TakeOver,
		}))
	default:
		return fmt.Errorf("unknown role %q", m.Role)
	}
	return nil
}

func (s *server) welcome(c *session) {
	send(c.conn, &message{
		Type: typeWelcome, ID: c.helloID, Version: protocolVersion, PID: os.Getpid(),
		Count: len(s.table.slots), Capacity: s.capacity,
	}, nil, nil)
}

// fetch answers with duplicates, so that a drop or the end of the vault cannot change
// under a message in the queue what its numbers mean.
func (s *server) fetch(c *session, m *message) error {
	after, ok := position(m)
	page, more := s.table.after(after, ok, maxBatch)
	answer := &message{Type: typeTable, ID: m.ID, More: more}
	var fds []int
	for _, e := range page {
		fd, err := unix.FcntlInt(uintptr(e.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			fdwire.Descriptors(fds).Close()
			return fmt.Errorf("duplicate %d: %w", e.id, err)
		}
		fds = append(fds, fd)
		answer.Entries = append(answer.Entries, wireEntry{ID: e.id, Label: e.label.Value()})
	}
	send(c.conn, answer, fds, nil)
	return nil
}

func (s *server) put(c *session, m *message, f *fdwire.Frame) error {
	if len(m.Entries) != len(f.FDs) {
		return fmt.Errorf("%d entries with %d descriptors", len(m.Entries), len(f.FDs))
	}
	answer := &message{Type: typeHeld, ID: m.ID}
	for i, e := range m.Entries {
		if len(e.Label) > MaxLabelBytes {
			return fmt.Errorf("label of %d bytes", len(e.Label))
		}
		if s.table.put(e.ID, e.Label, f.FDs[i]) {
			f.FDs.Take(i)
		} else {
			answer.IDs = append(answer.IDs, e.ID)
		}
	}
	send(c.conn, answer, nil, nil)
	return nil
}

func (s *server) list(c *session, m *message) {
	after, ok := position(m)
	page, more := s.table.after(after, ok, listPage)
	answer := &message{Type: typeListed, ID: m.ID, More: more}
	for i := range page {
		st := page[i].stat()
		answer.Stats = append(answer.Stats, wireStat(st))
	}
	send(c.conn, answer, nil, nil)
}

func position(m *message) (uint64, bool) {
	if m.After == nil {
		return 0, false
	}
	return *m.After, true
}
