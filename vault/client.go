package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/fdwire"
)

// ClientConfig of Connect. A SocketPath is enough.
type ClientConfig struct {
	SocketPath string
	// Spawn starts a vault where none runs, usually by the function of that name; nil:
	// ErrNoVault.
	Spawn func() error
	// TakeOver ends a node that holds the vault, even one that answers.
	TakeOver bool
	// Timeout for the vault to answer; then it counts as lost. 0: 10 seconds.
	Timeout time.Duration
	// Crash is called with the name of a point where a test may end the process:
	// vault.put.before and vault.put.after.
	Crash func(point string)
	Clock clock.Clock        // nil: the machine's
	Guard func([]byte) error // nil: fdwire's default
}

func (c ClientConfig) withDefaults() ClientConfig {
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Crash == nil {
		c.Crash = func(string) {}
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	return c
}

// maxAttempts bounds how often Connect meets a vault that ends just then.
const maxAttempts = 5

// Connect makes this process the node that holds the vault and returns what the
// vault held, in the order of ids; the files are the caller's. It waits while a silent
// holder is found out and ended. Refused: *HeldError.
func Connect(ctx context.Context, cfg ClientConfig) (*Client, []Entry, error) {
	cfg = cfg.withDefaults()
	conn, welcome, err := dial(ctx, cfg, roleNode)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	entries, err := fetch(conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		for _, e := range entries {
			_ = e.File.Close()
		}
		return nil, nil, fmt.Errorf("vault: fetch: %w", err)
	}
	c := &Client{
		cfg: cfg, conn: conn, pid: welcome.PID, capacity: welcome.Capacity, held: len(entries),
		pending: map[uint64]*call{}, lost: make(chan struct{}), ended: make(chan struct{}), drops: make(chan struct{}, maxDrops),
	}
	go c.read()
	return c, entries, nil
}

// Query describes what the vault holds, beside a node that is running.
func Query(ctx context.Context, cfg ClientConfig) ([]Stat, error) {
	cfg = cfg.withDefaults()
	cfg.Spawn = nil
	conn, _, err := dial(ctx, cfg, roleQuery)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	return listAll(func(m *message) (*message, error) {
		m.ID = 1
		send(conn, m, nil, nil)
		answer, f, err := receive(conn)
		f.Close()
		return answer, err
	})
}

// dial connects and says hello. A vault that ends while it is asked is replaced.
func dial(ctx context.Context, cfg ClientConfig, role string) (*fdwire.Conn, *message, error) {
	if err := checkPath(cfg.SocketPath); err != nil {
		return nil, nil, err
	}
	var err error
	for range maxAttempts {
		if err = ctx.Err(); err != nil {
			break
		}
		var nc net.Conn
		nc, err = (&net.Dialer{}).DialContext(ctx, "unix", cfg.SocketPath)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
			if cfg.Spawn == nil {
				return nil, nil, fmt.Errorf("%w on %s", ErrNoVault, cfg.SocketPath)
			}
			if err = cfg.Spawn(); err != nil {
				return nil, nil, err
			}
			nc, err = (&net.Dialer{}).DialContext(ctx, "unix", cfg.SocketPath)
		}
		if err != nil {
			continue
		}
		var conn *fdwire.Conn
		var welcome *message
		conn, welcome, err = hello(ctx, nc.(*net.UnixConn), cfg, role)
		if err == nil {
			return conn, welcome, nil
		}
		if ended := errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE); !ended {
			break
		}
	}
	if cerr := ctx.Err(); cerr != nil {
		err = cerr
	}
	return nil, nil, fmt.Errorf("vault on %s: %w", cfg.SocketPath, err)
}

func hello(ctx context.Context, nc *net.UnixConn, cfg ClientConfig, role string) (*fdwire.Conn, *message, error) {
	conn, err := fdwire.New(nc, wireConfig(cfg.Guard))
	if err != nil {
		_ = nc.Close()
		return nil, nil, err
	}
	// Whoever made the socket: us, the vault, or systemd. Another user must not get
	// to see our memory.
	if uid, err := peerUID(nc); err != nil || uid != uint32(os.Geteuid()) && uid != 0 && os.Geteuid() != 0 {
		_ = conn.Close()
		return nil, nil, errors.Join(ErrForbidden, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	send(conn, &message{Type: typeHello, ID: 1, Version: protocolVersion, Role: role, TakeOver: cfg.TakeOver}, nil, nil)
	m, f, err := receive(conn)
	f.Close()
	if err == nil && m.Type != typeWelcome {
		err = fmt.Errorf("%q in answer to hello", m.Type)
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, m, nil
}

func peerUID(nc *net.UnixConn) (uint32, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var result error
	if err := raw.Control(func(fd uintptr) {
		cred, result = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if result != nil {
		return 0, result
	}
	return cred.Uid, nil
}

// receive reads one message; an error message is an error.
func receive(conn *fdwire.Conn) (*message, fdwire.Frame, error) {
	f, err := conn.Read()
	if err != nil {
		return nil, f, err
	}
	var m message
	if err := fdwire.Decode(f.Body, &m); err != nil {
		return nil, f, err
	}
	if m.Type == typeError {
		return nil, f, m.failure()
	}
	return &m, f, nil
}

// fetch pulls the table page by page.
func fetch(conn *fdwire.Conn) (entries []Entry, err error) {
	var after *uint64
	for more := true; more; {
		send(conn, &message{Type: typeFetch, ID: 1, After: after}, nil, nil)
		m, f, err := receive(conn)
		for err == nil && m.Type == typePing {
			// Another node asks for the vault already.
			send(conn, &message{Type: typePong, ID: m.ID}, nil, nil)
			f.Close()
			m, f, err = receive(conn)
		}
		if err != nil {
			f.Close()
			return entries, err
		}
		if m.Type != typeTable || len(m.Entries) != len(f.FDs) {
			f.Close()
			return entries, fmt.Errorf("%q with %d entries and %d descriptors in answer to fetch", m.Type, len(m.Entries), len(f.FDs))
		}
		for i, e := range m.Entries {
			entries = append(entries, Entry{ID: e.ID, Label: e.Label, File: f.FDs.File(i, e.Label)})
			after = &e.ID
		}
		more = m.More
	}
	return entries, nil
}

func listAll(ask func(*message) (*message, error)) ([]Stat, error) {
	var stats []Stat
	var after *uint64
	for {
		m, err := ask(&message{Type: typeList, After: after})
		if err != nil {
			return nil, fmt.Errorf("vault: list: %w", err)
		}
		for _, st := range m.Stats {
			stats = append(stats, Stat(st))
			after = &st.ID
		}
		if !m.More {
			return stats, nil
		}
	}
}

// Client is a node's hold on the vault. All methods may be called from any
// goroutine and block.
type Client struct {
	cfg      ClientConfig
	conn     *fdwire.Conn
	pid      int // the vault's
	capacity int
	lost     chan struct{}
	ended    chan struct{} // the reader has ended
	drops    chan struct{} // one for each drop that waits for its answer

	mu       sync.Mutex
	err      error
	lastID   uint64
	pending  map[uint64]*call
	alarm    clock.Timer
	held     int // in the vault, or on the way there
	queue    []queued
	inFlight int // messages with puts
}

// call is a message that waits for its answer.
type call struct {
	sent clock.Instant
	done func(m *message, err error) // under mu
}

// PID is the vault's process.
func (c *Client) PID() int { return c.pid }

// Lost implements Keeper.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// List implements Keeper.
func (c *Client) List() ([]Stat, error) { return listAll(c.ask) }

// maxDrops is how many drops wait for their answers at a time. Many devices may let go of all
// they have at once: a vault that gets little of the processor meanwhile is not to be taken for
// one that does not read (fdwire.ErrSlowPeer).
const maxDrops = 64

// Drop implements Keeper.
func (c *Client) Drop(ids ...uint64) error {
	c.drops <- struct{}{}
	defer func() { <-c.drops }()
	for len(ids) > 0 {
		n := min(len(ids), dropPage)
		if _, err := c.ask(&message{Type: typeDrop, IDs: ids[:n]}); err != nil {
			return fmt.Errorf("vault: drop: %w", err)
		}
		c.mu.Lock()
		c.held = max(0, c.held-n)
		c.mu.Unlock()
		ids = ids[n:]
	}
	return nil
}

// Close implements Keeper.
func (c *Client) Close(release bool) error {
	var err error
	if release {
		_, err = c.ask(&message{Type: typeBye})
	}
	_ = c.conn.Close()
	<-c.ended
	return err
}

// ask sends a message and waits for the answer.
func (c *Client) ask(m *message) (*message, error) {
	type result struct {
		m   *message
		err error
	}
	answer := make(chan result, 1)
	c.mu.Lock()
	c.call(m, nil, func(m *message, err error) { answer <- result{m, err} })
	c.mu.Unlock()
	r := <-answer
	return r.m, r.err
}

// call is ask without waiting. mu is held.
func (c *Client) call(m *message, fds []int, done func(*message, error)) {
	if c.err != nil {
		done(nil, c.err)
		return
	}
	c.lastID++
	m.ID = c.lastID
	c.pending[m.ID] = &call{sent: c.cfg.Clock.Now(), done: done}
	if c.alarm == nil {
		c.alarm = c.cfg.Clock.AfterFunc(c.cfg.Timeout, c.late)
	}
	// The descriptors are the callers', who wait until the reader has answered
	// them or waited for the connection to let go.
	send(c.conn, m, fds, func() {})
}

// late ends a connection whose vault does not answer.
func (c *Client) late() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alarm = nil
	if c.err != nil || len(c.pending) == 0 {
		return
	}
	now := c.cfg.Clock.Now()
	oldest := now
	for _, p := range c.pending {
		oldest = min(oldest, p.sent)
	}
	if wait := oldest.Add(c.cfg.Timeout).Sub(now); wait > 0 {
		c.alarm = c.cfg.Clock.AfterFunc(wait, c.late)
		return
	}
	_ = c.conn.Close()
}

// read takes answers and pings until the connection ends.
func (c *Client) read() {
	defer close(c.ended)
	var err error
	for err == nil {
		err = c.receive()
	}
	_ = c.conn.Close()
	c.conn.Wait() // from here on nothing uses the callers' descriptors
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("%w: %w", ErrLost, err)
	if c.alarm != nil {
		c.alarm.Stop()
	}
	for id, p := range c.pending {
		delete(c.pending, id)
		p.done(nil, c.err)
	}
	c.failQueue()
	close(c.lost)
}

func (c *Client) receive() error {
	f, err := c.conn.Read()
	if err != nil {
		return err
	}
	defer f.Close()
	var m message
	if err := fdwire.Decode(f.Body, &m); err != nil {
		return err
	}
	if m.Type == typePing {
		send(c.conn, &message{Type: typePong, ID: m.ID}, nil, nil)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pending[m.ID]
	if p == nil {
		if m.Type == typeError {
			return m.failure()
		}
		return fmt.Errorf("%q %d answers nothing", m.Type, m.ID)
	}
	delete(c.pending, m.ID)
	if m.Type == typeError {
		p.done(nil, m.failure())
	} else {
		p.done(&m, nil)
	}
	return nil
}
