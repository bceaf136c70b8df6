package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

// Defaults of Options.
const (
	// DefaultURL is where `isobar run` listens.
	DefaultURL = "nats://127.0.0.1:4222"
	// DefaultAttempts is how often a call is tried in all.
	DefaultAttempts = 3
	// DefaultBackoff is the first pause between two attempts; it doubles.
	DefaultBackoff = 100 * time.Millisecond
	// answerSlack is what an answer may take beyond the wait that the node was asked for.
	answerSlack = 5 * time.Second
)

// Options says which node to talk to, as whom, and how.
type Options struct {
	// URL is the NATS server, or several separated by commas; "" is DefaultURL.
	URL string
	// InProcess reaches an embedded server without the network, instead of URL.
	InProcess nats.InProcessConnProvider
	// CredentialsFile, NKeyFile, Username, Password and TLS are as in conn.Config.
	CredentialsFile    string
	NKeyFile           string
	Username, Password string
	TLS                *tls.Config
	// Node is the node to ask; "" lets any node answer.
	Node string
	// Tenant is set by programs that share the node's own NATS account and speak for
	// a tenant: they publish on isobar.<tenant>.memory.… A tenant's own account
	// needs nothing here.
	Tenant string
	// Format of requests and replies: codec.JSON (the default) or codec.MsgPack.
	Format codec.Format
	// Name tells people which connection this is.
	Name string
	// InboxPrefix is for servers that give each client a private inbox.
	InboxPrefix string
	// Attempts and Backoff say how a call is tried again when no node answers, a node
	// is busy, or an answer is lost; 0 is the default. The request_id stays the same, so
	// that a retried command has its effect once.
	Attempts int
	Backoff  time.Duration
	// Wait is how long the node may take to answer a call that changes something and does not
	// say itself (WithWait); 0 leaves it to the node.
	Wait time.Duration
	// Log gets what happens to the connection; nil discards it.
	Log *slog.Logger
}

// Client speaks to nodes over one NATS connection. Its methods may be called from
// any goroutine.
type Client struct {
	opts Options
	nc   *nats.Conn

	mu     sync.Mutex
	flight map[*flight]struct{}
}

// flight is a request that waits for its answer.
type flight struct {
	subject string
	cancel  context.CancelCauseFunc
}

// Connect makes a client. The server must be there (*conn.ConnectError); a node
// need not.
func Connect(o Options) (*Client, error) {
	if o.URL == "" && o.InProcess == nil {
		o.URL = DefaultURL
	}
	if o.Attempts == 0 {
		o.Attempts = DefaultAttempts
	}
	if o.Backoff == 0 {
		o.Backoff = DefaultBackoff
	}
	if o.Name == "" {
		o.Name = "isobar client"
	}
	c := &Client{opts: o, flight: make(map[*flight]struct{})}
	nc, err := conn.Dial(conn.Config{
		InProcess: o.InProcess, URL: o.URL, CredentialsFile: o.CredentialsFile, NKeyFile: o.NKeyFile, Username: o.Username, Password: o.Password,
		TLS: o.TLS, Name: o.Name, InboxPrefix: o.InboxPrefix, Notify: c.notify, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	c.nc = nc
	return c, nil
}

// Conn is the connection, for what this package has no method for. It belongs
// to the client.
func (c *Client) Conn() *nats.Conn { return c.nc }

// Close ends the connection; calls in flight fail.
func (c *Client) Close() { c.nc.Close() }

// notify fails the requests that the server has refused: it says so only on the
// side, and they would otherwise wait for their deadline.
func (c *Client) notify(e conn.Event) {
	switch e.Kind {
	case conn.PublishDenied, conn.ReplyDenied, conn.SubscribeDenied:
	default:
		return
	}
	denied := schemas.Errorf(schemas.CodeForbidden, "the NATS server refuses this client: %v", e.Err).With("subject", e.Subject)
	c.mu.Lock()
	defer c.mu.Unlock()
	for f := range c.flight {
		// A refused inbox concerns every request.
		if e.Kind != conn.PublishDenied && !strings.HasPrefix(e.Subject, "memory.") || f.subject == e.Subject {
			f.cancel(denied)
		}
	}
}

// CallOption changes one call.
type CallOption func(*call)

type call struct {
	node      string
	requestID string
	wait      *time.Duration
	dryRun    bool
	trace     string // traceparent; "": none
	// patience is how long the node may take to answer.
	patience time.Duration
}

// WithRequestID names the command, so that a later process can repeat it.
func WithRequestID(id string) CallOption { return func(c *call) { c.requestID = id } }

// WithWait says how long the node may take before it answers that the command is
// queued or running (wait_ms).
func WithWait(d time.Duration) CallOption { return func(c *call) { c.wait, c.patience = &d, d } }

// WithDryRun asks for the plan only; the reply is a *schemas.DryRunReply.
func WithDryRun() CallOption { return func(c *call) { c.dryRun = true } }

// WithTraceparent has the node trace the command as a part of this trace, in the form of W3C
// trace context's header.
func WithTraceparent(header string) CallOption { return func(c *call) { c.trace = header } }

// WithNode asks this node instead of the Options' one; "" asks any.
func WithNode(name string) CallOption { return func(c *call) { c.node = name } }

// PendingError says that a command is not done yet: follow it with Await.
type PendingError struct{ schemas.Pending }

// Error implements error.
func (e *PendingError) Error() string {
	s := "the command is " + string(e.Status) + " as operation " + e.OperationID
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Call asks for one action and decodes the answer's data into reply, a pointer
// to the action's reply type (or nil). request is the action's request type, by
// value or pointer, or nil.
//
// Errors: *schemas.Error for everything that a node answers, for NO_NODE (nobody
// answers) and for FORBIDDEN (the NATS server refuses, told at once); *PendingError
// for a command that is queued or running; else the context's or the connection's.
func (c *Client) Call(ctx context.Context, action schemas.Action, request, reply any, opts ...CallOption) error {
	k := call{node: c.opts.Node, patience: schemas.DefaultWaitMs * time.Millisecond}
	if spec, ok := schemas.Lookup(action); ok && spec.Changing && c.opts.Wait > 0 {
		WithWait(c.opts.Wait)(&k)
	}
	for _, o := range opts {
		o(&k)
	}
	if k.requestID == "" {
		k.requestID = uuid.NewString()
	}
	payload, err := codec.EncodeRequest(nil, c.opts.Format, codec.Call{RequestID: k.requestID, Data: request, Wait: k.wait, DryRun: k.dryRun})
	if err != nil {
		return err
	}
	msg := nats.Msg{Subject: c.subject(action, k.node), Data: payload}
	if c.opts.Format != codec.JSON {
		msg.Header = nats.Header{codec.HeaderContentType: []string{c.opts.Format.ContentType()}}
	}
	if k.trace != "" {
		if msg.Header == nil {
			msg.Header = nats.Header{}
		}
		msg.Header["traceparent"] = []string{k.trace}
	}
	pause := c.opts.Backoff
	for attempt := 1; ; attempt++ {
		err = c.once(ctx, &msg, &k, reply)
		wait, again := retryable(err, pause)
		if !again || attempt >= c.opts.Attempts {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		pause *= 2
	}
}

func (c *Client) subject(a schemas.Action, node string) string {
	s := schemas.CommandSubject(a)
	if node != "" {
		s = schemas.NodeCommandSubject(a, node)
	}
	if c.opts.Tenant != "" && c.opts.Tenant != schemas.DefaultTenant {
		s = schemas.TenantSubject(c.opts.Tenant, s)
	}
	return s
}

// operationIDName is how both formats spell the field.
var operationIDName = []byte("operation_id")

// errLost says that a request was sent and no answer came in time.
var errLost = errors.New("no answer in time")

func (c *Client) once(ctx context.Context, msg *nats.Msg, k *call, reply any) error {
	if !c.nc.IsConnected() {
		// Not left to wait in a buffer: a command that is carried out when its sender has
		// long given up does harm.
		return schemas.Errorf(schemas.CodeNoNode, "NATS cannot be reached, and the connection is being made anew: try again in a moment")
	}
	ctx, stop := context.WithTimeoutCause(ctx, k.patience+answerSlack, errLost)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &flight{subject: msg.Subject, cancel: cancel}
	c.mu.Lock()
	c.flight[f] = struct{}{}
	c.mu.Unlock()
	answer, err := c.nc.RequestMsgWithContext(ctx, msg)
	c.mu.Lock()
	delete(c.flight, f)
	c.mu.Unlock()
	switch {
	case err == nil:
		return decode(answer, reply)
	case errors.Is(err, nats.ErrNoResponders):
		return schemas.Errorf(schemas.CodeNoNode, "no node answers on %s", msg.Subject)
	case errors.Is(err, nats.ErrMaxPayload):
		return schemas.Errorf(schemas.CodePayloadTooLarge, "the request is larger than the NATS server takes")
	case errors.Is(err, nats.ErrPermissionViolation):
		return schemas.Errorf(schemas.CodeForbidden, "the NATS server refuses this client: %v", err).With("subject", msg.Subject)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// decode reads an answer in the format that it says it has.
func decode(m *nats.Msg, reply any) error {
	format := codec.JSON
	if m.Header.Get(codec.HeaderContentType) == codec.ContentTypeMsgPack {
		format = codec.MsgPack
	}
	// Only an answer that names an operation can be one that is not done.
	if bytes.Contains(m.Data, operationIDName) {
		var p schemas.Pending
		if _, err := codec.DecodeReply(m.Data, format, &p); err == nil && p.OperationID != "" &&
			(p.Status == schemas.StatusQueued || p.Status == schemas.StatusRunning) {
			return &PendingError{p}
		}
	}
	_, err := codec.DecodeReply(m.Data, format, reply)
	return err
}

// retryable says whether to try again, and when.
func retryable(err error, pause time.Duration) (time.Duration, bool) {
	var e *schemas.Error
	switch {
	case err == nil:
		return 0, false
	case errors.As(err, &e):
		if e.Code == schemas.CodeNoNode {
			return pause, true
		}
		if e.Code != schemas.CodeBusy {
			return 0, false
		}
		if ms, ok := number(e.Details["retry_after_ms"]); ok && ms > 0 {
			return time.Duration(ms * float64(time.Millisecond)), true
		}
		return pause, true
	}
	return pause, errors.Is(err, errLost) || errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrConnectionReconnecting)
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, true
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case int8:
		return float64(n), true
	}
	return 0, false
}
