package actors

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// optimizerActor makes room on one device. It is the only party that orders evictions
// there: admission asks it for bytes, pressure sets it a target. One plan is in flight at
// a time; who asks meanwhile is asked to look again when it has ended, so that bytes
// already on their way are never counted twice.
type optimizerActor struct {
	inbox
	house  *House
	device *deviceActor

	plan    *plan
	again   bool          // a want came while a plan was in flight
	wanted  *ledger.Want  // the next want
	goal    *goal         // the target that pressure set
	errands []*errand     // what clients asked for, in order
	pace    time.Duration // what one model took, the last time
}

// goal is a target set by pressure.
type goal struct {
	bytes int64
	grant uuid.UUID // the model whose load caused it, the plan's last victim
	why   string
	// urgent is true where the device is nearly full.
	urgent bool
}

// plan is a set of evictions under way.
type plan struct {
	id        string
	why       string
	ticket    ledger.Ticket // the request it makes room for; 0 for a goal
	begun     clock.Instant
	left      int
	target    int64
	freed     int64
	shortfall int64
	evicted   []schemas.Eviction
	steps     []schemas.OptimizationStep
	guard     *ledger.Guard // nothing went because of it; nil: none
	errand    *errand       // whose part it is; nil where no client asked for it
}

// roomOrder asks the pool to choose and release models.
type roomOrder struct {
	ticket    ledger.Ticket // the request it is for; 0: for the pressure
	bytes     int64
	lastGrant uuid.UUID // the model whose load caused it, which goes last
	why       string
	tenant    string  // whose need it is; empty: nobody's in particular
	own       bool    // only models of that tenant may go
	model     string  // whose load the request is
	priority  int     // of the request
	urgent    bool    // the bytes are needed at once: nothing is copied for it
	choice    *choice // a client's; nil: the default's
	dry       bool    // only say what would go
}

// victim is a model that the pool began to release.
type victim struct {
	grant  uuid.UUID
	model  string
	tier   string
	bytes  int64
	cost   time.Duration
	reason string
	// demoted models are kept in main memory, where the copy may have to be made first.
	demoted bool
}

func newOptimizer(h *House, d *deviceActor) *optimizerActor {
	return &optimizerActor{house: h, device: d}
}

// want is admission's wish for room.
func (o *optimizerActor) want(w ledger.Want) {
	o.tell(seam.SystemLane, func() {
		if o.plan != nil {
			o.again = true
			return
		}
		o.wanted = &w
		o.next()
	})
}

// target is pressure's wish: release this many bytes, as far as nobody reads them.
func (o *optimizerActor) target(g goal) {
	o.tell(seam.SystemLane, func() {
		o.goal = &g
		o.next()
	})
}

// next starts the next plan. A want goes first: somebody waits for room. A goal goes last:
// what a client ordered may reach it.
func (o *optimizerActor) next() {
	if o.plan != nil {
		return
	}
	p := &plan{id: uuid.NewString(), begun: o.house.cfg.Clock.Now()}
	var order roomOrder
	switch {
	case o.wanted != nil:
		w := *o.wanted
		o.wanted = nil
		p.ticket, p.why, p.target = w.Ticket, w.Reason, w.Bytes
		order = roomOrder{ticket: w.Ticket, bytes: w.Bytes, why: w.Reason, tenant: w.Tenant, own: w.Own, model: w.Model, priority: w.Priority}
	case len(o.errands) > 0:
		o.advance(o.errands[0])
		return
	case o.goal != nil:
		g := *o.goal
		o.goal = nil
		p.why, p.target = g.why, g.bytes
		order = roomOrder{bytes: g.bytes, lastGrant: g.grant, why: g.why, urgent: g.urgent}
	default:
		return
	}
	o.order(p, order)
}

// order has the pool release models for a plan, which is in flight from now on.
func (o *optimizerActor) order(p *plan, order roomOrder) {
	o.plan = p
	o.house.monitor.unloading(o.device, 1)
	o.house.pool.makeRoom(o.device, order, func(vs []victim, shortfall int64, guard *ledger.Guard) {
		o.tell(seam.SystemLane, func() { p.guard = guard; o.chosen(p, vs, shortfall) })
	})
}

// chosen is the pool's answer: these models are being released.
func (o *optimizerActor) chosen(p *plan, vs []victim, shortfall int64) {
	p.shortfall, p.left = shortfall, p.left+len(vs)
	for _, v := range vs {
		ev := schemas.Eviction{Model: v.model, Tier: schemas.Tier(v.tier), FreedBytes: v.bytes, ReloadCostMs: millis(v.cost)}
		p.evicted = append(p.evicted, ev)
		kind := "drop"
		if v.demoted {
			kind = "demote"
		}
		p.steps = append(p.steps, schemas.OptimizationStep{Kind: kind, Subject: v.model, Reason: v.reason, FreedBytes: v.bytes})
	}
	switch {
	case p.errand != nil:
		o.ordered(p, vs)
	case len(vs) > 0:
		o.announce(schemas.EventStarted, p)
		o.house.log.Info("making room", "device", o.device.id, "bytes", p.target, "models", len(vs), "why", p.why)
	}
	o.check(p)
}

// released is the pool's word that one victim's bytes are back, or pinned, or that it could
// not be released after all.
func (o *optimizerActor) released(grant uuid.UUID, freed int64) {
	o.tell(seam.SystemLane, func() {
		p := o.plan
		if p == nil {
			return
		}
		p.freed += freed
		p.left--
		if e := p.errand; e != nil {
			e.victimGone(grant, freed, o.house.cfg.Clock.Now().Sub(p.begun))
		}
		o.check(p)
	})
}

// check ends the plan when its last victim is gone.
func (o *optimizerActor) check(p *plan) {
	if p.left != 0 || o.plan != p {
		return
	}
	if n := len(p.evicted); n > 0 && (p.errand == nil || !p.errand.dry) {
		o.pace = o.house.cfg.Clock.Now().Sub(p.begun) / time.Duration(n)
		if p.errand == nil {
			o.announce(schemas.EventCompleted, p)
		}
	}
	o.house.monitor.unloading(o.device, -1)
	o.ended(p)
}

// ended lets the next plan begin, and those ask again who came while this one ran.
func (o *optimizerActor) ended(p *plan) {
	o.plan = nil
	d, again := o.device, o.again
	o.again = false
	if p.ticket != 0 || again {
		d.tell(seam.SystemLane, func() { d.planEnded(p, again) })
	}
	o.next()
}

func (o *optimizerActor) announce(kind schemas.EventKind, p *plan) {
	cause := schemas.CauseOfRequest
	if p.ticket == 0 {
		cause = schemas.CauseOfPressure
	}
	e := &schemas.OptimizationEvent{OptimizationID: p.id, DeviceID: o.device.id, Reason: p.why, Cause: cause, Strategy: schemas.EvictionStrategy(o.house.pool.strategy),
		TargetBytes: p.target, Evicted: p.evicted, Steps: p.steps}
	if kind == schemas.EventCompleted {
		e.FreedBytes, e.ShortfallBytes = p.freed, p.shortfall
		e.DurationMs = millis(o.house.cfg.Clock.Now().Sub(p.begun))
	}
	o.house.publish(schemas.Event{Event: kind, Subject: schemas.OptimizationSubject(o.house.cfg.Node, o.device.id), Data: e})
}

// planEnded has admission look again: what the plan made free is there, and what it could
// not is final until something changes.
func (d *deviceActor) planEnded(p *plan, again bool) {
	t, now, none := p.ticket, d.house.now(), p.shortfall > 0 || p.guard != nil
	if t != 0 && none {
		if p.guard != nil {
			d.core.Guarded(t, *p.guard, now)
		} else {
			d.core.NoRoom(t, now)
		}
		d.flush()
	}
	if t != 0 && !none || again {
		d.core.LookAgain(now)
		d.flush()
	}
}
