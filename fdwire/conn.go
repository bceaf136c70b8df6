package fdwire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/codec"
)

const (
	// MaxFrameBytes is the longest message body that the protocol allows.
	MaxFrameBytes = 1 << 20
	// MaxFDs is how many descriptors the kernel passes in one message (SCM_MAX_FD).
	MaxFDs = 253

	headerBytes = 4
)

var (
	// ErrMalformed marks every breach of the framing by the peer.
	ErrMalformed = errors.New("malformed frame")
	// ErrSlowPeer says that the peer let the send queue overflow.
	ErrSlowPeer = errors.New("peer reads too slowly: send queue is full")
	// ErrTooLong refuses a message of ours that the peer would not accept.
	ErrTooLong = errors.New("message is too long")
)

// Config sets the limits of a connection. The zero value is sound.
type Config struct {
	// MaxFrameBytes is the longest body accepted from the peer; 0: MaxFrameBytes.
	// A reader that knows its peer's messages to be short says so, and a liar
	// costs less.
	MaxFrameBytes int
	// MaxFDs is how many descriptors one received message may bring; 0: MaxFDs,
	// negative: none. Superfluous ones are discarded by the kernel, not by us.
	MaxFDs int
	// QueueBytes bounds what waits for a slow peer, beyond the first message;
	// 0: 4 MiB.
	QueueBytes int
	// QueueMessages bounds the same in messages; 0: 1024.
	QueueMessages int
	// Guard checks that a body is one sound MessagePack value before anything
	// decodes it; nil: codec.Guard.
	Guard func([]byte) error
}

func (c Config) withDefaults() (Config, error) {
	if c.MaxFrameBytes == 0 {
		c.MaxFrameBytes = MaxFrameBytes
	}
	switch {
	case c.MaxFDs == 0:
		c.MaxFDs = MaxFDs
	case c.MaxFDs < 0:
		c.MaxFDs = 0
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = 4 << 20
	}
	if c.QueueMessages == 0 {
		c.QueueMessages = 1024
	}
	if c.Guard == nil {
		c.Guard = codec.Guard
	}
	if c.MaxFrameBytes < 1 || c.MaxFrameBytes > MaxFrameBytes || c.MaxFDs > MaxFDs || c.QueueBytes < 0 || c.QueueMessages < 0 {
		return c, fmt.Errorf("fdwire: limits out of range: frame %d bytes, %d descriptors, queue %d bytes and %d messages",
			c.MaxFrameBytes, c.MaxFDs, c.QueueBytes, c.QueueMessages)
	}
	return c, nil
}

// Conn is one end of a connection. Send and Close may be called from any
// goroutine, Read from one at a time.
type Conn struct {
	cfg Config
	nc  *net.UnixConn
	raw syscall.RawConn

	// Reader's own.
	oob  []byte
	body []byte

	mu       sync.Mutex
	err      error // why the connection is over; set once
	sendErr  error // why nothing can be sent, though the reader may go on
	flushing bool  // a goroutine is writing the queue
	queue    []outgoing
	queued   int // bytes in queue
	flushed  *sync.Cond
}

// New takes over nc, which must be a stream socket: Close closes it.
func New(nc *net.UnixConn, cfg Config) (*Conn, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("fdwire: %w", err)
	}
	c := &Conn{cfg: cfg, nc: nc, raw: raw}
	if cfg.MaxFDs > 0 {
		c.oob = make([]byte, unix.CmsgSpace(4*cfg.MaxFDs))
	} else {
		// Room for a header and no descriptor, so that the kernel reports, by
		// MSG_CTRUNC, descriptors that it threw away.
		c.oob = make([]byte, unix.CmsgSpace(0))
	}
	c.flushed = sync.NewCond(&c.mu)
	return c, nil
}

// FromFile makes a Conn of an inherited or otherwise acquired stream socket. f is
// consumed, also on failure.
func FromFile(f *os.File, cfg Config) (*Conn, error) {
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("fdwire: %w", err)
	}
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return nil, fmt.Errorf("fdwire: %s is no unix socket", f.Name())
	}
	c, err := New(uc, cfg)
	if err != nil {
		uc.Close()
	}
	return c, err
}

// Pair makes two connected ends, for tests and for parent and child.
func Pair(a, b Config) (*Conn, *Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("fdwire: socketpair: %w", err)
	}
	fa, fb := os.NewFile(uintptr(fds[0]), "pair"), os.NewFile(uintptr(fds[1]), "pair")
	ca, err := FromFile(fa, a)
	if err != nil {
		fb.Close()
		return nil, nil, err
	}
	cb, err := FromFile(fb, b)
	if err != nil {
		ca.Close()
		return nil, nil, err
	}
	return ca, cb, nil
}

// Peer asks the kernel who is at the other end. See PeerOf.
func (c *Conn) Peer() (Peer, error) { return PeerOf(c.nc) }

// Close ends the connection; a Read in progress returns net.ErrClosed. Messages
// still in the queue are discarded, their Done called. It does not wait for
// that: see Wait.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	return nil
}

// Wait blocks until no descriptor of a sent message is in use any more: the queue
// is written, or the connection closed. Not to be called from Done.
func (c *Conn) Wait() {
	c.mu.Lock()
	for c.flushing {
		c.flushed.Wait()
	}
	c.mu.Unlock()
}

// fail ends the connection with the first error given and returns that one.
func (c *Conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failLocked(err)
}

func (c *Conn) failLocked(err error) error {
	if c.err == nil {
		c.err = err
		// Wakes the reader and the flusher. An error of close on a socket
		// tells nothing that anybody could act on.
		_ = c.nc.Close()
	}
	return c.err
}
