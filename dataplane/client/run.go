package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isobar-project/isobar/dataplane/internal/wire"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

// run reads one connection after the other until the client is closed.
func (c *Client) run(ctx context.Context, conn *fdwire.Conn) {
	defer close(c.done)
	for {
		err := c.read(conn)
		_ = conn.Close()
		if !c.disconnected(err) {
			return
		}
		var welcome *wire.Welcome
		conn, welcome, err = c.redial(ctx)
		if err != nil {
			if ctx.Err() == nil {
				c.refused(err)
			}
			return
		}
		if !c.connected(conn, welcome) {
			_ = conn.Close()
			return
		}
		if c.cfg.OnResume != nil {
			c.cfg.OnResume(Resumption{Session: c.Session(), Resumed: welcome.Resumed, Lost: welcome.Lost})
		}
	}
}

// connected lets requests through; false if the client was closed meanwhile.
func (c *Client) connected(conn *fdwire.Conn, w *wire.Welcome) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.session = Session{ID: w.SessionID, Node: w.Node, BootID: w.BootID, NATSURL: w.NATSURL, token: w.ResumeToken}
	c.conn = conn
	close(c.up)
	return true
}

// disconnected fails what was on its way; false if the client is closed.
func (c *Client) disconnected(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
	if !c.closed {
		c.up = make(chan struct{})
		err = fmt.Errorf("%w: %w", ErrDisconnected, err)
	} else {
		err = ErrClosed
	}
	for id, r := range c.pending {
		delete(c.pending, id)
		r.done <- err
	}
	return !c.closed
}

// redial tries until a node answers, with growing pauses. A node that refuses the
// session is final.
func (c *Client) redial(ctx context.Context) (*fdwire.Conn, *wire.Welcome, error) {
	for pause := c.cfg.RetryFrom; ; pause = min(2*pause, c.cfg.RetryTo) {
		conn, welcome, err := c.dial(ctx)
		if err == nil {
			return conn, welcome, nil
		}
		var refusal *schemas.Error
		if errors.As(err, &refusal) && refusal.Status < 500 && refusal.Code != schemas.CodeBusy {
			return nil, nil, err
		}
		if !c.pause(ctx, pause) {
			return nil, nil, ctx.Err()
		}
	}
}

func (c *Client) pause(ctx context.Context, d time.Duration) bool {
	passed := make(chan struct{})
	t := c.cfg.Clock.AfterFunc(d, func() { close(passed) })
	defer t.Stop()
	select {
	case <-passed:
		return true
	case <-ctx.Done():
		return false
	}
}

// refused closes the client for good: the node does not want this session.
func (c *Client) refused(err error) {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.up)
	}
	c.mu.Unlock()
	c.stop()
	if c.cfg.OnResume != nil {
		c.cfg.OnResume(Resumption{Err: err})
	}
}

func (c *Client) read(conn *fdwire.Conn) error {
	for {
		f, err := conn.Read()
		if err != nil {
			return err
		}
		err = c.handle(conn, &f)
		f.Close()
		if err != nil {
			return err
		}
	}
}

// handle takes one message. An error ends the connection.
func (c *Client) handle(conn *fdwire.Conn, f *fdwire.Frame) error {
	var h fdwire.Header
	if err := fdwire.Decode(f.Body, &h); err != nil {
		return err
	}
	if h.Type == wire.TypeRevoke {
		var m wire.Revoke
		if err := fdwire.Decode(f.Body, &m); err != nil {
			return err
		}
		c.revoked(conn, m)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.pending[h.ID]
	if r == nil {
		return fmt.Errorf("%q %d answers nothing", h.Type, h.ID)
	}
	more := false
	err := failure(f.Body)
	if err == nil {
		more, err = r.add(f.Body, f.FDs)
	}
	if err != nil && more {
		// The rest of the answer is on its way and has to be let go.
		c.pending[h.ID] = &request{done: newResult(), add: discard(c)}
		r.done <- err
		return nil
	}
	if !more {
		delete(c.pending, h.ID)
		r.done <- err
	}
	return nil
}

// revoked asks the program to let go, then unmaps and tells the node.
func (c *Client) revoked(conn *fdwire.Conn, m wire.Revoke) {
	c.mu.Lock()
	mapping := c.held[m.AllocationID]
	c.mu.Unlock()
	if mapping != nil && c.cfg.OnRevoke == nil {
		return
	}
	c.revokes.Add(1)
	go func() {
		defer c.revokes.Done()
		if c.cfg.OnRevoke != nil {
			c.cfg.OnRevoke(Revocation{
				AllocationID: m.AllocationID, Deadline: time.Duration(m.DeadlineMS) * time.Millisecond, Reason: m.Reason, Mapping: mapping,
			})
		}
		if mapping != nil && !c.release(mapping) {
			return
		}
		send(conn, &wire.Unmap{Type: wire.TypeUnmapped, ID: m.ID, AllocationID: m.AllocationID})
	}()
}

// release unmaps what is still held; false if the memory could not be let go.
func (c *Client) release(m *Mapping) bool {
	c.mu.Lock()
	held := c.held[m.AllocationID] == m
	if held {
		delete(c.held, m.AllocationID)
	}
	c.mu.Unlock()
	return !held || m.unmap() == nil
}
