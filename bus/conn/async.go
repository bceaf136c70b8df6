package conn

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// errBacklog is what a connection dies of whose server takes nothing any more.
var errBacklog = errors.New("the server has not taken 16 MiB of what was sent to it")

// asyncDialer dials connections whose writes never wait.
type asyncDialer struct {
	d    *net.Dialer
	join bool
}

// Dial implements nats.CustomDialer.
func (a asyncDialer) Dial(network, address string) (net.Conn, error) {
	c, err := a.d.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return newAsyncConn(c, a.join), nil
}

// asyncProvider does the same for an embedded server, whose pipe holds nothing: a
// write to it waits until the server has read it.
type asyncProvider struct {
	p    nats.InProcessConnProvider
	join bool
}

// InProcessConn implements nats.InProcessConnProvider.
func (a asyncProvider) InProcessConn() (net.Conn, error) {
	c, err := a.p.InProcessConn()
	if err != nil {
		return nil, err
	}
	return newAsyncConn(c, a.join), nil
}

// asyncConn is a connection whose Write copies and returns. nats.go writes to
// its socket under the lock that every Publish takes, so that a server which
// stops reading would stop the actors that answer through it.
type asyncConn struct {
	net.Conn
	// join lets others add to a write before it is made.
	join bool

	mu      sync.Mutex
	work    sync.Cond
	pending []byte
	closing bool
	err     error

	done chan struct{}
	once sync.Once
}

func newAsyncConn(c net.Conn, join bool) *asyncConn {
	a := &asyncConn{Conn: c, join: join, done: make(chan struct{})}
	a.work.L = &a.mu
	go a.pump()
	return a
}

// Write implements net.Conn. It fails with the error of an earlier write, or
// when 16 MiB are waiting.
func (a *asyncConn) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.err != nil:
		return 0, a.err
	case a.closing:
		return 0, net.ErrClosed
	case len(a.pending)+len(b) > asyncConnBacklog:
		a.err = errBacklog
		_ = a.Conn.Close() // wakes the pump; the write's error is the one that counts
		return 0, a.err
	}
	a.pending = append(a.pending, b...)
	a.work.Signal()
	return len(b), nil
}

func (a *asyncConn) pump() {
	defer close(a.done)
	var out []byte
	for {
		a.mu.Lock()
		for a.err == nil && len(a.pending) == 0 && !a.closing {
			a.work.Wait()
		}
		if a.err != nil || len(a.pending) == 0 {
			a.mu.Unlock()
			return
		}
		if a.join {
			// Whoever else is ready to run may add to what is written: under load this
			// makes one write of many answers (measured: 1.4 times the throughput); an
			// idle process returns from it at once.
			a.mu.Unlock()
			runtime.Gosched()
			a.mu.Lock()
		}
		out, a.pending = a.pending, out[:0]
		a.mu.Unlock()

		_, err := a.Conn.Write(out)
		a.mu.Lock()
		if err != nil && a.err == nil {
			a.err = err
		}
		a.mu.Unlock()
		if err != nil {
			_ = a.Conn.Close() // the reader learns of it
			return
		}
		if cap(out) > 1<<20 {
			out = nil // a burst's buffer is not kept
		}
	}
}

// Close writes what is pending, for at most a second, and closes.
func (a *asyncConn) Close() error {
	var err error
	a.once.Do(func() {
		a.mu.Lock()
		a.closing = true
		a.work.Signal()
		a.mu.Unlock()
		_ = a.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // fails only on a closed connection
		<-a.done
		err = a.Conn.Close()
	})
	return err
}

// SetDeadline implements net.Conn: writes have no deadline of their caller's.
func (a *asyncConn) SetDeadline(t time.Time) error { return a.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn and does nothing: Write returns at once.
func (a *asyncConn) SetWriteDeadline(time.Time) error { return nil }
