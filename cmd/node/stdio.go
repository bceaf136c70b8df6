package main

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/schemas"
)

// stdioCommand serves the contract's envelope on standard input and output.
type stdioCommand struct {
	connection
}

// Help is the long help.
func (stdioCommand) Help() string {
	return `Each line of input is one command, {"request_id": …, "action": …, "data": {…}}, and each line of output its answer, in the order in which they are done. It ends at the end of input, when everything is answered.

    echo '{"action":"get_pressure"}' | isobar stdio`
}

// Run implements the command.
func (s *stdioCommand) Run(k *call) error {
	conn, err := s.open(k, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := k.interruptible()
	defer stop()
	if err := conn.Call(ctx, schemas.ActionListDevices, nil, nil); err != nil {
		return err
	}
	name := s.Node
	if name == "" {
		if name, err = whoAnswers(ctx, conn); err != nil {
			return err
		}
	}
	desk := &forwarder{ctx: ctx, conn: conn}
	err = bus.Stdio(ctx, k.in, k.out, bus.StdioConfig{Node: name, Desk: desk})
	desk.undoing.Wait()
	if errors.Is(err, errInterrupted) {
		return nil
	}
	return err
}

// forwarder is a desk that passes every command on to a node. It implements actors.Desk.
type forwarder struct {
	ctx     context.Context
	conn    *client.Client
	undoing sync.WaitGroup
}

// Submit implements actors.Desk. bus.Stdio bounds how many are on their way.
func (f *forwarder) Submit(c *actors.Command) { go f.forward(c) }

func (f *forwarder) forward(c *actors.Command) {
	opts := []client.CallOption{client.WithRequestID(c.RequestID)}
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
	err := f.conn.Call(f.ctx, c.Action, c.Data, &reply, opts...)
	var pending *client.PendingError
	var refused *schemas.Error
	switch {
	case err == nil:
		c.Reply.Done(reply, f.undo(c, reply))
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
func (f *forwarder) undo(c *actors.Command, reply json.RawMessage) func() {
	if c.Action != schemas.ActionAllocate || c.DryRun {
		return nil
	}
	var granted schemas.AllocateReply
	if err := json.Unmarshal(reply, &granted); err != nil || granted.AllocationID == "" {
		return nil
	}
	return func() {
		f.undoing.Go(func() {
			// f.ctx may be what ended the writing.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(f.ctx), undoPatience)
			defer cancel()
			// A node that is gone has nothing to give back; its lease rules hold otherwise.
			_ = f.conn.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: granted.AllocationID}, nil)
		})
	}
}

var _ actors.Desk = (*forwarder)(nil)
