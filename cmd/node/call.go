package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// callCommand gives a node one command.
type callCommand struct {
	Action string   `arg:"" optional:"" help:"The action, such as allocate; --list shows all."`
	Fields []string `arg:"" optional:"" name:"key=value" help:"Fields of its request; --describe shows them."`

	Describe  bool           `name:"describe" help:"List the fields of the action instead of calling it."`
	List      bool           `name:"list" help:"List the actions."`
	JSON      string         `name:"json" placeholder:"DATA" help:"Fields as a JSON object, or - to read it from standard input; pairs win over it."`
	Table     bool           `name:"table" help:"Print the reply for reading instead of as JSON."`
	Wait      *time.Duration `name:"wait" placeholder:"DURATION" help:"How long the node may take before it answers that the command is queued or running (wait_ms)."`
	DryRun    bool           `name:"dry-run" help:"Ask what would happen; nothing is changed."`
	NoFollow  bool           `name:"no-follow" help:"Print that a command is queued or running, instead of following it to its end."`
	RequestID string         `name:"request-id" placeholder:"ID" help:"Name the command: repeated with the same name it has its effect once."`
	MsgPack   bool           `name:"msgpack" help:"Speak MessagePack with the node."`
	connection
}

// Help is the long help.
func (callCommand) Help() string {
	return `Values are read as the field wants them: sizes with units (size_bytes=64MiB), times (lease_seconds=2m), true and false, lists with commas, fields of fields with dots (thresholds.high=85). key:=JSON gives any value as JSON. The reply's data is printed as JSON.

    isobar call --list
    isobar call allocate --describe
    isobar call allocate device_id=ram-0 size_bytes=64MiB purpose=kv-cache
    isobar call load_model name=encoder path=/models/encoder.safetensors
    isobar call allocate size_bytes=10GiB --dry-run --table
    isobar call set_limits device_id=ram-0 limit_bytes=1GiB thresholds:='{"high":{"enter":85,"leave":80}}'

What takes longer than --wait is followed to its end, with its progress; Ctrl-C then cancels it at the node. Exit codes: 0 done, 1 refused, 2 wrong usage, 3 no node answers.`
}

// Run implements the command.
func (c *callCommand) Run(k *call) error {
	if c.List {
		listActions(k.out)
		return nil
	}
	spec, err := c.spec()
	if err != nil {
		return err
	}
	if c.Describe {
		describeAction(k.out, spec)
		return nil
	}
	data, err := c.data(k, spec)
	if err != nil {
		return err
	}
	conn, err := c.open(k, func(o *client.Options) {
		if c.MsgPack {
			o.Format = codec.MsgPack
		}
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	reply, err := c.follow(k, conn, spec, data)
	if err != nil {
		return err
	}
	return c.print(k, reply)
}

func (c *callCommand) spec() (*schemas.Spec, error) {
	if c.Action == "" {
		return nil, usage("an action is missing: `isobar call --list` shows them")
	}
	spec, ok := schemas.Lookup(schemas.Action(c.Action))
	if ok {
		return spec, nil
	}
	var names []string
	for _, s := range schemas.All() {
		names = append(names, string(s.Action))
	}
	if best, ok := node.Nearest(c.Action, names); ok {
		return nil, usage("there is no action %q: did you mean %s?", c.Action, best)
	}
	return nil, usage("there is no action %q: `isobar call --list` shows them", c.Action)
}

// data is the request; wait_ms and dry_run go where the client expects them.
func (c *callCommand) data(k *call, spec *schemas.Spec) (map[string]any, error) {
	object := c.JSON
	if object == "-" {
		all, err := io.ReadAll(io.LimitReader(k.in, schemas.MaxPayloadBytes+1))
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		object = string(all)
	}
	data, err := requestData(spec, object, c.Fields)
	if err != nil {
		return nil, err
	}
	if ms, ok := wholeMilliseconds(data["wait_ms"]); ok && c.Wait == nil {
		c.Wait = &ms
		delete(data, "wait_ms")
	}
	if v, ok := data["dry_run"].(bool); ok && spec.Changing {
		c.DryRun = c.DryRun || v
		delete(data, "dry_run")
	}
	if c.DryRun && !spec.Changing {
		return nil, usage("%s changes nothing, so that --dry-run means nothing", spec.Action)
	}
	if _, takes := findField(requestFields(spec), "wait_ms"); c.Wait != nil && !takes {
		return nil, usage("%s is answered at once, so that --wait means nothing", spec.Action)
	}
	return data, nil
}

func wholeMilliseconds(v any) (time.Duration, bool) {
	n, ok := wholeNumber(v)
	if !ok || n < 0 || n > schemas.MaxWaitMs {
		return 0, false // the node says what is wrong with it
	}
	return time.Duration(n) * time.Millisecond, true
}

// follow calls and, where the command is queued or running, follows it to its end. The
// first interrupt asks the node to cancel it, and the node's word is awaited; the
// second leaves.
func (c *callCommand) follow(k *call, conn *client.Client, spec *schemas.Spec, data map[string]any) (json.RawMessage, error) {
	id := c.RequestID
	if id == "" {
		id = uuid.NewString()
	}
	opts := []client.CallOption{client.WithRequestID(id)}
	if c.Wait != nil {
		opts = append(opts, client.WithWait(*c.Wait))
	}
	if c.DryRun {
		opts = append(opts, client.WithDryRun())
	}
	ctx, leave := context.WithCancelCause(k.ctx)
	defer leave(nil)
	progress := &bar{w: k.err, width: k.errTerminal}
	defer progress.clear()
	finished := make(chan struct{})
	defer close(finished)
	go k.cancelOnInterrupt(finished, leave, conn, spec, id)

	var reply json.RawMessage
	err := conn.Call(ctx, spec.Action, data, &reply, opts...)
	var pending *client.PendingError
	if !errors.As(err, &pending) {
		return reply, err
	}
	if c.NoFollow {
		return codec.Append(nil, codec.JSON, &pending.Pending), nil
	}
	show := func(op schemas.Operation) {
		if op.Action == "" {
			op.Action = spec.Action
		}
		progress.update(op)
	}
	show(schemas.Operation{OperationID: pending.OperationID, Status: pending.Status, Position: pending.Position,
		EstimatedMs: pending.EstimatedMs, Reason: pending.Reason})
	err = conn.Await(ctx, pending.OperationID, &reply, show)
	return reply, err
}

// cancelOnInterrupt turns interrupts into cancel_operation, and then into leaving.
func (k *call) cancelOnInterrupt(finished <-chan struct{}, leave context.CancelCauseFunc, conn *client.Client, spec *schemas.Spec, id string) {
	select {
	case <-k.interrupts:
	case <-finished:
		return
	}
	if !spec.Changing {
		leave(errInterrupted)
		return
	}
	ctx, cancel := context.WithCancel(k.ctx)
	defer cancel()
	go func() {
		select {
		case <-k.interrupts:
			leave(fmt.Errorf("%w: the node was asked to cancel, and what came of it is not known; `isobar call get_operation request_id=%s` tells", errInterrupted, id))
			cancel()
		case <-finished:
		case <-ctx.Done():
		}
	}()
	// What came of it is the answer to the command itself.
	err := conn.Call(ctx, schemas.ActionCancelOperation, &schemas.CancelOperationRequest{RequestID: id}, nil)
	var refused *schemas.Error
	if err != nil && !errors.As(err, &refused) {
		leave(fmt.Errorf("%w; the node could not be asked to cancel: %w", errInterrupted, err))
		return
	}
	select {
	case <-finished:
	case <-ctx.Done():
	}
}

// widestTable is how wide a table may be where there is no terminal to say.
const widestTable = 160

func (c *callCommand) print(k *call, reply json.RawMessage) error {
	if len(reply) == 0 {
		reply = json.RawMessage("{}")
	}
	if c.Table {
		widest := k.outTerminal
		if widest == 0 {
			widest = widestTable
		}
		return writeReplyTable(k.out, reply, widest)
	}
	if k.outTerminal > 0 {
		var b bytes.Buffer
		if err := json.Indent(&b, reply, "", "  "); err == nil {
			reply = b.Bytes()
		}
	}
	_, err := fmt.Fprintf(k.out, "%s\n", reply)
	return err
}
