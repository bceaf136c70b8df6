package bus

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

// Outcome is one answered command, for logs and statistics.
type Outcome struct {
	// Command is the command; of one that did not decode, what is known of it.
	Command *actors.Command
	// Code is "" for success.
	Code schemas.Code
	// At is when it was answered, as the answer says; Took is the time from the command's
	// arrival until the answer was sent.
	At   time.Time
	Took time.Duration
	// Answered is false for a command without a reply subject.
	Answered bool
}

// answer implements actors.Reply for one command from NATS. The command and its
// answer are one allocation.
type answer struct {
	e       *endpoint
	command actors.Command
	to      string // the reply subject; "" has none
	format  codec.Format
	arrived clock.Instant
	given   atomic.Bool
	// passage is set while another node may have to be asked.
	passage *passage
}

// headerTrace is W3C trace context's header, in its own spelling: NATS tells letter cases apart.
const headerTrace = "traceparent"

// take decodes one message and submits the command. It runs on a goroutine of the link,
// and does not wait.
func (e *endpoint) take(m *nats.Msg) {
	early := &e.s.early
	if !early.open.Load() && early.keep(m, func(m *nats.Msg) { e.command(m, false) }) {
		return
	}
	e.command(m, e.s.cfg.Link.Idle())
}

// command takes a command to the desk; lent says whether the calling goroutine has nothing
// to do after it.
func (e *endpoint) command(m *nats.Msg, lent bool) {
	s := e.s
	a := &answer{e: e, to: e.answerTo(m.Reply), arrived: s.cfg.Clock.Now()}
	in, out, failure := codec.Negotiate(m.Header.Get(codec.HeaderContentType), m.Header.Get(codec.HeaderAccept))
	a.format = out
	r := codec.Request{Action: e.action}
	if failure == nil {
		r, failure = codec.DecodeRequest(m.Data, in, e.action)
	} else {
		r.RequestID = uuid.NewString() // what the client chose cannot be read
	}
	if failure == nil {
		failure = e.forbidden(r.Spec)
	}
	a.command = actors.Command{Action: r.Action, Tenant: e.tenant, User: e.user(m), Role: e.role, RequestID: r.RequestID, Chosen: r.Chosen, Data: r.Data,
		Wait: r.Wait, DryRun: r.DryRun, Reply: a, Lent: lent, Arrived: a.arrived}
	if s.cfg.Trace != nil {
		a.command.Trace = s.cfg.Trace(m.Header.Get(headerTrace))
	}
	if failure != nil {
		a.Fail(failure)
		return
	}
	if e.route(a, m) {
		return
	}
	if r.Chosen && r.Spec.Changing {
		a.command.Digest = r.Digest() // of bare ids
	}
	s.cfg.Desk.Submit(&a.command)
}

// buffers holds the space in which answers are encoded; the connection copies them.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// largestKept keeps one long list from staying in the pool for ever.
const largestKept = 64 << 10

// Done implements actors.Reply.
func (a *answer) Done(data any, undo func()) {
	if !a.first() {
		return
	}
	now, wall := a.e.s.cfg.Clock.Both()
	if a.to == "" {
		a.tell(&schemas.CommandEvent{Result: withoutClaims(data)})
		a.observe("", wall)
		return
	}
	b := buffers.Get().(*[]byte)
	*b = codec.EncodeReply((*b)[:0], a.format, a.reply(data, nil, wall))
	err := a.publish(*b, undo, now)
	release(b)
	switch {
	case err == nil:
		a.observe("", wall)
		return
	case errors.Is(err, nats.ErrMaxPayload):
		a.fail(schemas.Errorf(schemas.CodePayloadTooLarge, "the answer is larger than the NATS server takes: ask for less, with limit or a device_id"))
	default:
		a.e.s.cfg.Log.Warn("an answer could not be sent", "action", a.command.Action, "request_id", a.command.RequestID, "error", err)
	}
	if undo != nil {
		// On a goroutine of its own: whoever calls Done need not expect undo before it returns.
		go undo()
	}
}

// Fail implements actors.Reply.
func (a *answer) Fail(e *schemas.Error) {
	if a.passOn(e) {
		return
	}
	if a.first() {
		a.fail(e)
	}
}

func (a *answer) fail(e *schemas.Error) {
	wall := a.e.s.cfg.Clock.Wall()
	defer a.observe(e.Code, wall)
	if a.to == "" {
		a.tell(&schemas.CommandEvent{ErrorCode: e.Code, ErrorMessage: e.Message, StatusCode: e.Status, Details: e.Details})
		return
	}
	b := buffers.Get().(*[]byte)
	defer release(b)
	*b = codec.EncodeReply((*b)[:0], a.format, a.reply(nil, e, wall))
	header := nats.Header{
		micro.ErrorHeader:     []string{headerText(string(e.Code) + ": " + e.Message)},
		micro.ErrorCodeHeader: []string{strconv.Itoa(e.Status)},
	}
	if a.format != codec.JSON {
		header[codec.HeaderContentType] = []string{a.format.ContentType()}
	}
	if err := a.e.s.cfg.Link.Publish(a.to, "", header, *b); err != nil {
		a.e.s.cfg.Log.Warn("an answer could not be sent", "action", a.command.Action, "request_id", a.command.RequestID, "error", err)
	}
}

// publish sends a success, now. With undo, the server is asked to say when nobody
// listens.
func (a *answer) publish(payload []byte, undo func(), now clock.Instant) error {
	reply := ""
	if undo != nil {
		reply = a.e.s.unheard.watch(undo, now)
	}
	var header nats.Header
	if a.format != codec.JSON {
		header = nats.Header{codec.HeaderContentType: []string{a.format.ContentType()}}
	}
	err := a.e.s.cfg.Link.Publish(a.to, reply, header, payload)
	if err != nil && undo != nil {
		a.e.s.unheard.forget(reply)
	}
	return err
}

// first makes the caller the one that answers.
func (a *answer) first() bool {
	if a.given.CompareAndSwap(false, true) {
		return true
	}
	a.e.s.cfg.Log.Error("defect: a command was answered twice; the second answer is ignored",
		"action", a.command.Action, "request_id", a.command.RequestID)
	return false
}

func (a *answer) reply(data any, e *schemas.Error, at time.Time) codec.Reply {
	return codec.Reply{RequestID: a.command.RequestID, Timestamp: at, Node: a.e.s.cfg.Node, Data: data, Err: e}
}

// tell publishes the outcome of a command that has nowhere to answer to.
func (a *answer) tell(e *schemas.CommandEvent) {
	e.RequestID, e.Action, e.Tenant = a.command.RequestID, a.command.Action, a.command.Tenant
	kind := schemas.EventCompleted
	if e.ErrorCode != "" {
		kind = schemas.EventFailed
	}
	a.e.s.cfg.Events.Publish(schemas.Event{Event: kind, Subject: schemas.CommandEventSubject(a.e.s.cfg.Node), Data: e})
}

func (a *answer) observe(code schemas.Code, at time.Time) {
	took := a.e.s.cfg.Clock.Now().Sub(a.arrived)
	a.e.requests.Add(1)
	a.e.took.Add(int64(took))
	if code != "" {
		a.e.errors.Add(1)
		last := string(code)
		a.e.lastError.Store(&last)
	}
	if a.e.s.cfg.Observe != nil {
		a.e.s.cfg.Observe(Outcome{Command: &a.command, Code: code, At: at, Took: took, Answered: a.to != ""})
	}
}

func release(b *[]byte) {
	if cap(*b) <= largestKept {
		buffers.Put(b)
	}
}

// headerText makes a message fit a header line.
func headerText(s string) string {
	const longest = 256
	b := make([]byte, 0, min(len(s), longest))
	for i := 0; i < len(s) && len(b) < longest; i++ {
		c := s[i]
		if c < 0x20 || c == 0x7f {
			c = ' '
		}
		b = append(b, c)
	}
	return string(b)
}
