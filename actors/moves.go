package actors

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// move is a transfer on its way: the source is held, the target is granted in the ordinary
// way, filled, and only then made whole. It belongs to the transfer actor; the devices answer
// by messages.
type move struct {
	c        *call
	from, to *deviceActor
	source   uuid.UUID
	mode     ledger.HoldMode // of the source
	size     int64
	pieces   []piece // of the source
	begun    clock.Instant

	ticket ledger.Ticket
	target uuid.UUID
	task   *task
	stop   *schemas.Error // why it is to end before its task began
}

// transferPatience is how long a transfer waits in the target device's queue, as an allocate
// does by default.
const transferPatience = 30 * time.Second

// transferBytes answers transfer: it checks it, holds the source and hands it on.
func (h *House) transferBytes(c *call, in *schemas.TransferRequest) {
	from, source, err := h.deviceOfID(in.AllocationID)
	if err != nil {
		c.fail(err)
		return
	}
	from.take(seam.GrantLane, c, func() {
		m := &move{c: c, from: from, source: source, mode: ledger.HoldRead}
		r, err := m.check(in)
		switch {
		case err != nil:
			c.deny(err)
		case c.DryRun:
			m.to.tell(seam.SystemLane, func() { m.to.plan(c, m.to.core.Plan(r, h.now()), true) })
		default:
			m.start(r)
		}
	})
}

// check validates a transfer on the source device's goroutine and makes the request for its
// target.
func (m *move) check(in *schemas.TransferRequest) (*ledger.Request, *schemas.Error) {
	c, h := m.c, m.c.house
	bad := func(field, format string, args ...any) (*ledger.Request, *schemas.Error) {
		return nil, schemas.Errorf(schemas.CodeInvalidTransferParams, format, args...).With("field", field)
	}
	g, err := m.from.core.FindGrant(m.source, c.Tenant)
	if err != nil {
		return nil, err
	}
	if m.to, err = h.device(in.TargetDeviceID); err != nil {
		return nil, err.With("field", "target_device_id")
	}
	if in.SourceDeviceID != "" {
		d, err := h.device(in.SourceDeviceID)
		if err != nil {
			return nil, err.With("field", "source_device_id")
		}
		if d != m.from {
			return bad("source_device_id", "allocation %s is on %s, not on %s", m.source, m.from.id, d.id)
		}
	}
	if m.to == m.from {
		return bad("target_device_id", "source and target are both %s: use copy", m.to.id)
	}
	if g.Class == ledger.ClassWeights {
		return nil, schemas.Errorf(schemas.CodeInvalidRequest, "allocation %s holds model %q: use load_model with device_id", m.source, g.Model).With("field", "allocation_id")
	}
	m.size = g.Size
	if in.SizeBytes != nil {
		m.size = *in.SizeBytes
	}
	switch {
	case m.size > g.Size:
		return bad("size_bytes", "allocation %s has %d bytes, fewer than %d", m.source, g.Size, m.size)
	case in.Move && m.size < g.Size:
		return bad("size_bytes", "a move takes all of the %d bytes of allocation %s", g.Size, m.source)
	}
	if in.Move {
		m.mode = ledger.HoldMove
	}
	if _, err := m.from.core.Holdable(m.source, c.Tenant, m.mode); err != nil {
		return nil, err
	}
	if h.draining.Load() {
		return nil, schemas.Errorf(schemas.CodeDraining, "the node is stopping")
	}
	return &ledger.Request{
		Ref: m, Owner: g.Owner, Class: g.Class, Size: m.size, Align: g.Align, Purpose: g.Purpose, Persistent: g.Persistent, Priority: g.Priority,
		Lease: g.Lease, Patience: transferPatience, RequestID: c.RequestID, Filling: true,
	}, nil
}

// start holds the source and asks the target device for the memory.
func (m *move) start(r *ledger.Request) {
	c, h, t := m.c, m.c.house, m.c.house.transfer
	g, err := m.from.core.Hold(m.source, c.Tenant, m.mode)
	if err != nil {
		c.fail(err)
		return
	}
	m.begun = h.cfg.Clock.Now()
	m.pieces = pieces(g.Blocks, m.from.handles(g.Blocks), 0, m.size)
	c.glance = func(use func(glance, bool)) {
		t.tell(seam.SystemLane, func() {
			if m.ticket == 0 || m.task != nil {
				use(glance{}, false)
				return
			}
			m.to.glance(m.ticket)(use)
		})
	}
	c.follow(schemas.StatusQueued, 0, "memory of "+m.to.id+" is being prepared", func(err *schemas.Error, seen func()) {
		t.tell(seam.SystemLane, func() {
			t.stopMove(m, err)
			// The order has been carried out when the target device has heard it.
			m.to.tell(seam.SystemLane, func() { t.tell(seam.SystemLane, seen) })
		})
	})
	t.tell(seam.SystemLane, func() {
		t.moves[m] = true
		m.to.tell(seam.SystemLane, func() {
			ticket := m.to.core.Allocate(r, h.now())
			t.tell(seam.SystemLane, func() { t.ticketed(m, ticket) })
			m.to.flush()
		})
	})
	m.from.flush()
}

// ticketed notes by which name the target device knows the request; an order to stop that came
// before goes on to it.
func (t *transferActor) ticketed(m *move, ticket ledger.Ticket) {
	m.ticket = ticket
	if m.stop != nil {
		t.stopMove(m, m.stop)
	}
}

// stopMove ends a move: its copy at the next chunk, its wait for memory at once.
func (t *transferActor) stopMove(m *move, err *schemas.Error) {
	switch {
	case !t.moves[m]: // it has ended
	case m.task != nil:
		m.task.cancel(err)
	default:
		m.stop = err
		if m.ticket != 0 {
			m.to.tell(seam.SystemLane, func() {
				m.to.core.Cancel(m.ticket, err, m.to.house.now())
				m.to.flush()
			})
		}
	}
}

// requestID is the id of the command, for events.
func (m *move) requestID() string { return m.c.RequestID }

// outcome implements asker, on the target device's goroutine.
func (m *move) outcome(d *deviceActor, o *ledger.Outcome) {
	h := d.house
	t := h.transfer
	switch o.Kind {
	case ledger.OutcomeGranted:
		id, blocks := o.Grant.ID, append([]heap.Block(nil), o.Grant.Blocks...)
		to := pieces(blocks, d.handles(blocks), 0, m.size)
		t.tell(seam.SystemLane, func() { t.reserved(m, id, to) })
	case ledger.OutcomeQueued:
		position, reason := o.Position, o.Reason
		h.sessions.tell(seam.SystemLane, func() { h.sessions.progress(m.c.operation, schemas.StatusQueued, position, reason) })
	case ledger.OutcomeRefused:
		err := o.Err
		t.tell(seam.SystemLane, func() { t.moveFailed(m, err) })
	}
}

// reserved begins the copy: the target is there.
func (t *transferActor) reserved(m *move, target uuid.UUID, to []piece) {
	m.target = target
	if m.stop != nil {
		t.rollBack(m, m.stop)
		return
	}
	operation, total, s := m.c.operation, m.size, t.house.sessions
	s.tell(seam.SystemLane, func() { s.started(operation, total, "bytes are being copied") })
	m.task = ferry(m.to, to, m.from, m.pieces, m.source, target)
	m.task.progress = func(done int64) { s.copied(operation, done, total, "bytes are being copied") }
	m.task.end = func(_ int64, took time.Duration, err error) {
		if err != nil {
			t.rollBack(m, copyError(err, schemas.CodeTransferFailed))
			return
		}
		t.complete(m, took)
	}
	t.begin(m.task)
}

// complete makes the target whole, together with the answer.
func (t *transferActor) complete(m *move, took time.Duration) {
	c, h := m.c, t.house
	ended := h.cfg.Clock.Now()
	op := schemas.Operation{OperationID: c.operation, RequestID: c.RequestID, Action: c.Action, Status: schemas.StatusCompleted,
		BytesDone: m.size, BytesTotal: m.size, ProgressPercentage: 100, ThroughputBytesPerSecond: rate(m.size, took)}
	reply := &schemas.TransferReply{Finished: schemas.Done(), Operation: op, AllocationID: m.target.String(), TransferID: c.operation}
	var rec *ledger.AnswerRecord
	if c.key != "" {
		rec = &ledger.AnswerRecord{Key: c.key, Digest: c.Digest, Action: string(c.Action), Grant: m.target, Body: codec.Append(nil, codec.JSON, reply), At: ended}
	}
	origin := uuid.UUID{}
	if m.mode == ledger.HoldMove {
		origin = m.source
	}
	m.to.tell(seam.SystemLane, func() {
		err := m.to.core.Filled(m.target, origin, rec, h.now())
		m.to.flush()
		t.tell(seam.SystemLane, func() {
			if err != nil {
				t.rollBack(m, err)
				return
			}
			if rec != nil {
				c.home, c.record = "device/"+m.to.id, *rec
			}
			t.letGo(m, func() { t.filled(m, reply) })
		})
	})
}

// filled answers the command once the source is let go.
func (t *transferActor) filled(m *move, reply *schemas.TransferReply) {
	if m.mode == ledger.HoldMove {
		m.c.done(reply, nil) // there is nothing to go back to
		return
	}
	m.c.done(reply, func() { m.to.undo(m.target, m.c.Tenant, false) })
}

// letGo ends the hold of the source, and the source itself where it has been moved. then
// is called on the transfer actor.
func (t *transferActor) letGo(m *move, then func()) {
	delete(t.moves, m)
	d := m.from
	moved := m.mode == ledger.HoldMove && m.task != nil && m.stop == nil
	d.tell(seam.SystemLane, func() {
		d.core.Unhold(m.source, m.mode, d.house.now())
		d.flush()
		if moved {
			d.release(m.source, m.c.Tenant, ledger.WhyMoved)
			m.to.tell(seam.SystemLane, func() { m.to.core.Settled(m.target); m.to.flush() })
		}
		t.tell(seam.SystemLane, then)
	})
}

// release begins the end of a grant for which nobody waits.
func (d *deviceActor) release(id uuid.UUID, tenant, why string) {
	d.core.Release(ledger.ReleaseRequest{Grant: id, Tenant: tenant, Force: true, Why: why}, d.house.now())
	d.flush()
}

// rollBack undoes the target of a move that failed or was cancelled.
func (t *transferActor) rollBack(m *move, err *schemas.Error) {
	m.stop = err
	m.to.tell(seam.SystemLane, func() {
		m.to.core.FillFailed(m.target, t.house.now())
		m.to.flush()
		t.tell(seam.SystemLane, func() { t.moveFailed(m, err) })
	})
}

// moveFailed answers a move that has left nothing behind.
func (t *transferActor) moveFailed(m *move, err *schemas.Error) {
	m.stop = err
	t.letGo(m, func() { m.c.fail(err) })
}

// settleOrigins goes on with the moves that a predecessor had filled and whose source it may
// not have released.
func (d *deviceActor) settleOrigins() {
	for _, o := range d.origins {
		tag := tagOfID(o.From)
		for _, from := range d.house.devices {
			if from.tag != tag {
				continue
			}
			from.tell(seam.SystemLane, func() {
				from.release(o.From, o.Tenant, ledger.WhyMoved)
				d.tell(seam.SystemLane, func() { d.core.Settled(o.Grant); d.flush() })
			})
		}
	}
	d.origins = nil
}
