package actors

import (
	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// call is a command on its way through the house. One actor at a time has it; that actor
// answers it exactly once, with done or fail.
type call struct {
	*Command
	house *House
	// key is set for a command whose outcome is remembered; home is the actor whose
	// region has the record, which is kept in record.
	key    string
	home   string
	record ledger.AnswerRecord
	// operation is set once the command is followed: its answer then goes by way of the
	// sessions actor, which may have answered «queued» meanwhile.
	operation string
	// glance, if not nil, tells how far the command is; it is set before the command is followed.
	glance   glancer
	answered bool
	// handed is set by an actor that has given the command to another, which answers it:
	// from then on the first looks at nothing else of it.
	handed bool
	// outer is true while the goroutine that has the command is not an actor's and may run one.
	outer bool
	// offered is the file that the command brought, if any; it ends with the command at the
	// latest, unless a load has taken it.
	offered *offered
	// session is the session that the command named, if any, looked up.
	owner ledger.Owner
}

// done answers with the action's reply data.
func (c *call) done(data any, undo func()) {
	if c.answered {
		panic("actors: a second answer to " + string(c.Action))
	}
	c.answered = true
	c.offered.close()
	defer c.house.cfg.Observer.Completed(c.Command, data, "")
	if c.operation != "" || c.key != "" {
		c.settle(data, undo)
		return
	}
	c.reply(data, undo)
}

// settle answers a command that the sessions actor knows of.
func (c *call) settle(data any, undo func()) {
	s := c.house.sessions
	if c.operation != "" {
		s.tell(seam.SystemLane, func() { s.finished(c, data, undo) })
		return
	}
	// The client need not wait until the sessions actor knows: a retry that comes
	// before joins, and is answered then.
	s.tell(seam.SystemLane, func() { s.remember(c, data) })
	c.reply(data, s.forgetting(c, undo))
}

// reply gives the answer to the bus.
func (c *call) reply(data any, undo func()) {
	c.house.cfg.Crash("reply.before")
	c.Reply.Done(data, undo)
	c.house.cfg.Crash("reply.after")
}

// fail answers with an error.
func (c *call) fail(err *schemas.Error) {
	if c.answered {
		panic("actors: a second answer to " + string(c.Action))
	}
	c.answered = true
	c.offered.close()
	defer c.house.cfg.Observer.Completed(c.Command, nil, err.Code)
	if c.operation == "" && c.key == "" {
		c.Reply.Fail(err)
		return
	}
	s := c.house.sessions
	s.tell(seam.SystemLane, func() { s.failed(c, err) })
}

// canceller orders a command's end and calls seen when the order has been carried out;
// the command itself may take longer to end.
type canceller func(err *schemas.Error, seen func())

// follow makes an operation of a command that is not done at once. cancel is called on the
// sessions actor and must only send a message.
func (c *call) follow(status schemas.OperationStatus, position int, reason string, cancel canceller) {
	if c.answered {
		return
	}
	s := c.house.sessions
	if c.operation == "" {
		c.operation = s.newOperationID()
		s.tell(seam.SystemLane, func() { s.track(c, status, position, reason, cancel) })
		return
	}
	s.tell(seam.SystemLane, func() { s.progress(c.operation, status, position, reason) })
}
