package actors

import (
	"encoding/json"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// replay answers a command with what its first execution answered, and a fresh claim.
func (s *sessionsActor) replay(c *call, rec ledger.AnswerRecord) {
	s.recall(c.Action, c.Tenant, rec, func(data any, err *schemas.Error) {
		if err != nil {
			c.Reply.Fail(err)
			return
		}
		if r, ok := data.(interface{ SetReplayed() }); ok {
			r.SetReplayed()
		}
		c.Reply.Done(data, nil)
	})
}

// recall makes an action's reply data of what is remembered of its outcome, with a fresh
// claim where it has a handle, and gives it to use, on one actor or another.
func (s *sessionsActor) recall(action schemas.Action, tenant string, rec ledger.AnswerRecord, use func(any, *schemas.Error)) {
	if action == schemas.ActionAllocate {
		s.recallAllocate(tenant, rec, use)
		return
	}
	spec, _ := schemas.Lookup(action)
	data := spec.NewReply()
	if err := json.Unmarshal(rec.Body, data); err != nil {
		s.house.log.Error("a remembered outcome cannot be read", "action", action, "error", err)
		use(nil, schemas.Errorf(schemas.CodeInternalError, "the first outcome cannot be read"))
		return
	}
	load, ok := data.(*schemas.LoadModelReply)
	if !ok {
		use(data, nil)
		return
	}
	s.house.pool.handleOf(rec.Grant, tenant, load.Model.Name, func(h *schemas.Handle, err *schemas.Error) {
		if err != nil {
			use(nil, err)
			return
		}
		load.Handle = h
		use(data, nil)
	})
}

// recallAllocate tells of the grant that the first execution made, or, once it has gone,
// of what is remembered of it.
func (s *sessionsActor) recallAllocate(tenant string, rec ledger.AnswerRecord, use func(any, *schemas.Error)) {
	d, id, err := s.house.deviceOfID(rec.Grant.String())
	past, fail := ledger.ReadSnapshot(rec.Body)
	if err != nil || fail != nil {
		s.house.log.Error("a remembered outcome cannot be told", "allocation", rec.Grant, "device", err, "record", fail)
		use(nil, schemas.Errorf(schemas.CodeInternalError, "the first outcome cannot be told: its device is not here"))
		return
	}
	d.tell(seam.SystemLane, func() {
		g, claim, _ := d.core.Handle(id, tenant, d.house.now())
		if g == nil {
			if g, _ = d.core.Grant(id); g == nil { // a reservation has no handle
				g = past
			}
		}
		r := d.allocated(g, claim, 0, 0, nil)
		d.flush()
		use(r, nil)
	})
}

// recollect makes an operation of a command that was answered at once, so that whoever lost
// the answer can ask for it by the request_id that it chose: outcomes are remembered as
// long as operations are. A command that failed has left nothing to be remembered.
func (s *sessionsActor) recollect(tenant, requestID string) *operation {
	key := ledger.AnswerKey(tenant, requestID)
	rec, ended, ok := s.answers.Outcome(key)
	if !ok {
		return nil
	}
	cmd := &Command{Action: schemas.Action(rec.Action), Tenant: tenant, RequestID: requestID, Chosen: true, Digest: rec.Digest}
	op := &operation{id: s.newOperationID(), c: &call{Command: cmd, house: s.house, key: key}, status: schemas.StatusCompleted, pending: true,
		begun: ended, ended: ended, recalled: rec}
	s.ops[op.id], s.byReq[key] = op, op
	s.ended = append(s.ended, op)
	return op
}

// forgotten reports whether an operation stood for an outcome that is remembered no more:
// it was undone, or its time has passed.
func (s *sessionsActor) forgotten(op *operation) bool {
	if op == nil || op.recalled == nil {
		return false
	}
	rec, _, ok := s.answers.Outcome(op.c.key)
	return !ok || rec != op.recalled
}
