package dataplane

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane/internal/wire"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

// maxNameBytes bounds every string of a request: ids, claims, tokens, names.
const maxNameBytes = 1024

// conn is one connection. It is the Desk's Conn.
type conn struct {
	server   *Server
	wire     *fdwire.Conn
	peer     fdwire.Peer // its pidfd is ours until hello
	bucket   bucket      // the reader's
	deadline clock.Timer

	mu          sync.Mutex
	hello       bool   // was said
	session     string // set when the Desk has answered hello
	gone        bool   // the reader has ended
	outstanding int
	revokes     uint64
}

func (c *conn) helloLate() {
	c.mu.Lock()
	late := !c.hello
	c.mu.Unlock()
	if late {
		c.Close()
	}
}

// Close implements Conn.
func (c *conn) Close() { _ = c.wire.Close() }

// Revoke implements Conn.
func (c *conn) Revoke(allocation string, deadline time.Duration, reason string) {
	c.mu.Lock()
	c.revokes++
	id := c.revokes
	c.mu.Unlock()
	c.send(&wire.Revoke{
		Type: wire.TypeRevoke, ID: id, AllocationID: allocation, DeadlineMS: max(0, deadline.Milliseconds()), Reason: reason,
	})
}

// send gives a message to the wire. If that fails the reader sees it.
func (c *conn) send(v any) {
	p, err := fdwire.Encode(v)
	if err != nil {
		c.server.cfg.Log.Error("data socket: answer", "pid", c.peer.PID, "error", err)
		c.Close()
		return
	}
	c.sendPacket(fdwire.Message{Packet: p})
}

func (c *conn) sendPacket(m fdwire.Message) {
	if err := c.wire.Send(m); errors.Is(err, fdwire.ErrSlowPeer) {
		c.server.cfg.Log.Warn("data socket: disconnected", "pid", c.peer.PID, "error", err)
	}
}

// fail answers a request with an error.
func (c *conn) fail(id uint64, err error) {
	var e *schemas.Error
	if !errors.As(err, &e) {
		c.server.cfg.Log.Error("data socket: request failed", "pid", c.peer.PID, "error", err)
		e = schemas.Errorf(schemas.CodeInternalError, "the node could not do this; its log says why")
	}
	c.send(&wire.Failure{Type: wire.TypeError, ID: id, Code: e.Code, Message: e.Message, Status: e.Code.Status()})
}

func (c *conn) read() {
	defer c.server.running.Done()
	err := c.readAll()
	c.deadline.Stop()
	_ = c.wire.Close()
	c.mu.Lock()
	c.gone = true
	session, hello := c.session, c.hello
	c.mu.Unlock()
	if !hello {
		c.peer.Close()
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		c.server.cfg.Log.Info("data socket: connection closed", "pid", c.peer.PID, "session_id", session, "error", err)
	}
	if c.server.leave(c) && session != "" {
		c.server.cfg.Desk.Ended(session, c)
	}
}

func (c *conn) readAll() error {
	for {
		f, err := c.wire.Read()
		if err != nil {
			return err
		}
		err = c.handle(&f)
		f.Close()
		if err != nil {
			return err
		}
	}
}

// handle takes one message. An error closes the connection.
func (c *conn) handle(f *fdwire.Frame) error {
	var h fdwire.Header
	if err := fdwire.Decode(f.Body, &h); err != nil {
		return fmt.Errorf("%w: %w", fdwire.ErrMalformed, err)
	}
	if !c.bucket.take(c.server.cfg.Clock.Now()) {
		c.fail(h.ID, schemas.Errorf(schemas.CodeBusy, "more than %d messages a second", c.server.cfg.FramesPerSecond))
		return fmt.Errorf("more than %d messages a second", c.server.cfg.FramesPerSecond)
	}
	c.mu.Lock()
	hello, session := c.hello, c.session
	c.mu.Unlock()
	if h.Type == wire.TypeHello && !hello {
		return c.sayHello(f.Body, h.ID)
	}
	if session == "" {
		c.fail(h.ID, schemas.Errorf(schemas.CodeInvalidRequest, "%.40q before hello was answered", h.Type))
		return fmt.Errorf("%.40q before hello was answered", h.Type)
	}
	if err := c.dispatch(session, h, f); err != nil {
		c.fail(h.ID, err)
	}
	return nil
}

func (c *conn) sayHello(body []byte, id uint64) error {
	var m wire.Hello
	err := decode(body, &m)
	if err == nil {
		err = checkNames(append([]string{m.Client, m.Version, m.SessionID, m.ResumeToken}, m.Held...)...)
	}
	if err != nil {
		c.fail(id, err)
		return err
	}
	c.mu.Lock()
	c.hello = true
	c.mu.Unlock()
	c.deadline.Stop()
	c.server.cfg.Desk.Hello(c.peer, Hello{
		Client: m.Client, Version: m.Version, SessionID: m.SessionID, ResumeToken: m.ResumeToken, Held: m.Held,
	}, c, func(w Welcome, err error) { c.welcome(id, w, err) })
	return nil
}

func (c *conn) welcome(id uint64, w Welcome, err error) {
	if err != nil {
		c.fail(id, err)
		c.Close()
		return
	}
	c.mu.Lock()
	c.session = w.SessionID
	gone := c.gone
	c.mu.Unlock()
	if gone {
		// The reader did not know of a session when it ended.
		if !c.server.stopped() {
			c.server.cfg.Desk.Ended(w.SessionID, c)
		}
		return
	}
	lost := w.Lost
	if lost == nil {
		lost = []string{}
	}
	c.send(&wire.Welcome{
		Type: wire.TypeWelcome, ID: id, SessionID: w.SessionID, ResumeToken: w.ResumeToken, Node: w.Node, BootID: w.BootID,
		NATSURL: w.NATSURL, Resumed: w.Resumed, Lost: lost,
	})
}

func (c *conn) dispatch(session string, h fdwire.Header, f *fdwire.Frame) error {
	body := f.Body
	switch h.Type {
	case wire.TypePing:
		if err := decode(body, &fdwire.Header{}); err != nil {
			return err
		}
		c.send(&fdwire.Header{Type: wire.TypePong, ID: h.ID})
		return nil
	case wire.TypeMap:
		return c.sayMap(session, h.ID, body)
	case wire.TypeUnmap, wire.TypeUnmapped:
		return c.sayUnmap(session, h, body)
	case wire.TypeOffer:
		return c.sayOffer(session, h.ID, f)
	case wire.TypeHello:
		return schemas.Errorf(schemas.CodeInvalidRequest, "hello was said already")
	case wire.TypePong, wire.TypeError:
		return nil // answers need no answer
	default:
		return schemas.Errorf(schemas.CodeInvalidRequest, "unknown type %.40q", h.Type)
	}
}

func (c *conn) sayMap(session string, id uint64, body []byte) error {
	var m wire.Map
	if err := decode(body, &m); err != nil {
		return err
	}
	mode := ReadOnly
	switch strings.ToLower(m.Mode) {
	case "", "ro":
	case "rw":
		mode = ReadWrite
	default:
		return schemas.Errorf(schemas.CodeInvalidRequest, "mode is ro or rw")
	}
	if m.Claim == "" {
		return schemas.Errorf(schemas.CodeInvalidRequest, "claim is missing")
	}
	if err := checkNames(m.Claim); err != nil {
		return err
	}
	if err := c.begin(); err != nil {
		return err
	}
	c.server.cfg.Desk.Map(session, m.Claim, mode, func(mapping *Mapping, err error) {
		c.end()
		if err != nil {
			c.fail(id, err)
			return
		}
		c.sendMapping(id, mapping)
	})
	return nil
}

func (c *conn) sendMapping(id uint64, m *Mapping) {
	parts, err := split(id, m, &c.server.tables)
	if err != nil {
		m.Close()
		c.fail(id, err)
		return
	}
	for _, p := range parts {
		fds := make([]int, len(p.files))
		for i, f := range p.files {
			fds[i] = int(f.Fd())
		}
		c.sendPacket(fdwire.Message{Packet: p.packet, FDs: fds, Done: func() {
			for _, f := range p.files {
				_ = f.Close()
			}
		}})
	}
}

// sayUnmap takes the client's own unmap, which is answered, and its answer to a
// revoke, which is not.
func (c *conn) sayUnmap(session string, h fdwire.Header, body []byte) error {
	var m wire.Unmap
	if err := decode(body, &m); err != nil {
		return err
	}
	if m.AllocationID == "" {
		return schemas.Errorf(schemas.CodeInvalidRequest, "allocation_id is missing")
	}
	if err := checkNames(m.AllocationID); err != nil {
		return err
	}
	if h.Type == wire.TypeUnmapped {
		c.server.cfg.Desk.Unmap(session, m.AllocationID, func(error) {})
		return nil
	}
	if err := c.begin(); err != nil {
		return err
	}
	c.server.cfg.Desk.Unmap(session, m.AllocationID, func(err error) {
		c.end()
		if err != nil {
			c.fail(h.ID, err)
			return
		}
		c.send(&wire.Unmap{Type: wire.TypeUnmapped, ID: h.ID, AllocationID: m.AllocationID})
	})
	return nil
}

// sayOffer takes an open file. The descriptor stays the frame's, which closes it, until
// nothing is wrong with the message.
func (c *conn) sayOffer(session string, id uint64, f *fdwire.Frame) error {
	var m wire.Offer
	if err := decode(f.Body, &m); err != nil {
		return err
	}
	if m.Name == "" {
		return schemas.Errorf(schemas.CodeInvalidRequest, "name is missing: it is what people see of the file")
	}
	if err := checkNames(m.Name); err != nil {
		return err
	}
	if len(f.FDs) != 1 {
		return schemas.Errorf(schemas.CodeInvalidRequest, "an offer brings one descriptor, not %d: send the open file along as SCM_RIGHTS", len(f.FDs))
	}
	if err := c.begin(); err != nil {
		return err
	}
	c.server.cfg.Desk.Offer(session, m.Name, f.FDs.File(0, m.Name), func(claim string, err error) {
		c.end()
		if err != nil {
			c.fail(id, err)
			return
		}
		c.send(&wire.Offered{Type: wire.TypeOffered, ID: id, FileClaim: claim})
	})
	return nil
}

// begin counts a request that the Desk has to answer.
func (c *conn) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outstanding >= c.server.cfg.MaxOutstanding {
		return schemas.Errorf(schemas.CodeBusy, "%d requests of this connection are unanswered", c.outstanding)
	}
	c.outstanding++
	return nil
}

func (c *conn) end() {
	c.mu.Lock()
	c.outstanding--
	c.mu.Unlock()
}

// decode reads a request; what does not fit it is the client's mistake.
func decode(body []byte, v any) error {
	if err := fdwire.DecodeStrict(body, v); err != nil {
		return schemas.Errorf(schemas.CodeInvalidRequest, "%v", err)
	}
	return nil
}

func checkNames(names ...string) error {
	for _, s := range names {
		if len(s) > maxNameBytes {
			return schemas.Errorf(schemas.CodeInvalidRequest, "a string of %d bytes, at most %d", len(s), maxNameBytes)
		}
	}
	return nil
}
