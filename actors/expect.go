package actors

import (
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// How long a command will take is said when somebody asks, in a pending answer and by
// get_operation, by the actor that has it:
//
//   - a copy or a load whose bytes are on their way: by its own rate so far;
//   - a load whose bytes are not: by the rate of the last one to that device from the same
//     tier;
//   - a request in line: when what is being revoked and the leases that end will leave room
//     for it and for those before it; a load takes its own time after that.
//
// It is 0 where none of this is known: nothing of the kind has been measured yet, or the
// room depends on somebody's letting go.

// glance is what an actor says of a command that is not done.
type glance struct {
	position int
	reason   string        // empty: as it was
	left     time.Duration // until its end; 0: not known
}

// glancer asks for a glance at a command and gives it to use, on whatever goroutine; known
// is false where the command is decided.
type glancer func(use func(g glance, known bool))

// glance is the glancer of a request.
func (d *deviceActor) glance(t ledger.Ticket) glancer {
	return func(use func(glance, bool)) {
		d.tell(seam.SystemLane, func() { use(d.expect(t)) })
	}
}

// expect says what the core expects of a request.
func (d *deviceActor) expect(t ledger.Ticket) (glance, bool) {
	now := d.house.now()
	e, ok := d.core.Expect(t, now)
	g := glance{position: e.Position, reason: e.Reason}
	if e.At != 0 {
		g.left = max(time.Millisecond, e.At.Sub(now.Boot))
	}
	return g, ok
}

// glance is the glancer of a load, by the request in the catalog's hands.
func (p *poolActor) glance(r *catalog.LoadRequest) glancer {
	return func(use func(glance, bool)) {
		p.tell(seam.SystemLane, func() {
			m, err := p.core.Find(r.Tenant, r.Name)
			if err != nil {
				use(glance{}, false)
				return
			}
			cp, d := m.Copy(r.Device), p.house.byID[r.Device]
			if cp == nil || cp.State != catalog.Loading {
				use(glance{}, false)
				return
			}
			reading := d.rates.takes(p.sourceTier(cp), m.Bytes)
			t, waits := p.tickets[cp]
			if cp.Grant != uuid.Nil || !waits {
				use(glance{left: reading}, true)
				return
			}
			d.tell(seam.SystemLane, func() {
				g, known := d.expect(t)
				if g.position > 0 && g.left == 0 {
					reading = 0 // the wait is not known, and so is the whole
				}
				g.left += reading
				use(g, known)
			})
		})
	}
}

// rates are what the last loads to a device came to, in bytes a second, by the tier that
// they came from. They may be used from any goroutine.
type rates struct{ disk, memory atomic.Int64 }

func (r *rates) of(from schemas.Tier) *atomic.Int64 {
	if from == schemas.TierDisk {
		return &r.disk
	}
	return &r.memory
}

func (r *rates) measured(from schemas.Tier, bytes int64, took time.Duration) {
	if took > 0 {
		r.of(from).Store(max(1, int64(float64(bytes)/took.Seconds())))
	}
}

// takes is how long a load of so many bytes will take; 0: none was measured.
func (r *rates) takes(from schemas.Tier, bytes int64) time.Duration {
	rate := r.of(from).Load()
	if rate == 0 || bytes == 0 {
		return 0
	}
	return max(time.Millisecond, time.Duration(float64(bytes)/float64(rate)*float64(time.Second)))
}

// look has an operation's figures brought up to date before then is called, on the sessions
// actor.
func (s *sessionsActor) look(op *operation, then func()) {
	if op.ended != 0 || op.c.glance == nil {
		then()
		return
	}
	op.c.glance(func(g glance, known bool) {
		s.tell(seam.SystemLane, func() {
			if known && op.ended == 0 {
				op.position, op.expected = g.position, 0
				if g.reason != "" {
					op.reason = g.reason
				}
				if g.left > 0 {
					op.expected = s.house.cfg.Clock.Now().Add(g.left)
				}
			}
			then()
		})
	})
}

// estimate is how long an operation will take from now, in milliseconds; 0: not known.
func (s *sessionsActor) estimate(op *operation) float64 {
	now := s.house.cfg.Clock.Now()
	if op.ended != 0 {
		return 0
	}
	if spent := now.Sub(op.begun).Seconds(); spent > 0 && op.done > 0 && op.total > 0 {
		return 1000 * float64(op.total-op.done) * spent / float64(op.done)
	}
	if op.expected > now {
		return millis(op.expected.Sub(now))
	}
	return 0
}
