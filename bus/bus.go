package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/bus/local"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// historyTimeout bounds the wait for JetStream at the start and after each reconnect.
const historyTimeout = 5 * time.Second

// Config describes a node's whole bus.
type Config struct {
	// Server starts an embedded server; nil uses the one that Conn names.
	Server *ServerConfig
	// Conn is how to reach an existing server. Its InProcess, Name, Urgent, Notify and Log are
	// the bus's own.
	Conn conn.Config
	// Node is the node's name, Version the program's (SemVer). BootID names this run;
	// "" makes one.
	Node, Version, BootID string
	// Tenants is as in ServiceConfig.
	Tenants map[string]string
	// Operators is as in ServiceConfig.
	Operators map[string]string
	// History bounds the stream of events.
	History HistoryConfig
	// Heartbeat supplies the data of heartbeats; nil sends none.
	Heartbeat func() schemas.Heartbeat
	// Observe is as in ServiceConfig.
	Observe func(Outcome)
	// Trace is as in ServiceConfig, Left as in OutboxConfig.
	Trace func(traceparent string) *actors.Trace
	Left  func(waited time.Duration)
	// OnHealth, if set, is told of every change of health. It must not block.
	OnHealth func([]Warning)
	// OnReach, if set, is told when the connection that brings commands is lost (false) and
	// when it is back (true), from the connection's goroutine. It must not block.
	OnReach func(reachable bool)
	// Clock is nil for the machine's.
	Clock clock.Clock
	Log   *slog.Logger
}

// Bus is a node's side of NATS: a server of its own or a connection to another,
// the outbox, and, once Serve is called, the micro service. Its methods may be
// called from any goroutine.
type Bus struct {
	cfg    Config
	server *Server
	// Commands and replies, events, and pressure have a connection each: no one of
	// them waits behind the writes of another.
	commands, pressure Link
	history            *nats.Conn
	ends               []func(timeout time.Duration) // close the connections
	outbox             *Outbox
	health             health
	keeping            sync.WaitGroup
	stop               context.CancelFunc
	ctx                context.Context

	mu      sync.Mutex
	service *Service
	closed  bool
}

// Open starts or reaches the server and starts the outbox. Errors are *StartError
// or *conn.ConnectError, with the fix in their text. Missing JetStream is not an
// error but a Warning.
func Open(c Config) (*Bus, error) {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.BootID == "" {
		c.BootID = uuid.NewString()
	}
	b := &Bus{cfg: c}
	b.health.onChange = c.OnHealth
	b.ctx, b.stop = context.WithCancel(context.Background())
	if err := b.open(); err != nil {
		b.Close(0)
		return nil, err
	}
	return b, nil
}

func (b *Bus) open() error {
	c := b.cfg
	dial := c.Conn
	dial.Log = c.Log
	if c.Server != nil {
		sc := *c.Server
		if sc.Log == nil {
			sc.Log = c.Log
		}
		server, err := StartServer(sc)
		if err != nil {
			return err
		}
		b.server = server
		dial.InProcess = server
		if dial.Username == "" {
			dial.Username, dial.Password = server.Credentials()
		}
	}
	var err error
	if b.history, err = b.dial(dial, "events"); err != nil {
		return err
	}
	if b.commands, err = b.link(dial, "commands"); err != nil {
		return err
	}
	if b.pressure, err = b.link(dial, "pressure"); err != nil {
		return err
	}
	var apart []string // tenants with an account of their own
	for t, prefix := range c.Tenants {
		if prefix != "" {
			apart = append(apart, t)
		}
	}
	slices.Sort(apart)
	b.cfg.History.Tenants = apart
	b.outbox = NewOutbox(OutboxConfig{
		Tenants: apart,
		History: LinkOf(b.history), Pressure: b.pressure, Confirm: b.server == nil, Node: c.Node, BootID: c.BootID,
		Heartbeat: c.Heartbeat, Clock: c.Clock, Log: c.Log, Left: c.Left,
	})
	b.keepHistory()
	return nil
}

// dial makes one connection by the general client.
func (b *Bus) dial(c conn.Config, name string) (*nats.Conn, error) {
	c.Name = fmt.Sprintf("isobar %s %s", b.cfg.Node, name)
	c.Urgent = name == "pressure"
	c.Notify = func(e conn.Event) { b.notify(name, e) }
	nc, err := conn.Dial(c)
	if err != nil {
		return nil, err
	}
	b.ends = append(b.ends, func(timeout time.Duration) {
		if timeout > 0 && nc.IsConnected() {
			_ = nc.FlushTimeout(timeout) // a server that went away takes nothing more
		}
		nc.Close()
	})
	return nc, nil
}

// link makes one connection for what must be quick: without hand-overs between goroutines
// where the server is in this process.
func (b *Bus) link(c conn.Config, name string) (Link, error) {
	if b.server == nil {
		nc, err := b.dial(c, name)
		return LinkOf(nc), err
	}
	l, err := local.Dial(local.Config{Server: b.server, Username: c.Username, Password: c.Password,
		Name: fmt.Sprintf("isobar %s %s", b.cfg.Node, name), Clock: b.cfg.Clock,
		Urgent: name == "pressure", Notify: func(e conn.Event) { b.notify(name, e) }, Log: b.cfg.Log})
	if err != nil {
		return nil, err
	}
	b.ends = append(b.ends, func(timeout time.Duration) {
		if timeout > 0 {
			_ = l.Flush(timeout)
		}
		l.Close()
	})
	return l, nil
}

// Serve starts taking commands to the desk. It is called once.
func (b *Bus) Serve(desk actors.Desk) error {
	s, err := NewService(ServiceConfig{
		Link: b.commands, Node: b.cfg.Node, Version: b.cfg.Version, BootID: b.cfg.BootID, Twin: b.twin, Tenants: b.cfg.Tenants, Operators: b.cfg.Operators,
		Desk: desk, Events: b.outbox, Observe: b.cfg.Observe, Trace: b.cfg.Trace, Clock: b.cfg.Clock, Log: b.cfg.Log,
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.service != nil {
		s.Close()
		return errors.New("bus: Serve is called once, before Close")
	}
	b.service = s
	return nil
}

// Publisher is where events go.
func (b *Bus) Publisher() actors.Publisher { return b.outbox }

// BootID names this run in every event.
func (b *Bus) BootID() string { return b.cfg.BootID }

// URL is where clients connect.
func (b *Bus) URL() string {
	if b.server != nil {
		return b.server.URL()
	}
	return b.cfg.Conn.URL
}

// Health lists what is wrong, by code; nothing means all is well.
func (b *Bus) Health() []Warning { return b.health.list() }

// Connected tells whether commands can arrive and answers leave at this moment.
func (b *Bus) Connected() bool {
	return b.commands != nil && b.commands.Connected() && b.history.IsConnected() && b.pressure.Connected()
}

// EventStats counts events since the start.
func (b *Bus) EventStats() OutboxStats { return b.outbox.Stats() }

// StopTaking takes no more commands; answers and events still go out.
func (b *Bus) StopTaking() {
	b.mu.Lock()
	s := b.service
	b.mu.Unlock()
	if s != nil {
		s.Stop()
	}
}

// Close sends what is waiting, for at most timeout, and ends the service, the
// connections and the embedded server. It may be called more than once.
func (b *Bus) Close(timeout time.Duration) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.closed = true
	s := b.service
	b.mu.Unlock()
	if b.server == nil {
		b.stop()
	}
	// The embedded server answers at once, and must not be closed while it makes the
	// stream.
	b.keeping.Wait()
	b.stop()
	if s != nil {
		s.Close()
	}
	if b.outbox != nil {
		b.outbox.Close(timeout)
	}
	for _, end := range b.ends {
		end(timeout)
	}
	if b.server != nil {
		b.server.Close()
	}
}

// keepHistory makes the stream, in the background: JetStream may be slow or absent,
// and nothing but history waits for it.
func (b *Bus) keepHistory() {
	if b.server != nil && !b.server.JetStream() {
		b.health.set(Warning{Code: WarnNoHistory, Text: "events are published but not kept", Fix: "start the server with a store folder"})
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.keeping.Go(func() {
		ctx, cancel := context.WithTimeout(b.ctx, historyTimeout)
		defer cancel()
		err := KeepHistory(ctx, b.history, b.cfg.History)
		var h *HistoryError
		switch {
		case err == nil:
			b.health.clear(WarnNoHistory)
		case b.ctx.Err() != nil:
		case errors.As(err, &h):
			b.health.set(Warning{Code: WarnNoHistory, Text: h.Err.Error(), Fix: h.Fix})
			b.cfg.Log.Warn("events are published but not kept", "error", h.Err, "fix", h.Fix)
		}
	})
}

func (b *Bus) reached(name string, yes bool) {
	if name == "commands" && b.cfg.OnReach != nil {
		b.cfg.OnReach(yes)
	}
}

// twin takes note of another node of this name: which of the two does a command is chance.
func (b *Bus) twin(boot string) {
	b.health.set(Warning{Code: WarnTwin, Subject: b.cfg.Node, Text: "another node of the name " + b.cfg.Node + " serves on this NATS (boot " + boot + ")",
		Fix: "stop one of them, or give it another name with --node"})
}

func (b *Bus) notify(name string, e conn.Event) {
	switch e.Kind {
	case conn.Lost:
		b.health.set(Warning{Code: WarnDisconnected, Subject: name, Text: "the connection to NATS is lost and being made anew",
			Fix: "see whether the server at " + b.URL() + " runs and can be reached"})
		b.reached(name, false)
	case conn.Restored:
		b.health.clearSubject(WarnDisconnected, name)
		b.reached(name, true)
		if name == "events" {
			b.keepHistory() // the server may be another one, without our stream
		}
	case conn.PublishDenied, conn.ReplyDenied, conn.SubscribeDenied:
		b.health.set(Warning{Code: WarnDenied, Subject: e.Subject, Text: e.Error(),
			Fix: "give this node's NATS user the permissions of a node"})
	case conn.ConsumerTooSlow:
		b.health.set(Warning{Code: WarnOverrun, Subject: e.Subject, Text: "commands arrived faster than they were taken, and some were lost",
			Fix: "ask less often, or add a node"})
	}
}
