package actors

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// poolActor is the shell of the catalog: models, their copies and who reads them.
type poolActor struct {
	inbox
	house    *House
	core     *catalog.Catalog
	strategy string
	orphans  []uuid.UUID
	tickets  map[*catalog.Copy]ledger.Ticket   // allocations that devices still decide
	reserved map[*catalog.Copy]*ledger.Request // what was asked for before the files were read
	evicting map[uuid.UUID]ordered             // victims of a plan, by grant
	timer    clock.Timer
	timerAt  clock.Instant
	// Of all loads so far, for analytics.
	hits, loads atomic.Int64
}

// openPool reads the pool's region. models are the sealed weights that devices hold.
func (h *House) openPool(models map[uuid.UUID]string) error {
	p := &poolActor{house: h, tickets: map[*catalog.Copy]ledger.Ticket{}, reserved: map[*catalog.Copy]*ledger.Request{},
		evicting: map[uuid.UUID]ordered{}}
	h.pool = p
	mem, inherited, err := h.memory("pool")
	if err != nil {
		return err
	}
	ids := idsOf(h.cfg.Random, 0)
	if !inherited {
		region, err := h.format(mem, "pool")
		if err != nil {
			return err
		}
		p.core = catalog.New(region, h.cfg.Policy, ids)
		for id := range models {
			p.orphans = append(p.orphans, id)
		}
	} else {
		var rep catalog.Restored
		if p.core, rep, err = catalog.Restore(mem, h.cfg.Policy, ids, models, h.absent.names, h.now()); err != nil {
			return err
		}
		if h.stored != nil {
			p.core.Observe(h.stored)
		}
		p.core.Bearers(func(s ledger.SessionID) { h.bearers[s] = true })
		h.restored.Models = rep.Models
		h.restored.LostModels = append(h.restored.LostModels, rep.Lost...)
		h.inheritAnswers("pool", rep.Answers)
		p.orphans = rep.Orphans
	}
	p.strategy = p.core.PolicyName()
	for _, d := range h.devices {
		if d.kind == schemas.DeviceTypeRAM {
			p.core.Warm(d.id)
		} else if to := h.below(d); to != nil {
			p.core.Below(d.id, to.id)
		}
	}
	return nil
}

// begin lets go of weights that no model names, tells each device what could be
// reclaimed, and learns from the devices who maps what.
func (p *poolActor) begin() {
	for _, id := range p.orphans {
		for _, d := range p.house.devices {
			if d.tag == tagOfID(id) {
				d.tell(seam.SystemLane, func() { d.core.ReleaseModel(id, ledger.WhyLoadFailed, p.house.now()); d.flush() })
			}
		}
	}
	p.orphans = nil
	for _, d := range p.house.devices {
		d.tell(seam.SystemLane, func() {
			d.core.Grants(func(g *ledger.Grant) {
				if g.Class != ledger.ClassWeights {
					return
				}
				for _, m := range g.Mappers {
					p.mapped(ledger.Reader{Model: g.Model, Grant: g.ID, Session: m.Session, PID: m.PID})
				}
			})
			p.tell(seam.SystemLane, func() { d.reclaimable(p.core.Reclaimable(d.id), nil) })
		})
	}
	p.resume()
}

// resume goes on with releases that a predecessor had begun.
func (p *poolActor) resume() {
	p.core.Resume(p.house.now())
	p.flush()
}

// flush carries out the effects of the catalog's last call.
func (p *poolActor) flush() {
	e := p.core.Take()
	hits, loads := p.core.HitRate()
	p.hits.Store(hits)
	p.loads.Store(loads)
	for i := range e.Uses {
		if d, ok := p.house.byID[e.Uses[i].Device]; ok {
			d.took.use(&e.Uses[i])
		}
	}
	for i := range e.Events {
		p.announce(&e.Events[i])
	}
	for i := range e.Steps {
		p.step(&e.Steps[i])
	}
	for _, grant := range e.Kept {
		p.victimGone(grant, 0)
	}
	for i := range e.Outcomes {
		e.Outcomes[i].Ref.(modelAsker).modelOutcome(p, &e.Outcomes[i])
	}
	seen := map[string]bool{}
	for _, id := range e.Devices {
		if d, ok := p.house.byID[id]; ok && !seen[id] {
			seen[id] = true
			d.reclaimable(p.core.Reclaimable(id), p.core.ReclaimableOf(id, d.quotas.get()))
		}
	}
	p.arm()
}

// modelAsker is who asked the catalog for something; modelOutcome answers it, on the
// pool's goroutine, without calling the catalog.
type modelAsker interface {
	modelOutcome(p *poolActor, o *catalog.Outcome)
}

func (p *poolActor) arm() {
	at, ok := p.core.Next()
	if !ok || p.timer != nil && p.timerAt <= at {
		return
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.timerAt = at
	p.timer = p.house.cfg.Clock.AfterFunc(max(0, at.Sub(p.house.cfg.Clock.Now())), func() {
		p.tell(seam.SystemLane, func() {
			p.timer = nil
			p.core.Tick(p.house.now())
			p.flush()
		})
	})
}

// step hands one step of the catalog to whoever does it.
func (p *poolActor) step(s *catalog.Step) {
	st := *s
	switch st.Kind {
	case catalog.StepInspect:
		if st.Copy != nil && st.Estimate > 0 {
			p.reserve(st)
		}
		p.inspect(st.Copy, *st.Request)
	case catalog.StepAllocate:
		p.allocate(st)
	case catalog.StepFill:
		p.house.byID[st.Copy.Device].lend(st.Grant, func(l lent) { p.house.transfer.fill(st.Copy, st.Source, l) })
	case catalog.StepCopy:
		p.house.transfer.feed(st)
	case catalog.StepSeal:
		d := p.house.byID[st.Copy.Device]
		d.tell(seam.SystemLane, func() {
			if !d.core.Seal(st.Grant) {
				p.sealed(st.Grant, errEnded)
			}
			d.flush()
		})
	case catalog.StepRelease:
		p.release(st)
	case catalog.StepAbandon:
		p.house.transfer.stop(st.Copy)
		if t, ok := p.tickets[st.Copy]; ok {
			d := p.house.byID[st.Copy.Device]
			d.canceller(t)(schemas.Errorf(schemas.CodeCancelled, "%s", st.Why), func() {})
		}
	case catalog.StepStop:
		p.house.transfer.stop(st.Copy)
	default:
		panic(fmt.Sprintf("actors: a step of kind %d", st.Kind))
	}
}

// ordered is a release that an optimizer ordered, for the need of a tenant.
type ordered struct {
	by    *optimizerActor
	whose string
}

// modelRelease ends a copy's grant on behalf of the pool.
type modelRelease struct {
	pool  *poolActor
	grant uuid.UUID
}

func (p *poolActor) release(s catalog.Step) {
	d := p.house.byID[s.Copy.Device]
	tenant := s.Copy.Model.Tenant
	e, evict := p.evicting[s.Grant]
	d.tell(seam.SystemLane, func() {
		d.core.Release(ledger.ReleaseRequest{Ref: &modelRelease{p, s.Grant}, Grant: s.Grant, Tenant: tenant, Force: s.Force,
			Deadline: s.Deadline, Why: s.Why, Evict: evict, For: e.whose}, d.house.now())
		d.flush()
	})
}

// outcome implements asker, on the device's goroutine.
func (r *modelRelease) outcome(d *deviceActor, o *ledger.Outcome) {
	p := r.pool
	if o.Kind == ledger.OutcomeRefused {
		err := o.Err
		p.tell(seam.SystemLane, func() {
			if err.Code == schemas.CodeAllocationNotFound {
				p.core.Released(r.grant, 0, 0, true, p.house.now()) // it is gone already
			} else {
				p.core.ReleaseRefused(r.grant, inUse(err), p.house.now())
			}
			p.flush()
			p.victimGone(r.grant, 0)
		})
		return
	}
	freed, zombie, confirmed := o.Freed, o.Zombie, o.Confirmed
	p.tell(seam.SystemLane, func() {
		p.core.Released(r.grant, freed, zombie, confirmed, p.house.now())
		p.flush()
		p.victimGone(r.grant, freed)
	})
}

func inUse(err *schemas.Error) *schemas.Error {
	if err.Code != schemas.CodeAllocationInUse {
		return err
	}
	e := schemas.Errorf(schemas.CodeModelInUse, "the model is mapped: wait for its readers, or use force")
	e.Details = err.Details
	return e
}

func (p *poolActor) victimGone(grant uuid.UUID, freed int64) {
	if e, ok := p.evicting[grant]; ok {
		delete(p.evicting, grant)
		e.by.released(grant, freed)
	}
}

// sealed is the device's word on a seal.
func (p *poolActor) sealed(grant uuid.UUID, fail error) {
	p.tell(seam.SystemLane, func() {
		cp, ok := p.core.ByGrant(grant)
		if !ok {
			return
		}
		var err *schemas.Error
		if fail != nil {
			err = p.house.loadError(fmt.Errorf("the model could not be sealed: %w", fail))
		}
		p.house.cfg.Crash("model.commit.before")
		p.core.SealDone(cp, err, p.house.now())
		p.house.cfg.Crash("model.commit.after")
		p.flush()
		if err == nil && cp.Origin != "" {
			p.house.willReturn(p.house.byID[cp.Origin], p.house.byID[cp.Device], grant)
		}
	})
}

// mapped is a device's word that a session holds descriptors of a model, or no longer.
func (p *poolActor) mapped(r ledger.Reader) {
	p.tell(seam.SystemLane, func() { p.core.Mapped(r, p.house.now()); p.flush() })
}

// sessionGone ends a session's references.
func (p *poolActor) sessionGone(s ledger.SessionID) {
	p.tell(seam.SystemLane, func() { p.core.SessionGone(s, p.house.now()); p.flush() })
}

// touch counts a use of a copy.
func (p *poolActor) touch(grant uuid.UUID) {
	p.tell(seam.SystemLane, func() { p.core.Touch(grant, p.house.now()); p.flush() })
}

// forgetAnswers deletes records of outcomes whose time has passed.
func (p *poolActor) forgetAnswers(keys []string) {
	p.tell(seam.SystemLane, func() { p.core.ForgetAnswers(keys) })
}

// makeRoom is the optimizer's order: choose models and release them.
func (p *poolActor) makeRoom(d *deviceActor, o roomOrder, use func([]victim, int64, *ledger.Guard)) {
	p.tell(seam.SystemLane, func() {
		w := o.choice.want(d.id, o.bytes)
		w.Quotas = d.quotas.get()
		if o.tenant != "" {
			w.Whose = o.tenant
		}
		if o.own {
			w.Tenant = o.tenant
		}
		w.LastVictim = o.lastGrant
		if o.ticket != 0 {
			w.For = p.newcomer(o.model, o.priority)
		}
		plan, whose := p.core.Plan(w, p.house.now().Boot)
		if g := p.guard(plan, whose, o.tenant); g != nil {
			use(nil, plan.Shortfall, g)
			return
		}
		var out []victim
		before := p.descents(d, whose)
		for i, v := range plan.Victims {
			cp := whose[i]
			gone := victim{grant: cp.Grant, model: cp.Model.Name, tier: string(d.tier()), bytes: v.Bytes,
				cost: time.Duration(v.Cost * float64(time.Second)), reason: v.Reason()}
			to, way := p.shelter(d, cp, o, before)
			gone.demoted = to != nil
			if o.dry {
				out = append(out, p.priced(d, cp, gone))
				continue
			}
			p.giveWay(way)
			p.evicting[gone.grant] = ordered{d.optimizer, o.tenant}
			why := o.why + "; " + gone.reason
			if gone.demoted = to != nil && p.core.EvictDown(cp, to.id, why, p.house.now()); !gone.demoted && !p.evict(cp, o, why) {
				delete(p.evicting, gone.grant)
				continue
			}
			out = append(out, p.priced(d, cp, gone))
			// Told before the release, so that the device knows it before the bytes are back.
			d.tell(seam.SystemLane, func() {
				d.core.RoomMade(o.ticket, ledger.Evicted{Model: gone.model, Tier: gone.tier, Bytes: gone.bytes, Cost: gone.cost, Reason: gone.reason})
				d.flush()
			})
			p.flush()
		}
		use(out, plan.Shortfall, nil)
	})
}

// foresee answers a dry run that lacks room with the plan that would be made.
func (p *poolActor) foresee(d *deviceActor, pl ledger.Plan, patient bool, c *call) {
	p.tell(seam.SystemLane, func() {
		w := catalog.Want{Device: d.id, Bytes: pl.Lacks, Whose: pl.Tenant, Quotas: d.quotas.get(), For: p.newcomer(pl.Model, pl.Priority)}
		if pl.Own {
			w.Tenant = pl.Tenant
		}
		now := p.house.now()
		plan, whose := p.core.Plan(w, now.Boot)
		guard := p.guard(plan, whose, pl.Tenant)
		out := schemas.Plan{Outcome: schemas.PlanGranted, Reason: "room would be made", Evict: []schemas.Eviction{}}
		for i, v := range plan.Victims {
			out.Evict = append(out.Evict, schemas.Eviction{Model: whose[i].Model.Name, Tier: d.tier(), FreedBytes: v.Bytes, ReloadCostMs: v.Cost * 1000})
		}
		if plan.Shortfall > 0 {
			out.Evict = []schemas.Eviction{}
			out.Outcome, out.Position, out.Reason = schemas.PlanQueued, pl.Position, pl.Reason
		} else if guard != nil {
			out.Reason, out.EstimatedMs = guard.Reason(now), millis(guard.Until.Sub(now.Boot))
			if !guard.Brief(now) {
				out.Outcome, out.Position = schemas.PlanQueued, pl.Position
			}
		}
		if out.Outcome == schemas.PlanQueued && !patient {
			out.Outcome, out.Position, out.Evict = schemas.PlanRefused, 0, []schemas.Eviction{}
		}
		c.done(&schemas.DryRunReply{Plan: out}, nil)
	})
}

// newcomer is a request as what was just loaded is compared with; nil where that does not count.
func (p *poolActor) newcomer(model string, priority int) *catalog.Newcomer {
	if p.house.cfg.GuardOff {
		return nil
	}
	return &catalog.Newcomer{Model: model, Priority: priority}
}

// guard is why a plan waits: for models that were just loaded; nil: it does not. Other
// tenants' models have no names.
func (p *poolActor) guard(plan eviction.Plan, whose []*catalog.Copy, tenant string) *ledger.Guard {
	if plan.Until == 0 {
		return nil
	}
	g := &ledger.Guard{Until: plan.Until, Models: []string{}, Short: plan.Shortfall > 0}
	for i, v := range plan.Victims {
		if m := whose[i].Model; v.Guarded != 0 && (m.Tenant == tenant || m.Shared) {
			g.Models = append(g.Models, m.Name)
		}
	}
	return g
}

// tier is what residency on the device is called.
func (d *deviceActor) tier() schemas.Tier {
	if d.kind == schemas.DeviceTypeVRAM {
		return schemas.TierVRAM
	}
	return schemas.TierRAM
}

// announce publishes what happened to a model.
func (p *poolActor) announce(e *catalog.Event) {
	cp := e.Copy
	m, d := cp.Model, p.house.byID[cp.Device]
	ev := &schemas.ModelEvent{
		Name: m.Name, Version: m.VersionString(), ContentID: m.ContentID, Tenant: m.Tenant, DeviceID: cp.Device, Tier: d.tier(),
		SourceTier: p.sourceTier(cp), State: schemas.ModelState(cp.State), RequestID: e.RequestID, SizeBytes: m.Bytes, BytesDone: e.Done,
		BytesTotal: m.Bytes, ProgressPercentage: percent(e.Done, m.Bytes), DurationMs: millis(e.Took), FreedBytes: e.Freed, Readers: cp.Readers(), Reason: e.Reason,
	}
	if ev.ReadersOf = e.Readers; m.Shared && e.Readers == nil {
		ev.ReadersOf = cp.ReadersByTenant()
	}
	if e.Took > 0 && e.Done > 0 {
		ev.ThroughputBytesPerSecond = float64(e.Done) / e.Took.Seconds()
	}
	if e.Err != nil {
		ev.ErrorCode, ev.ErrorMessage = e.Err.Code, e.Err.Message
	}
	p.house.publish(schemas.Event{Event: e.Kind, Subject: schemas.ModelSubject(p.house.cfg.Node, cp.Device), Data: ev})
}
