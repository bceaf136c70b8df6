package actors

import (
	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/schemas"
)

// Transfers are operations; what they have of their own is said here: the two actions by
// which older services follow and stop them, and their events.

// transfer looks a transfer up; any other operation is not found.
func (s *sessionsActor) transfer(tenant, id string) (*operation, *schemas.Error) {
	op, err := s.find(tenant, id, "")
	if err != nil || op.c.Action != schemas.ActionTransfer {
		return nil, schemas.Errorf(schemas.CodeTransferNotFound, "no transfer %q", id)
	}
	return op, nil
}

// getTransfer answers get_transfer at once.
func (s *sessionsActor) getTransfer(c *call) {
	op, err := s.transfer(c.Tenant, c.Data.(*schemas.GetTransferRequest).TransferID)
	if err != nil {
		c.fail(err)
		return
	}
	s.await(c, op, 0)
}

// cancelTransfer answers cancel_transfer when the transfer has ended, or when the command's
// wait is over.
func (s *sessionsActor) cancelTransfer(c *call) {
	op, err := s.transfer(c.Tenant, c.Data.(*schemas.CancelTransferRequest).TransferID)
	switch {
	case err != nil:
		c.fail(err)
	case c.DryRun && op.ended != 0:
		c.done(planned("granted", "the transfer has ended: nothing would change"), nil)
	case c.DryRun:
		c.done(planned("granted", "the transfer would be cancelled"), nil)
	default:
		s.cancel(c, op, c.Wait)
	}
}

// answerTransfer answers the two actions; it reports false for any other.
func (s *sessionsActor) answerTransfer(c *call, r schemas.Operation) bool {
	switch c.Action {
	case schemas.ActionGetTransfer:
		c.done(&schemas.GetTransferReply{Operation: r}, nil)
	case schemas.ActionCancelTransfer:
		c.done(&schemas.CancelTransferReply{Finished: schemas.Done(), Operation: r}, nil)
	default:
		return false
	}
	return true
}

// started notes that a transfer's copy begins, and publishes it.
func (s *sessionsActor) started(id string, total int64, reason string) {
	if op := s.ops[id]; op != nil && op.ended == 0 {
		op.status, op.position, op.total, op.reason = schemas.StatusRunning, 0, total, reason
		op.begun = s.house.cfg.Clock.Now() // throughput is the copy's, not the wait's
		s.announce(op, schemas.EventStarted)
	}
}

// copied takes how far a copy has come. It may be called from any goroutine, and may be dropped
// under load.
func (s *sessionsActor) copied(id string, done, total int64, reason string) {
	s.tell(seam.QueryLane, func() {
		op := s.ops[id]
		if op == nil || op.ended != 0 {
			return
		}
		op.status, op.done, op.total, op.position, op.reason = schemas.StatusRunning, done, total, 0, reason
		if op.c.Action == schemas.ActionTransfer {
			s.announce(op, schemas.EventProgress)
		}
	})
}

// transferEnded publishes the end of a transfer; other operations have no event.
func (s *sessionsActor) transferEnded(op *operation, kind schemas.EventKind) {
	if op.c.Action != schemas.ActionTransfer {
		return
	}
	if kind == schemas.EventCompleted {
		op.done = op.total
	} else if op.status == schemas.StatusCancelled {
		kind = schemas.EventCancelled
	}
	s.announce(op, kind)
}

func (s *sessionsActor) announce(op *operation, kind schemas.EventKind) {
	r := s.render(op)
	r.Result = op.result
	s.house.publish(schemas.Event{Event: kind, Subject: schemas.TransferSubject(s.house.cfg.Node), Tenant: op.c.Tenant, Data: &r})
}
