package ledger

import (
	"slices"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/schemas"
)

// Overdue says what follows where memory is still held past the deadline of its
// revocation. Whatever it says, the bytes are zombies: counted, and attributed to a pid.
type Overdue string

// The policies.
const (
	// OverdueKeep waits until they come back by themselves; the default.
	OverdueKeep Overdue = "keep"
	// OverdueRefuse also refuses new grants of the device to the tenant whose processes
	// hold them.
	OverdueRefuse Overdue = "refuse"
	// OverdueEnd also ends the processes that hold them, by the sessions that mapped them.
	OverdueEnd Overdue = "end"
)

// End orders the end of a session's process, which holds a grant past its deadline: first
// gently, and by Kill if it still does when the grace is over. The shell has the process
// by its pidfd, and answers with EndOrdered.
type End struct {
	Session SessionID
	PID     int32
	Grant   uuid.UUID
	Kill    bool
}

// tooLate does what the policy says of a grant that has become a zombie.
func (d *Device) tooLate(g *Grant, now Now) {
	switch d.cfg.Overdue {
	case OverdueRefuse:
		d.expel()
	case OverdueEnd:
		if g.release.ending || g.lost {
			return
		}
		d.end(g, false)
		g.release.ending = true
		d.at(timer{at: now.Boot.Add(d.cfg.EndGrace), kind: timerEnd, grant: g.ID})
	}
}

// end orders the end of every process that is known to map a grant. One that has been
// asked because of another grant is not asked twice; its grace is this one's too.
func (d *Device) end(g *Grant, kill bool) {
	for _, m := range g.Mappers {
		if kill || !d.asked(m.Session) {
			d.out.Ends = append(d.out.Ends, End{Session: m.Session, PID: m.PID, Grant: g.ID, Kill: kill})
		}
	}
}

// asked reports whether a session's process has been asked to end.
func (d *Device) asked(s SessionID) bool {
	for g := range d.sessions[s] {
		if g.release != nil && g.release.ending && g.mapper(s) != nil {
			return true
		}
	}
	return false
}

// EndOrdered is what came of an End, in words: it is told as an event of the grant.
func (d *Device) EndOrdered(e End, what string, now Now) {
	d.begin()
	g, ok := d.grants[e.Grant]
	if !ok || g.release == nil {
		return
	}
	g.note("ending", now.Wall, what)
	d.event(Event{Kind: EventZombie, Grant: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Purpose: g.Purpose, Size: g.Size, Bytes: g.Granted,
		Reason: g.release.why + "; " + what, PIDs: []int32{e.PID}})
}

// owing is the refusal of a tenant whose processes hold memory past a deadline, under the
// policy that refuses; nil where it owes nothing.
func (d *Device) owing(tenant string) *schemas.Error {
	if d.cfg.Overdue != OverdueRefuse || d.books.zombie == 0 {
		return nil
	}
	var bytes int64
	var pids []int32
	var ids []string
	for _, g := range d.grants {
		if g.Status != StatusZombie || g.lost || g.release.owes && len(g.release.pids) == 0 {
			continue // nobody's fault
		}
		held, by := g.Owner.Tenant == tenant && len(g.Mappers) == 0, []int32(nil)
		for _, m := range g.Mappers {
			if m.Tenant == tenant {
				held, by = true, append(by, m.PID)
			}
		}
		if !held {
			continue
		}
		if by == nil {
			by = g.release.pids
		}
		bytes += g.Granted
		ids = append(ids, g.ID.String())
		pids = append(pids, by...)
	}
	if bytes == 0 {
		return nil
	}
	slices.Sort(ids)
	slices.Sort(pids)
	pids = slices.Compact(pids)
	return schemas.Errorf(schemas.CodeAllocationInUse,
		"tenant %s holds %d bytes of %s past the deadline of their revocation, and gets no more until they are back: unmap what was revoked, or end the processes %v",
		tenant, bytes, d.cfg.Device, pids).
		With("revocation", "overdue").With("device_id", d.cfg.Device).With("tenant", tenant).With("zombie_bytes", bytes).
		With("allocation_ids", ids).With("pids", pids)
}

// String is the policy as it is written in a configuration.
func (o Overdue) String() string { return string(o) }
