package bus

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

// StdioInFlight is how many commands of one standard input may be unanswered;
// beyond it no more lines are read.
const StdioInFlight = 256

// StdioConfig describes the commands of one standard input.
type StdioConfig struct {
	// Node is written into the answers.
	Node string
	// Tenant and User own the commands; "" is the default tenant, and nobody.
	Tenant, User string
	// Role is the most that the commands may be; "" is an operator's.
	Role schemas.Role
	Desk actors.Desk
	// Observe is as in ServiceConfig.
	Observe func(Outcome)
	// Trace, if set, says which trace a command belongs to; a line has no header that could.
	Trace func() *actors.Trace
	// Clock is nil for the machine's.
	Clock clock.Clock
	Log   *slog.Logger
}

// Stdio serves the contract's envelope over a pair of streams, one JSON object a
// line. The envelope names the action. Answers are written as commands are done, each
// a line: not in the order of the requests, but with their request_id, so that a
// program that has several commands in flight names them. Empty lines are
// skipped. A line of more than 256 KiB is answered PAYLOAD_TOO_LARGE without a
// request_id of the caller's, and skipped.
//
// It returns nil at the end of in, when every command is answered; ctx's cause when
// ctx ends first; or the error of a stream. A grant whose answer cannot be
// written is undone. A Read that is under way when ctx ends is left behind: close
// in to end it.
func Stdio(ctx context.Context, in io.Reader, out io.Writer, c StdioConfig) error {
	if c.Desk == nil {
		return errors.New("bus: stdio needs a desk")
	}
	if c.Tenant == "" {
		c.Tenant = schemas.DefaultTenant
	}
	if c.Role == "" {
		c.Role = schemas.RoleOperator
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &stdio{cfg: c, slots: make(chan struct{}, StdioInFlight), lines: make(chan line, StdioInFlight), cancel: cancel}
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write(ctx, out)
	}()
	read := make(chan error, 1)
	go func() { read <- s.read(ctx, in) }()

	var err error
	select {
	case err = <-read:
		if err == nil {
			err = s.drain(ctx)
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	cancel(err)
	<-written
	return err
}

type stdio struct {
	cfg    StdioConfig
	slots  chan struct{} // one for each unanswered command
	lines  chan line     // never full: each line has a slot
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	over bool // nothing is written any more
}

// line is one answer on its way out.
type line struct {
	text []byte
	undo func()
}

func (s *stdio) read(ctx context.Context, in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	var long []byte
	for {
		text, tooLong, err := nextLine(r, &long)
		if len(bytes.TrimSpace(text)) > 0 || tooLong {
			select {
			case s.slots <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			s.take(text, tooLong)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("reading commands: %w", err)
		}
	}
}

// nextLine reads up to a newline. Of a line that is too long it keeps nothing.
func nextLine(r *bufio.Reader, long *[]byte) (text []byte, tooLong bool, err error) {
	*long = (*long)[:0]
	for {
		part, err := r.ReadSlice('\n')
		if !tooLong && len(*long)+len(part) > schemas.MaxPayloadBytes+1 {
			tooLong, *long = true, nil
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if !tooLong {
				*long = append(*long, part...)
			}
			continue
		case tooLong:
			return nil, true, err
		case len(*long) == 0:
			return part, false, err
		}
		*long = append(*long, part...)
		return *long, false, err
	}
}

func (s *stdio) take(text []byte, tooLong bool) {
	a := &spoken{s: s, arrived: s.cfg.Clock.Now()}
	var r codec.Request
	var failure *schemas.Error
	if tooLong {
		// An empty request gets an id of its own.
		r, _ = codec.DecodeRequest(nil, codec.JSON, schemas.ActionCommand)
		failure = schemas.Errorf(schemas.CodePayloadTooLarge, "the line has more than %d bytes", schemas.MaxPayloadBytes)
	} else {
		r, failure = codec.DecodeRequest(text, codec.JSON, schemas.ActionCommand)
	}
	if failure == nil {
		failure = allows(s.cfg.Role, r.Spec)
	}
	a.command = actors.Command{Action: r.Action, Tenant: s.cfg.Tenant, Role: s.cfg.Role, User: s.cfg.User, RequestID: r.RequestID, Chosen: r.Chosen,
		Data: r.Data, Wait: r.Wait, DryRun: r.DryRun, Reply: a, Arrived: a.arrived}
	if s.cfg.Trace != nil {
		a.command.Trace = s.cfg.Trace()
	}
	if failure != nil {
		a.Fail(failure)
		return
	}
	if r.Chosen && r.Spec.Changing {
		a.command.Digest = r.Digest()
	}
	s.cfg.Desk.Submit(&a.command)
}

// write sends answers until ctx ends; what can not be written is undone.
func (s *stdio) write(ctx context.Context, out io.Writer) {
	var broken error
	send := func(l line) {
		if broken == nil {
			_, broken = out.Write(l.text)
			if broken != nil {
				s.cancel(fmt.Errorf("writing answers: %w", broken))
			}
		}
		if broken != nil && l.undo != nil {
			l.undo()
		}
		<-s.slots
	}
	for {
		select {
		case l := <-s.lines:
			send(l)
		case <-ctx.Done():
			s.mu.Lock()
			s.over = true
			s.mu.Unlock()
			for { // what was answered before the end still counts
				select {
				case l := <-s.lines:
					send(l)
				default:
					return
				}
			}
		}
	}
}

// drain waits until every slot is free: every command is answered and written.
func (s *stdio) drain(ctx context.Context) error {
	for range cap(s.slots) {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// spoken implements actors.Reply for one command of a standard input.
type spoken struct {
	s       *stdio
	command actors.Command
	arrived clock.Instant
	given   atomic.Bool
}

// Done implements actors.Reply.
func (a *spoken) Done(data any, undo func()) {
	if a.first() {
		at := a.s.cfg.Clock.Wall()
		a.put(codec.EncodeReply(nil, codec.JSON, a.reply(data, nil, at)), undo, "", at)
	}
}

// Fail implements actors.Reply.
func (a *spoken) Fail(e *schemas.Error) {
	if a.first() {
		at := a.s.cfg.Clock.Wall()
		a.put(codec.EncodeReply(nil, codec.JSON, a.reply(nil, e, at)), nil, e.Code, at)
	}
}

func (a *spoken) put(text []byte, undo func(), code schemas.Code, at time.Time) {
	a.s.mu.Lock()
	over := a.s.over
	if !over {
		a.s.lines <- line{text: append(text, '\n'), undo: undo}
	}
	a.s.mu.Unlock()
	if over && undo != nil {
		go undo()
	}
	if a.s.cfg.Observe != nil {
		a.s.cfg.Observe(Outcome{Command: &a.command, Code: code, At: at, Took: a.s.cfg.Clock.Now().Sub(a.arrived), Answered: true})
	}
}

func (a *spoken) first() bool {
	if a.given.CompareAndSwap(false, true) {
		return true
	}
	a.s.cfg.Log.Error("defect: a command was answered twice; the second answer is ignored",
		"action", a.command.Action, "request_id", a.command.RequestID)
	return false
}

func (a *spoken) reply(data any, e *schemas.Error, at time.Time) codec.Reply {
	return codec.Reply{RequestID: a.command.RequestID, Timestamp: at, Node: a.s.cfg.Node, Data: data, Err: e}
}
