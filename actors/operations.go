package actors

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// operation is a command that was not done at once. The client may already have been
// answered «queued»; then its outcome is kept here to be fetched.
type operation struct {
	id       string
	c        *call
	status   schemas.OperationStatus
	position int
	reason   string
	done     int64
	total    int64
	begun    clock.Instant
	expected clock.Instant // when it will end, as was last said; 0: not known
	pending  bool          // the client was answered «queued» or «running»
	cancel   canceller
	result   any
	err      *schemas.Error
	undo     func()
	fetched  bool
	ended    clock.Instant
	waiters  []*waiter
	// recalled is the remembered outcome of a command that was answered at once: its result.
	recalled *ledger.AnswerRecord
}

// waiter is somebody who waits for an operation's end with get_operation.
type waiter struct {
	c       *call
	timer   clock.Timer
	replied bool
}

func (s *sessionsActor) newOperationID() string { return s.house.cfg.Node + "." + uuid.NewString() }

// track begins to follow a command, which has to be answered when its wait is over.
func (s *sessionsActor) track(c *call, status schemas.OperationStatus, position int, reason string, cancel canceller) {
	op := &operation{id: c.operation, c: c, status: status, position: position, reason: reason, cancel: cancel, begun: s.house.cfg.Clock.Now()}
	s.ops[op.id] = op
	s.byReq[ledger.AnswerKey(c.Tenant, c.RequestID)] = op
	s.house.cfg.Clock.AfterFunc(c.Wait, func() { s.tell(seam.SystemLane, func() { s.overdue(op) }) })
}

// overdue answers a command whose wait is over and which is not done.
func (s *sessionsActor) overdue(op *operation) {
	if op.pending || op.ended != 0 {
		return
	}
	s.look(op, func() {
		if op.pending || op.ended != 0 {
			return
		}
		op.pending = true
		op.c.Reply.Done(s.describePending(op), nil)
	})
}

func (s *sessionsActor) describePending(op *operation) *schemas.Pending {
	return &schemas.Pending{Status: op.status, OperationID: op.id, Position: op.position, EstimatedMs: s.estimate(op), Reason: op.reason}
}

// progress takes what is new of a command under way.
func (s *sessionsActor) progress(id string, status schemas.OperationStatus, position int, reason string) {
	if op := s.ops[id]; op != nil && op.ended == 0 {
		op.status, op.position, op.reason = status, position, reason
	}
}

// moved takes how far a load has come.
func (s *sessionsActor) moved(id string, done, total int64) {
	s.tell(seam.QueryLane, func() {
		if op := s.ops[id]; op != nil && op.ended == 0 {
			op.status, op.done, op.total, op.position = schemas.StatusRunning, done, total, 0
			op.reason = "loading"
		}
	})
}

// remember keeps a command's outcome and answers those who joined it.
func (s *sessionsActor) remember(c *call, data any) {
	r, released := data.(*schemas.DeallocateReply)
	if c.record.Key == "" || released && !r.Confirmed {
		// No ledger has it, or it knows less: what it did can be done again after a restart.
		c.record = ledger.AnswerRecord{Key: c.key, Digest: c.Digest, Action: string(c.Action), Body: codec.Append(nil, codec.JSON, data)}
	}
	for _, ref := range s.answers.Finish(c.key, c.home, c.record, s.house.cfg.Clock.Now()) {
		if j := ref.(*call); j != c {
			s.replay(j, c.record)
		}
	}
}

// forgetting is an undo that forgets the outcome as well.
func (s *sessionsActor) forgetting(c *call, undo func()) func() {
	if undo == nil {
		return nil
	}
	return func() {
		s.tell(seam.SystemLane, func() {
			s.undone(c)
			if op := s.byReq[c.key]; op != nil && op.c == c {
				delete(s.byReq, c.key)
				delete(s.ops, op.id)
			}
		})
		undo()
	}
}

// finished takes the outcome of a command that is followed.
func (s *sessionsActor) finished(c *call, data any, undo func()) {
	if c.key != "" {
		s.remember(c, data)
		undo = s.forgetting(c, undo)
	}
	op := s.ops[c.operation]
	op.status, op.result, op.undo, op.ended = schemas.StatusCompleted, data, undo, s.house.cfg.Clock.Now()
	op.position, op.reason = 0, ""
	s.transferEnded(op, schemas.EventCompleted)
	s.ended = append(s.ended, op)
	if !op.pending {
		op.fetched = true
		c.reply(data, undo)
	} else if undo != nil {
		s.house.cfg.Clock.AfterFunc(s.house.cfg.UndoAfter, func() { s.tell(seam.SystemLane, func() { s.unclaimed(op) }) })
	}
	s.wake(op)
}

// failed takes a command's failure. It had no effect, so a retry is a new attempt.
func (s *sessionsActor) failed(c *call, err *schemas.Error) {
	if c.key != "" {
		for _, ref := range s.answers.Fail(c.key) {
			if j := ref.(*call); j != c {
				j.Reply.Fail(err)
			}
		}
	}
	op := s.ops[c.operation]
	if op == nil {
		c.Reply.Fail(err)
		return
	}
	op.status, op.err, op.ended = schemas.StatusFailed, err, s.house.cfg.Clock.Now()
	if err.Code == schemas.CodeCancelled {
		op.status = schemas.StatusCancelled
	}
	op.reason, op.position = err.Message, 0
	s.transferEnded(op, schemas.EventFailed)
	s.ended = append(s.ended, op)
	if !op.pending {
		c.Reply.Fail(err)
	}
	s.wake(op)
}

// undone forgets an outcome that nobody heard: a retry makes it anew. The device that
// undoes a grant deletes its record with it.
func (s *sessionsActor) undone(c *call) {
	if home, ok := s.answers.Undone(c.key); ok && home == "pool" {
		s.house.pool.forgetAnswers([]string{c.key})
	}
}

// unclaimed takes back a grant that was answered «queued», completed later, and was
// neither fetched nor mapped.
func (s *sessionsActor) unclaimed(op *operation) {
	if op.fetched || op.undo == nil {
		return
	}
	made := ""
	switch r := op.result.(type) {
	case *schemas.AllocateReply:
		made = r.AllocationID
	case *schemas.TransferReply:
		made = r.AllocationID
	}
	if d, id, err := s.house.deviceOfID(made); err == nil {
		d.undo(id, op.c.Tenant, true)
	}
	if op.c.key != "" {
		s.undone(op.c)
	}
	op.undo, op.result, op.status = nil, nil, schemas.StatusFailed
	op.err = schemas.Errorf(schemas.CodeStaleHandle, "the grant expired: it was neither fetched nor mapped in time")
}

// forgetOperations drops ended operations after as long as outcomes are remembered.
func (s *sessionsActor) forgetOperations(now clock.Instant) {
	for len(s.ended) > 0 && (now.Sub(s.ended[0].ended) > s.house.cfg.KeepAnswers || len(s.ended) > s.house.cfg.MaxAnswers) {
		op := s.ended[0]
		s.ended[0] = nil
		s.ended = s.ended[1:]
		delete(s.ops, op.id)
		if key := ledger.AnswerKey(op.c.Tenant, op.c.RequestID); s.byReq[key] == op {
			delete(s.byReq, key)
		}
	}
}

// find looks an operation up by either of its ids; another tenant's do not exist.
func (s *sessionsActor) find(tenant, id, requestID string) (*operation, *schemas.Error) {
	op := s.ops[id]
	if op == nil && id != "" {
		op = s.ops[s.house.cfg.Node+"."+id]
	}
	if requestID != "" {
		if op = s.byReq[ledger.AnswerKey(tenant, requestID)]; op == nil || s.forgotten(op) {
			op = s.recollect(tenant, requestID)
		}
	}
	if op == nil || s.forgotten(op) || op.c.Tenant != tenant {
		return nil, schemas.Errorf(schemas.CodeOperationNotFound, "no such operation: what a node had not done when it ended is gone, and the command can be given again with the same request_id")
	}
	return op, nil
}

// getOperation answers get_operation, at once or when the operation ends.
func (s *sessionsActor) getOperation(c *call) {
	in := c.Data.(*schemas.GetOperationRequest)
	op, err := s.find(c.Tenant, in.OperationID, in.RequestID)
	if err != nil {
		c.fail(err)
		return
	}
	s.await(c, op, time.Duration(in.WaitMs)*time.Millisecond)
}

// cancelOperation answers cancel_operation when the operation has ended, or at its wait.
func (s *sessionsActor) cancelOperation(c *call) {
	in := c.Data.(*schemas.CancelOperationRequest)
	op, err := s.find(c.Tenant, in.OperationID, in.RequestID)
	if err != nil {
		c.fail(err)
		return
	}
	if c.DryRun {
		c.done(planned("granted", "the operation would be cancelled if it has not ended"), nil)
		return
	}
	s.cancel(c, op, time.Duration(in.WaitMs)*time.Millisecond)
}

// cancel orders an operation's end and answers when it has ended, or at the wait.
func (s *sessionsActor) cancel(c *call, op *operation, wait time.Duration) {
	if op.ended != 0 || op.cancel == nil {
		s.await(c, op, wait)
		return
	}
	// What ends at once is answered as ended, also without a wait.
	op.cancel(schemas.Errorf(schemas.CodeCancelled, "cancelled by its client"), func() {
		s.tell(seam.SystemLane, func() { s.await(c, op, wait) })
	})
}

func (s *sessionsActor) await(c *call, op *operation, wait time.Duration) {
	w := &waiter{c: c}
	if op.ended != 0 || wait <= 0 {
		s.answerOperation(op, w)
		return
	}
	op.waiters = append(op.waiters, w)
	w.timer = s.house.cfg.Clock.AfterFunc(wait, func() { s.tell(seam.SystemLane, func() { s.answerOperation(op, w) }) })
}

// wake answers those who wait for an operation's end.
func (s *sessionsActor) wake(op *operation) {
	for _, w := range op.waiters {
		w.timer.Stop()
		s.answerOperation(op, w)
	}
	op.waiters = nil
}

func (s *sessionsActor) answerOperation(op *operation, w *waiter) {
	if w.replied {
		return
	}
	w.replied = true
	s.look(op, func() { s.tellOperation(op, w) })
}

// tellOperation gives the answer to who waits for an operation.
func (s *sessionsActor) tellOperation(op *operation, w *waiter) {
	r := s.render(op)
	reply := func() {
		if w.c.Action == schemas.ActionCancelOperation {
			w.c.done(&schemas.CancelOperationReply{Finished: schemas.Done(), Operation: r}, nil)
			return
		}
		if s.answerTransfer(w.c, r) {
			return
		}
		w.c.done(&schemas.GetOperationReply{Operation: r}, nil)
	}
	if op.result == nil && op.recalled == nil || w.c.Action != schemas.ActionGetOperation && w.c.Action != schemas.ActionGetTransfer {
		reply()
		return
	}
	op.fetched = true
	s.withClaim(op, func(result any, err *schemas.Error) {
		r.Result = result
		if err != nil {
			r.Status, r.Reason, r.Error = schemas.StatusFailed, err.Message, operationError(err)
		}
		reply()
	})
}

// withClaim gives an operation's result to use, with a fresh claim where it has a handle. A
// model that has gone since has none, and then the error says so: a load that is answered
// as completed can be mapped.
func (s *sessionsActor) withClaim(op *operation, use func(any, *schemas.Error)) {
	if op.recalled != nil {
		s.recall(op.c.Action, op.c.Tenant, *op.recalled, use)
		return
	}
	switch r := op.result.(type) {
	case *schemas.AllocateReply:
		copied := *r
		d, grant, err := s.house.deviceOfID(r.AllocationID)
		if r.Handle == nil || err != nil {
			use(&copied, nil)
			return
		}
		d.claim(grant, op.c.Tenant, op.c.Tenant, func(h *schemas.Handle, _ *schemas.Error) {
			copied.Handle = h // none if the grant has ended: that was the outcome
			use(&copied, nil)
		})
	case *schemas.LoadModelReply:
		copied := *r
		grant, err := uuid.Parse(r.AllocationIDs[0])
		if err != nil {
			panic("actors: a load answered with the allocation " + r.AllocationIDs[0])
		}
		s.house.pool.handleOf(grant, op.c.Tenant, r.Model.Name, func(h *schemas.Handle, err *schemas.Error) {
			if err != nil {
				use(nil, err)
				return
			}
			copied.Handle = h
			use(&copied, nil)
		})
	default:
		use(op.result, nil)
	}
}

func operationError(err *schemas.Error) *schemas.OperationError {
	return &schemas.OperationError{ErrorCode: err.Code, ErrorMessage: err.Message, StatusCode: err.Status, Details: err.Details}
}

// render is the contract's operation type, without its result.
func (s *sessionsActor) render(op *operation) schemas.Operation {
	r := schemas.Operation{OperationID: op.id, RequestID: op.c.RequestID, Action: op.c.Action, Status: op.status, Position: op.position,
		BytesDone: op.done, BytesTotal: op.total, ProgressPercentage: percent(op.done, op.total), Reason: op.reason}
	end := op.ended
	if end == 0 {
		end = s.house.cfg.Clock.Now()
	}
	if secs := end.Sub(op.begun).Seconds(); secs > 0 && op.done > 0 {
		r.ThroughputBytesPerSecond = float64(op.done) / secs
	}
	r.EstimatedMs = s.estimate(op)
	if op.status == schemas.StatusCompleted {
		r.ProgressPercentage = 100
	}
	if op.err != nil {
		r.Error = operationError(op.err)
	}
	return r
}
