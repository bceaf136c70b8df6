package forward

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/schemas"
)

// Desk passes every command on to a node. It implements actors.Desk; its methods may be
// called from any goroutine.
type Desk struct {
	ctx     context.Context
	conn    *client.Client
	opts    []client.CallOption
	undoing sync.WaitGroup
}

// New makes a desk whose commands give up when ctx ends. The connection is the caller's; the
// options go with every command.
func New(ctx context.Context, conn *client.Client, opts ...client.CallOption) *Desk {
	return &Desk{ctx: ctx, conn: conn, opts: opts}
}

// Submit implements actors.Desk: it returns at once, and the command is answered when the
// node has answered. How many are on their way is for the caller to bound.
func (d *Desk) Submit(c *actors.Command) { go d.forward(c) }

// Wait waits until what had to be undone is undone, at most 5 seconds for each. It is
// called when nothing is submitted any more.
func (d *Desk) Wait() { d.undoing.Wait() }

func (d *Desk) forward(c *actors.Command) {
	opts := append(slices.Clone(d.opts), client.WithRequestID(c.RequestID))
	wait, waits := c.Wait, false
	if spec, ok := schemas.Lookup(c.Action); ok {
		waits = spec.Changing
	}
	// In these two wait_ms is a field; the client must know it, to have the patience.
	switch r := c.Data.(type) {
	case *schemas.GetOperationRequest:
		wait, waits, r.WaitMs = time.Duration(r.WaitMs)*time.Millisecond, true, 0
	case *schemas.CancelOperationRequest:
		wait, waits, r.WaitMs = max(wait, time.Duration(r.WaitMs)*time.Millisecond), true, 0
	}
	if waits {
		opts = append(opts, client.WithWait(wait))
	}
	if c.DryRun {
		opts = append(opts, client.WithDryRun())
	}
	var reply json.RawMessage
	err := d.conn.Call(d.ctx, c.Action, c.Data, &reply, opts...)
	var pending *client.PendingError
	var refused *schemas.Error
	switch {
	case err == nil:
		c.Reply.Done(reply, d.undo(c, reply))
	case errors.As(err, &pending):
		c.Reply.Done(&pending.Pending, nil)
	case errors.As(err, &refused):
		c.Reply.Fail(refused)
	default:
		c.Reply.Fail(schemas.Errorf(schemas.CodeNoNode, "no answer from a node: %v", err))
	}
}

// undoPatience bounds giving back what nobody was told of.
const undoPatience = 5 * time.Second

// undo gives a grant back whose answer could not be written.
func (d *Desk) undo(c *actors.Command, reply json.RawMessage) func() {
	if c.Action != schemas.ActionAllocate || c.DryRun {
		return nil
	}
	var granted schemas.AllocateReply
	if err := json.Unmarshal(reply, &granted); err != nil || granted.AllocationID == "" {
		return nil
	}
	return func() {
		d.undoing.Go(func() {
			// d.ctx may be what ended the writing.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), undoPatience)
			defer cancel()
			// A node that is gone has nothing to give back; its lease rules hold otherwise.
			_ = d.conn.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: granted.AllocationID}, nil)
		})
	}
}

var _ actors.Desk = (*Desk)(nil)
