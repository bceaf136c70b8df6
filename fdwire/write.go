package fdwire

import (
	"cmp"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Message is what Send takes.
type Message struct {
	Packet Packet
	// FDs are sent with the message, at most MaxFDs.
	FDs []int
	// Done, if set, is called exactly once when FDs are not needed any more: they
	// are on their way, or the message was discarded. FDs then stay the
	// caller's. It runs on any goroutine, perhaps inside Send, must not block, and
	// must not call this Conn. If nil, Send owns FDs and closes them.
	Done func()
}

func (m *Message) finish() {
	if m.Done != nil {
		m.Done()
		return
	}
	Descriptors(m.FDs).Close()
}

// outgoing is a message in the queue with what of it is already written.
type outgoing struct {
	Message
	off int
}

// Send gives a message to the kernel or, if the socket is full, to the queue. It
// never blocks. An error means that the message was discarded; unless it is
// ErrTooLong nothing can be sent any more. What the peer sent before it left can
// still be read.
func (c *Conn) Send(m Message) error {
	if len(m.FDs) > MaxFDs || len(m.Packet) > headerBytes+MaxFrameBytes || len(m.Packet) <= headerBytes {
		m.finish()
		return fmt.Errorf("%w: %d bytes, %d descriptors", ErrTooLong, len(m.Packet)-headerBytes, len(m.FDs))
	}
	c.mu.Lock()
	if err := cmp.Or(c.err, c.sendErr); err != nil {
		c.mu.Unlock()
		m.finish()
		return err
	}
	o := outgoing{Message: m}
	if !c.flushing {
		err := c.write(&o, false)
		switch {
		case err == nil:
			c.mu.Unlock()
			m.finish()
			return nil
		case !errors.Is(err, unix.EAGAIN):
			err = c.sendFailed(err)
			c.mu.Unlock()
			m.finish()
			return err
		}
		c.flushing = true
		go c.flush()
	} else if c.queued+len(m.Packet) > c.cfg.QueueBytes || len(c.queue) >= c.cfg.QueueMessages {
		err := c.failLocked(ErrSlowPeer)
		c.mu.Unlock()
		m.finish()
		return err
	}
	c.queue = append(c.queue, o)
	c.queued += len(m.Packet)
	c.mu.Unlock()
	return nil
}

// sendFailed ends sending. A peer that is gone may have said something before, such
// as why: then only the reader, when it has read that, ends the connection. mu is
// held.
func (c *Conn) sendFailed(err error) error {
	err = fmt.Errorf("send: %w", err)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		c.sendErr = err
		return err
	}
	return c.failLocked(err)
}

// flush writes the queue and ends with it.
func (c *Conn) flush() {
	for {
		c.mu.Lock()
		if c.err != nil || c.sendErr != nil || len(c.queue) == 0 {
			break
		}
		head := c.queue[0]
		c.mu.Unlock()

		err := c.write(&head, true)

		c.mu.Lock()
		c.queue = c.queue[1:]
		c.queued -= len(head.Packet)
		if err != nil {
			_ = c.sendFailed(err)
		}
		c.mu.Unlock()
		head.finish()
	}
	// The lock is held. After a failure Send refuses, so nothing joins the queue
	// while the lock is let go for the callbacks.
	if dropped := c.queue; len(dropped) > 0 {
		c.queue, c.queued = nil, 0
		c.mu.Unlock()
		for i := range dropped {
			dropped[i].finish()
		}
		c.mu.Lock()
	}
	c.flushing = false
	c.flushed.Broadcast()
	c.mu.Unlock()
}

// write sends the rest of o: all that the socket takes now, then EAGAIN; or, if
// wait, everything.
func (c *Conn) write(o *outgoing, wait bool) error {
	var result error
	err := c.raw.Write(func(fd uintptr) bool {
		for o.off < len(o.Packet) {
			var oob []byte
			if o.off == 0 && len(o.FDs) > 0 {
				oob = unix.UnixRights(o.FDs...)
			}
			n, err := unix.SendmsgN(int(fd), o.Packet[o.off:], oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			switch {
			case err == nil:
				o.off += n
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN) && wait:
				return false
			default:
				result = err
				return true
			}
		}
		result = nil
		return true
	})
	if err != nil {
		return err
	}
	return result
}
