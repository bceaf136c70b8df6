package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane/internal/wire"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

var (
	// ErrDisconnected says that the connection ended before the answer came.
	ErrDisconnected = errors.New("disconnected from the node")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("client is closed")
	// ErrMapped refuses a claim on a grant that this client has mapped already.
	ErrMapped = errors.New("the grant is mapped already")
)

// Config of a client. SocketPath is required; it stands in every handle that the node
// gives out.
type Config struct {
	SocketPath string
	// Name and Version of the program, for people who look at sessions.
	Name, Version string
	// OnRevoke is called when the node wants a grant back; when it returns the grant is
	// unmapped. See the package's words on revocation.
	OnRevoke func(Revocation)
	// OnResume is called, from one goroutine, after each reconnection.
	OnResume func(Resumption)
	// RetryFrom and RetryTo are the shortest and longest time between attempts to
	// reconnect, doubling from one to the other; 0: 5 ms and 1 s.
	RetryFrom, RetryTo time.Duration
	// Clock; nil: the machine's.
	Clock clock.Clock
}

// Revocation is the node's wish to have a grant back.
type Revocation struct {
	AllocationID string
	// Deadline is the time that the node gives.
	Deadline time.Duration
	// Reason in words.
	Reason string
	// Mapping is nil if the grant is not mapped here.
	Mapping *Mapping
}

// Session is what the node said at hello.
type Session struct {
	ID, Node, BootID, NATSURL string
	token                     string
}

// Resumption tells how a reconnection went.
type Resumption struct {
	Session Session
	// Resumed is false if the node knows nothing of the session and made a new one.
	Resumed bool
	// Lost are mapped grants that are not the session's any more. They stay mapped until
	// Unmap, but their memory may be anybody's.
	Lost []string
	// Err is set, and nothing else, if the node refused; the client is then closed.
	Err error
}

// Client is a session with a node.
type Client struct {
	cfg     Config
	stop    context.CancelFunc // ends run
	done    chan struct{}      // run has ended
	revokes sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	session Session
	conn    *fdwire.Conn  // nil while disconnected
	up      chan struct{} // closed when conn is set, or the client closed
	lastID  uint64
	pending map[uint64]*request
	held    map[string]*Mapping
}

// request waits for its answer. add takes each message of it, under mu, and says
// whether more will come.
type request struct {
	add  func(body []byte, fds fdwire.Descriptors) (more bool, err error)
	done chan error // holds one
}

// Dial opens a session.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.RetryFrom <= 0 {
		cfg.RetryFrom = 5 * time.Millisecond
	}
	if cfg.RetryTo <= 0 {
		cfg.RetryTo = time.Second
	}
	c := &Client{cfg: cfg, done: make(chan struct{}), up: make(chan struct{}), pending: map[uint64]*request{}, held: map[string]*Mapping{}}
	conn, welcome, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.connected(conn, welcome)
	runCtx, stop := context.WithCancel(context.Background())
	c.stop = stop
	go c.run(runCtx, conn)
	return c, nil
}

// Session is the newest one.
func (c *Client) Session() Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

// Map redeems a claim and maps what it stands for.
func (c *Client) Map(ctx context.Context, claim string, mode Mode) (*Mapping, error) {
	m := &Mapping{mode: mode}
	add := func(body []byte, fds fdwire.Descriptors) (bool, error) {
		more, err := addPart(m, body, fds)
		if err != nil && !more {
			c.letGo(m.AllocationID)
		}
		return more, err
	}
	err := c.ask(ctx, func(id uint64) any {
		return &wire.Map{Type: wire.TypeMap, ID: id, Claim: claim, Mode: string(mode)}
	}, add, func() error {
		if _, twice := c.held[m.AllocationID]; twice {
			return fmt.Errorf("%w: %s", ErrMapped, m.AllocationID)
		}
		c.held[m.AllocationID] = m
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("map: %w", errors.Join(err, m.unmap()))
	}
	return m, nil
}

// addPart takes one message of an answer to map.
func addPart(m *Mapping, body []byte, fds fdwire.Descriptors) (more bool, err error) {
	var part wire.Mapped
	if err := fdwire.Decode(body, &part); err != nil {
		return false, err
	}
	if part.Type != wire.TypeMapped {
		return false, fmt.Errorf("%q in answer to map", part.Type)
	}
	m.AllocationID, m.Kind, m.DeviceUUID, m.SizeBytes = part.AllocationID, part.Kind, part.DeviceUUID, part.SizeBytes
	for _, s := range part.Segments {
		if err := m.add(s, fds.File(s.FD, m.AllocationID)); err != nil {
			return part.More, err
		}
	}
	var tensors []schemas.Tensor
	if len(part.Tensors) > 0 { // else it is another server's, which leaves out what is empty
		if err := fdwire.Decode(part.Tensors, &tensors); err != nil {
			return part.More, err
		}
	}
	m.Tensors = append(m.Tensors, tensors...)
	return part.More, nil
}

// Unmap takes a mapping's memory away from this process and tells the node. The node
// learns of it even if ctx is done, or at the latest when the client reconnects.
func (c *Client) Unmap(ctx context.Context, m *Mapping) error {
	c.mu.Lock()
	if c.held[m.AllocationID] != m {
		c.mu.Unlock()
		return nil // unmapped before, by revocation perhaps
	}
	delete(c.held, m.AllocationID)
	c.mu.Unlock()
	id := m.AllocationID
	if err := m.unmap(); err != nil {
		return fmt.Errorf("unmap %s: %w", id, err)
	}
	err := c.ask(ctx, func(n uint64) any { return &wire.Unmap{Type: wire.TypeUnmap, ID: n, AllocationID: id} }, only(wire.TypeUnmapped), nil)
	if errors.Is(err, schemas.Errorf(schemas.CodeAllocationNotFound, "")) {
		return nil // the node has heard of it already, when the client reconnected, or the grant has ended
	}
	if err != nil {
		return fmt.Errorf("unmap %s: %w", id, err)
	}
	return nil
}

// Offer passes an open file to the node, with the rights that this process has to it, and
// returns the claim for load_model's file_claim: good for one load, by the session's tenant,
// within 60 seconds and while the session lasts. The file must be a regular one, open for
// reading, and hold a whole model; it stays the caller's, who may close it at once but must
// not change it until the model is loaded. name is what people see of it.
func (c *Client) Offer(ctx context.Context, name string, f *os.File) (string, error) {
	dup, err := duplicate(f)
	if err != nil {
		return "", fmt.Errorf("offer %s: %w", name, err)
	}
	sent, claim := false, ""
	err = c.ask(ctx, func(id uint64) any {
		sent = true
		return &carried{message: &wire.Offer{Type: wire.TypeOffer, ID: id, Name: name}, fd: dup}
	}, func(body []byte, _ fdwire.Descriptors) (bool, error) {
		var m wire.Offered
		if err := fdwire.Decode(body, &m); err != nil {
			return false, err
		}
		if m.Type != wire.TypeOffered {
			return false, fmt.Errorf("%q in answer to offer", m.Type)
		}
		claim = m.FileClaim
		return false, nil
	}, nil)
	if !sent {
		err = errors.Join(err, unix.Close(dup))
	}
	if err != nil {
		return "", fmt.Errorf("offer %s: %w", name, err)
	}
	return claim, nil
}

// duplicate is another descriptor of the same open file: the sender's goroutine uses it
// when the caller may have closed his.
func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return -1, cerr
	}
	return fd, err
}

// carried is a message with a descriptor, which is closed when the message has left.
type carried struct {
	message any
	fd      int
}

// Ping asks the node for an answer.
func (c *Client) Ping(ctx context.Context) error {
	return c.ask(ctx, func(id uint64) any { return &fdwire.Header{Type: wire.TypePing, ID: id} }, only(wire.TypePong), nil)
}

// Close unmaps everything and ends the session. A running OnRevoke is waited for, so
// it must not call Close.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.stop()
		if c.conn != nil {
			_ = c.conn.Close()
		} else {
			close(c.up)
		}
	}
	c.mu.Unlock()
	<-c.done
	c.revokes.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for id, m := range c.held {
		delete(c.held, id)
		errs = append(errs, m.unmap())
	}
	return errors.Join(errs...)
}

// only is the add of requests with a bare answer.
func only(want string) func([]byte, fdwire.Descriptors) (bool, error) {
	return func(body []byte, _ fdwire.Descriptors) (bool, error) {
		var h fdwire.Header
		if err := fdwire.Decode(body, &h); err != nil {
			return false, err
		}
		if h.Type != want {
			return false, fmt.Errorf("%q where %q was expected", h.Type, want)
		}
		return false, nil
	}
}

// ask sends a request and waits for its answer. finish, if set, runs under mu right
// after the last message of it.
func (c *Client) ask(ctx context.Context, make func(id uint64) any, add func([]byte, fdwire.Descriptors) (bool, error), finish func() error) error {
	r := &request{done: newResult()}
	r.add = func(body []byte, fds fdwire.Descriptors) (bool, error) {
		more, err := add(body, fds)
		if err == nil && !more && finish != nil {
			err = finish()
		}
		return more, err
	}
	id, err := c.begin(ctx, r, make)
	if err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	c.mu.Lock()
	if c.pending[id] == r {
		// Whoever asked is gone, but the answer must still be taken apart: it may
		// bring descriptors.
		c.pending[id] = &request{done: newResult(), add: discard(c)}
		c.mu.Unlock()
		return ctx.Err()
	}
	c.mu.Unlock()
	return <-r.done
}

func newResult() chan error { return make(chan error, 1) }

// discard lets go of an answer that nobody waits for, and of the grant that it maps.
func discard(c *Client) func([]byte, fdwire.Descriptors) (bool, error) {
	return func(body []byte, _ fdwire.Descriptors) (bool, error) {
		var part wire.Mapped
		if err := fdwire.Decode(body, &part); err != nil {
			return false, err
		}
		if part.Type == wire.TypeMapped && !part.More {
			c.letGo(part.AllocationID)
		}
		return part.More, nil
	}
}

// letGo tells the node that a grant is not mapped after all. mu is held.
func (c *Client) letGo(allocation string) {
	if _, held := c.held[allocation]; !held && allocation != "" {
		send(c.conn, &wire.Unmap{Type: wire.TypeUnmapped, AllocationID: allocation})
	}
}

// begin waits for a connection and sends.
func (c *Client) begin(ctx context.Context, r *request, make func(id uint64) any) (uint64, error) {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return 0, ErrClosed
		}
		if c.conn != nil {
			c.lastID++
			id := c.lastID
			c.pending[id] = r
			send(c.conn, make(id))
			c.mu.Unlock()
			return id, nil
		}
		up := c.up
		c.mu.Unlock()
		select {
		case <-up:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// send encodes and sends; a failure ends the connection, which the reader sees.
func send(conn *fdwire.Conn, v any) {
	var m fdwire.Message
	if c, ok := v.(*carried); ok {
		v, m.FDs = c.message, []int{c.fd}
	}
	var err error
	if m.Packet, err = fdwire.Encode(v); err != nil {
		_ = conn.Close()
		fdwire.Descriptors(m.FDs).Close()
		return
	}
	_ = conn.Send(m)
}

// dial connects and says hello, with what is still held.
func (c *Client) dial(ctx context.Context) (*fdwire.Conn, *wire.Welcome, error) {
	if err := fdwire.CheckPath(c.cfg.SocketPath); err != nil {
		return nil, nil, err
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, "unix", c.cfg.SocketPath)
	if err != nil {
		return nil, nil, fmt.Errorf("data socket: %w", err)
	}
	conn, err := fdwire.New(nc.(*net.UnixConn), fdwire.Config{})
	if err != nil {
		_ = nc.Close()
		return nil, nil, err
	}
	c.mu.Lock()
	hello := &wire.Hello{
		Type: wire.TypeHello, ID: 0, Client: c.cfg.Name, Version: c.cfg.Version,
		SessionID: c.session.ID, ResumeToken: c.session.token,
	}
	if c.session.ID != "" {
		hello.Held = []string{} // to hold nothing is a word too
	}
	for id := range c.held {
		hello.Held = append(hello.Held, id)
	}
	c.mu.Unlock()
	slices.Sort(hello.Held)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	send(conn, hello)
	welcome, err := readWelcome(conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if cerr := ctx.Err(); cerr != nil {
			err = cerr
		}
		return nil, nil, fmt.Errorf("hello: %w", err)
	}
	return conn, welcome, nil
}

func readWelcome(conn *fdwire.Conn) (*wire.Welcome, error) {
	f, err := conn.Read()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := failure(f.Body); err != nil {
		return nil, err
	}
	var w wire.Welcome
	if err := fdwire.Decode(f.Body, &w); err != nil {
		return nil, err
	}
	if w.Type != wire.TypeWelcome {
		return nil, fmt.Errorf("%q in answer to hello", w.Type)
	}
	return &w, nil
}

// failure is the error that a message is, as a *schemas.Error.
func failure(body []byte) error {
	var m wire.Failure
	if err := fdwire.Decode(body, &m); err != nil {
		return err
	}
	if m.Type != wire.TypeError {
		return nil
	}
	return &schemas.Error{Code: m.Code, Message: m.Message, Status: m.Status}
}
