package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/clock"
)

// ErrDisconnected is returned by Publish while the connection is being made anew.
var ErrDisconnected = errors.New("local: not connected to the server")

const (
	// connectTimeout bounds the handshake with a server in this process.
	connectTimeout = 2 * time.Second
	// reconnectPause is the time between two attempts to connect anew.
	reconnectPause = 250 * time.Millisecond
	// writeRounds is how many writes a caller of Publish makes at most, for others that
	// publish meanwhile; the rest is left to a goroutine of the client.
	writeRounds = 4
	// backlog bounds what waits to be written. A server in this process always reads; one
	// that does not is broken.
	backlog = 16 << 20
	// keptBuffer bounds the memory that a burst leaves behind.
	keptBuffer = 1 << 20
)

// Provider is an embedded server.
type Provider interface {
	// InProcessConn makes a connection whose other end the server serves.
	InProcessConn() (net.Conn, error)
}

// Config describes a client.
type Config struct {
	Server Provider
	// Username and Password are shown to the server if set.
	Username, Password string
	// Name tells people which connection this is.
	Name string
	// Urgent is for few messages that must leave at once: each is written by who publishes it.
	Urgent bool
	// Notify, if set, is told what happens to the connection, from its own goroutine; it
	// must not block.
	Notify func(conn.Event)
	// Log, if set, gets the same.
	Log *slog.Logger
	// Clock is nil for the machine's.
	Clock clock.Clock
}

// Client is one connection. Its methods may be called from any goroutine.
type Client struct {
	cfg Config

	mu         sync.Mutex
	wire       net.Conn // nil while disconnected
	maxPayload int
	pending    []byte // frames not yet written
	spare      []byte
	writing    bool // somebody is writing
	idle       bool // the reader is in a handler and has no other message at hand
	subs       map[int]*subscription
	lastSub    int
	pongs      []chan struct{}
	watchers   map[chan nats.Status]bool
	closed     bool

	pump chan struct{} // wakes the goroutine that writes what callers left
	done chan struct{} // closed by Close
	wg   sync.WaitGroup
}

type subscription struct {
	subject, queue string
	handle         func(*nats.Msg)
}

// Dial connects. Its error says what the server said.
func Dial(c Config) (*Client, error) {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	l := &Client{cfg: c, subs: map[int]*subscription{}, watchers: map[chan nats.Status]bool{}, pump: make(chan struct{}, 1), done: make(chan struct{})}
	r, err := l.connect()
	if err != nil {
		return nil, &conn.ConnectError{Target: "in process", Fix: "correct the server's configuration, or the user and password", Err: err}
	}
	l.wg.Add(2)
	go l.read(r)
	go l.writeRest()
	return l, nil
}

// connect makes one connection, with the subscriptions that there are.
func (l *Client) connect() (*reader, error) {
	wire, err := l.cfg.Server.InProcessConn()
	if err != nil {
		return nil, err
	}
	late := l.cfg.Clock.AfterFunc(connectTimeout, func() { wire.Close() })
	r := newReader(wire, l.rest)
	limit, err := l.shakeHands(wire, r)
	if !late.Stop() && err == nil {
		err = nats.ErrTimeout
	}
	if err != nil {
		wire.Close()
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		wire.Close()
		return nil, net.ErrClosed
	}
	l.wire, l.maxPayload, l.pending = wire, limit, nil
	for id, s := range l.subs {
		l.pending = appendSub(l.pending, id, s)
	}
	l.kick()
	l.tell(nats.CONNECTED)
	return r, nil
}

// shakeHands takes the server's INFO, shows who we are, and waits for its word.
func (l *Client) shakeHands(wire net.Conn, r *reader) (maxPayload int, err error) {
	f, err := r.next()
	if err != nil {
		return 0, err
	}
	var info struct {
		MaxPayload int  `json:"max_payload"`
		Headers    bool `json:"headers"`
	}
	if f.op != opInfo {
		return 0, fmt.Errorf("local: the server began with %q", f.args)
	}
	if err := json.Unmarshal(f.args, &info); err != nil {
		return 0, fmt.Errorf("local: the server's INFO: %w", err)
	}
	hello, err := json.Marshal(map[string]any{"verbose": false, "pedantic": false, "lang": "go", "version": nats.Version, "protocol": 1,
		"name": l.cfg.Name, "headers": true, "no_responders": true, "user": l.cfg.Username, "pass": l.cfg.Password})
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(wire, "CONNECT %s\r\nPING\r\n", hello); err != nil {
		return 0, err
	}
	for {
		f, err := r.next()
		if err != nil {
			return 0, err
		}
		switch f.op {
		case opPong:
			return info.MaxPayload, nil
		case opErr:
			return 0, fmt.Errorf("nats: %s", strings.Trim(string(f.args), "' "))
		}
	}
}

// Subscribe runs f for each message on subject; queue shares them with the other
// subscribers of that name, "" does not. The returned function ends the
// subscription; messages that the server sent before may still come.
func (l *Client) Subscribe(subject, queue string, f func(*nats.Msg)) (func(), error) {
	if !plainToken(subject) || subject == "" || !plainToken(queue) {
		return nil, nats.ErrBadSubject
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nats.ErrConnectionClosed
	}
	l.lastSub++
	id, s := l.lastSub, &subscription{subject, queue, f}
	l.subs[id] = s
	if l.wire != nil {
		l.pending = appendSub(l.pending, id, s)
		l.kick()
	}
	return func() { l.unsubscribe(id) }, nil
}

func (l *Client) unsubscribe(id int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.subs[id] == nil {
		return
	}
	delete(l.subs, id)
	if l.wire != nil {
		l.pending = append(strconv.AppendInt(append(l.pending, "UNSUB "...), int64(id), 10), "\r\n"...)
		l.kick()
	}
}

func appendSub(b []byte, id int, s *subscription) []byte {
	b = append(append(append(b, "SUB "...), s.subject...), ' ')
	if s.queue != "" {
		b = append(append(b, s.queue...), ' ')
	}
	return append(strconv.AppendInt(b, int64(id), 10), "\r\n"...)
}

// kick lets the client's own goroutine write. The lock is held.
func (l *Client) kick() {
	select {
	case l.pump <- struct{}{}:
	default:
	}
}

// Flush returns when the server has taken everything that was published before. Not for
// handlers.
func (l *Client) Flush(timeout time.Duration) error {
	pong := make(chan struct{})
	l.mu.Lock()
	if l.wire == nil {
		l.mu.Unlock()
		return ErrDisconnected
	}
	l.pongs = append(l.pongs, pong)
	l.pending = append(l.pending, "PING\r\n"...)
	l.kick()
	l.mu.Unlock()
	late := make(chan struct{})
	t := l.cfg.Clock.AfterFunc(timeout, func() { close(late) })
	defer t.Stop()
	select {
	case <-pong:
		return nil
	case <-late:
		return nats.ErrTimeout
	case <-l.done:
		return nats.ErrConnectionClosed
	}
}

// Connected tells whether Publish has somewhere to write to.
func (l *Client) Connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wire != nil
}

// Closed tells whether Close was called.
func (l *Client) Closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Watch tells of each return of the connection and of its end, until stop is called.
func (l *Client) Watch() (changes <-chan nats.Status, stop func()) {
	c := make(chan nats.Status, 4)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers[c] = true
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, c)
	}
}

// tell wakes the watchers; one that has not read four earlier changes needs no fifth. The
// lock is held.
func (l *Client) tell(s nats.Status) {
	for c := range l.watchers {
		select {
		case c <- s:
		default:
		}
	}
}

// Close ends the connection. Handlers have returned when it does; it must not be called by
// one. What was published may be lost: Flush first.
func (l *Client) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	l.tell(nats.CLOSED)
	wire := l.wire
	l.wire = nil
	l.mu.Unlock()
	close(l.done)
	if wire != nil {
		wire.Close()
	}
	l.wg.Wait()
	l.notify(conn.Event{Kind: conn.Closed})
}

// plainToken tells whether s can stand in a protocol line.
func plainToken(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
