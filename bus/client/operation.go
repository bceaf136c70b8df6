package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

// AwaitWait is how long one get_operation of Await may wait at the node.
const AwaitWait = 10 * time.Second

// Progress is told how an operation goes; see Await.
type Progress func(schemas.Operation)

// Await follows an operation to its end and decodes its result, the action's own
// reply data with a fresh claim, into reply (a pointer, or nil). progress, if not
// nil, is called after every answer of the node, on the caller's goroutine.
//
// An operation that failed or was cancelled is a *schemas.Error. Ending ctx ends
// the waiting only; cancel_operation ends the operation.
func (c *Client) Await(ctx context.Context, operationID string, reply any, progress Progress, opts ...CallOption) error {
	wait := AwaitWait
	if progress != nil {
		wait = 500 * time.Millisecond
	}
	for {
		request := schemas.GetOperationRequest{OperationID: operationID, WaitMs: wait.Milliseconds()}
		var answer schemas.GetOperationReply
		following := append([]CallOption{func(k *call) { k.patience = wait }}, opts...)
		if err := c.Call(ctx, schemas.ActionGetOperation, &request, &answer, following...); err != nil {
			return err
		}
		op := answer.Operation
		if progress != nil {
			progress(op)
		}
		switch op.Status {
		case schemas.StatusCompleted:
			return decodeResult(op, reply)
		case schemas.StatusFailed, schemas.StatusCancelled:
			return operationError(op)
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
	}
}

// Do is Call followed, where the command is queued or running, by Await. What waits does not
// outlive its node: where the next one does not know the operation the command is given again
// with the same request_id, and has its effect once.
func (c *Client) Do(ctx context.Context, action schemas.Action, request, reply any, progress Progress, opts ...CallOption) error {
	var k call
	for _, o := range opts {
		o(&k)
	}
	if k.requestID == "" {
		opts = append(opts[:len(opts):len(opts)], WithRequestID(uuid.NewString()))
	}
	var ask []CallOption
	if k.node != "" {
		ask = append(ask, WithNode(k.node))
	}
	for attempt := 1; ; attempt++ {
		err := c.Call(ctx, action, request, reply, opts...)
		var pending *PendingError
		if !errors.As(err, &pending) {
			return err
		}
		if progress != nil {
			progress(schemas.Operation{OperationID: pending.OperationID, Action: action, Status: pending.Status,
				Position: pending.Position, EstimatedMs: pending.EstimatedMs, Reason: pending.Reason})
		}
		err = c.Await(ctx, pending.OperationID, reply, progress, ask...)
		if attempt >= c.opts.Attempts || !errors.Is(err, schemas.Errorf(schemas.CodeOperationNotFound, "")) {
			return err
		}
	}
}

// decodeResult reads an operation's result, which arrives as plain maps and values.
func decodeResult(op schemas.Operation, reply any) error {
	if reply == nil || op.Result == nil {
		return nil
	}
	if err := codec.Unmarshal(codec.Append(nil, codec.JSON, op.Result), codec.JSON, reply); err != nil {
		return fmt.Errorf("the result of operation %s: %w", op.OperationID, err)
	}
	return nil
}

func operationError(op schemas.Operation) error {
	if op.Error == nil {
		code := schemas.CodeInternalError
		if op.Status == schemas.StatusCancelled {
			code = schemas.CodeCancelled
		}
		return schemas.Errorf(code, "operation %s: %s", op.OperationID, op.Status)
	}
	return &schemas.Error{Code: op.Error.ErrorCode, Message: op.Error.ErrorMessage, Status: op.Error.StatusCode, Details: op.Error.Details}
}
