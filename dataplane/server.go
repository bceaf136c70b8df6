package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/fdwire"
)

// Config of a server. SocketPath and Desk are required.
type Config struct {
	// SocketPath in a directory that exists, at most 107 bytes. A stale socket is
	// replaced.
	SocketPath string
	Desk       Desk
	// AllowUIDs are the users who may connect; empty: our own and root. With others
	// among them the socket is open to everybody (mode 0666 instead of 0600), and the
	// kernel's word on who connects decides.
	AllowUIDs []uint32
	// MaxConnections at a time; 0: 1024. MaxConnectionsPerUID; 0: 512.
	MaxConnections, MaxConnectionsPerUID int
	// MaxOutstanding is how many requests of a connection may be unanswered; 0: 64.
	MaxOutstanding int
	// FramesPerSecond a connection may send, with bursts of as many; 0: 20,000.
	FramesPerSecond int
	// HelloTimeout closes connections that do not say who they are; 0: 5 seconds.
	HelloTimeout time.Duration
	// QueueBytes waits for a slow client; 0: 8 MiB, several of the largest mappings.
	QueueBytes int

	Clock clock.Clock  // nil: the machine's
	Log   *slog.Logger // nil: discarded
}

func (c Config) withDefaults() (Config, error) {
	if c.Desk == nil {
		return c, errors.New("dataplane: no desk")
	}
	for _, v := range []struct {
		value *int
		def   int
	}{
		{&c.MaxConnections, 1024}, {&c.MaxConnectionsPerUID, 512}, {&c.MaxOutstanding, 64},
		{&c.FramesPerSecond, 20_000}, {&c.QueueBytes, 8 << 20},
	} {
		if *v.value < 0 {
			return c, fmt.Errorf("dataplane: negative limit %d", *v.value)
		}
		if *v.value == 0 {
			*v.value = v.def
		}
	}
	if c.HelloTimeout < 0 {
		return c, fmt.Errorf("dataplane: negative hello timeout %s", c.HelloTimeout)
	}
	if c.HelloTimeout == 0 {
		c.HelloTimeout = 5 * time.Second
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if len(c.AllowUIDs) == 0 {
		c.AllowUIDs = []uint32{uint32(os.Geteuid()), 0}
	}
	return c, nil
}

// mode of the socket's file.
func (c *Config) mode() os.FileMode {
	for _, uid := range c.AllowUIDs {
		if uid != 0 && uid != uint32(os.Geteuid()) {
			return 0o666
		}
	}
	return 0o600
}

// Server is the listening data socket.
type Server struct {
	cfg      Config
	listener *net.UnixListener
	stopping chan struct{}
	running  sync.WaitGroup
	tables   tables

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}
	perUID map[uint32]int
}

// Listen makes the socket and serves it until Close.
func Listen(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l, err := fdwire.Listen(cfg.SocketPath, cfg.mode())
	if err != nil {
		return nil, fmt.Errorf("dataplane: %w", err)
	}
	s := &Server{cfg: cfg, listener: l, stopping: make(chan struct{}), conns: map[*conn]struct{}{}, perUID: map[uint32]int{}}
	s.running.Add(1)
	go s.accept()
	return s, nil
}

// Close ends the socket and all connections and waits for their goroutines. No session
// is reported as ended.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.running.Wait()
		return nil
	}
	s.closed = true
	close(s.stopping)
	// Removed first: a client that sees its connection end must not meet the dead
	// socket's file.
	err := os.Remove(s.cfg.SocketPath)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, s.listener.Close())
	for c := range s.conns {
		_ = c.wire.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	return err
}

// Connections is how many are open.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Server) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) accept() {
	defer s.running.Done()
	fdwire.Accept(s.listener, s.cfg.Clock, s.stopping, s.cfg.Log.With("socket", "data"), s.admit)
}

func (s *Server) admit(nc *net.UnixConn) error {
	w, err := fdwire.New(nc, fdwire.Config{MaxFDs: 1, QueueBytes: s.cfg.QueueBytes})
	if err != nil {
		_ = nc.Close()
		return err
	}
	peer, err := w.Peer()
	if err != nil {
		_ = w.Close()
		return err
	}
	c := &conn{server: s, wire: w, peer: peer, bucket: bucket{rate: s.cfg.FramesPerSecond, left: s.cfg.FramesPerSecond, at: s.cfg.Clock.Now()}}
	if err := s.enter(c); err != nil {
		peer.Close()
		_ = w.Close()
		return err
	}
	go c.read()
	return nil
}

// enter counts a connection in, or says why not.
func (s *Server) enter(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid := c.peer.UID
	switch {
	case !slices.Contains(s.cfg.AllowUIDs, uid):
		return fmt.Errorf("pid %d: uid %d is not allowed", c.peer.PID, uid)
	case s.closed:
		return net.ErrClosed
	case len(s.conns) >= s.cfg.MaxConnections:
		return fmt.Errorf("pid %d: %d connections are open", c.peer.PID, len(s.conns))
	case s.perUID[uid] >= s.cfg.MaxConnectionsPerUID:
		return fmt.Errorf("pid %d: uid %d has %d connections open", c.peer.PID, uid, s.perUID[uid])
	}
	s.conns[c] = struct{}{}
	s.perUID[uid]++
	s.running.Add(1)
	c.deadline = s.cfg.Clock.AfterFunc(s.cfg.HelloTimeout, c.helloLate)
	return nil
}

// leave counts a connection out and reports whether the server goes on.
func (s *Server) leave(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.perUID[c.peer.UID]--; s.perUID[c.peer.UID] == 0 {
		delete(s.perUID, c.peer.UID)
	}
	return !s.closed
}

// bucket limits a rate; not safe for concurrent use.
type bucket struct {
	rate, left int
	at         clock.Instant
}

// take reports whether one more is within the rate.
func (b *bucket) take(now clock.Instant) bool {
	if b.left > 0 {
		b.left--
		return true
	}
	// Refilled only when empty: exact arithmetic, and no work in between.
	earned := int64(now.Sub(b.at)) * int64(b.rate) / int64(time.Second)
	if int64(now.Sub(b.at)) >= int64(time.Second) {
		earned = int64(b.rate)
	}
	if earned < 1 {
		return false
	}
	b.left, b.at = int(earned)-1, now
	return true
}
