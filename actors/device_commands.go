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

// take gives a command to the device's mailbox, or refuses it.
func (d *deviceActor) take(l seam.Lane, c *call, f func()) {
	if d.offer(l, c, f) != nil {
		c.fail(busy(d.id))
	}
}

func busy(who string) *schemas.Error {
	return schemas.Errorf(schemas.CodeBusy, "%s has more to do than it can queue", who).With("retry_after_ms", 20)
}

// grantCall is an allocate command in the core's hands.
type grantCall struct {
	c       *call
	begun   clock.Instant
	follow  *follow // the process of a reservation that follows one
	request ledger.Request
}

func (d *deviceActor) allocate(c *call) {
	d.take(seam.GrantLane, c, func() {
		in := c.Data.(*schemas.AllocateRequest)
		if d.house.draining.Load() {
			c.fail(schemas.Errorf(schemas.CodeDraining, "the node is stopping"))
			return
		}
		ask := &grantCall{c: c, request: ledger.Request{
			Owner: c.owner, Class: ledger.Class(in.Class), Size: in.SizeBytes, Align: in.Alignment, Purpose: in.Purpose,
			Persistent: in.Persistent, Priority: in.Priority, Clear: in.Clear, RequestID: c.RequestID,
		}}
		r := &ask.request
		r.Ref = ask
		if in.TimeoutSeconds != nil {
			r.Patience = time.Duration(*in.TimeoutSeconds) * time.Second
		}
		if in.LeaseSeconds != nil {
			r.Lease = time.Duration(*in.LeaseSeconds) * time.Second
		}
		if in.PID != nil {
			f, err := d.follow(*in.PID)
			if err != nil {
				c.fail(err)
				return
			}
			if ask.follow, r.Follows = f, f.process; c.DryRun {
				d.unfollow(f)
			}
		}
		if c.DryRun {
			d.planAllocate(c, r)
			return
		}
		if c.key != "" {
			r.Key, c.home = c.key, "device/"+d.id
			r.Answer = func(g *ledger.Grant) ledger.AnswerRecord {
				c.record = ledger.AnswerRecord{Key: c.key, Digest: c.Digest, Action: string(c.Action), Grant: g.ID, Body: ledger.Snapshot(g)}
				return c.record
			}
		}
		now := d.house.now()
		ask.begun = now.Boot
		ticket := d.core.Allocate(r, now)
		if ask.follow != nil {
			ask.follow.ticket = ticket
		}
		d.flush()
		if !c.answered && c.operation == "" {
			c.glance = d.glance(ticket)
			c.follow(schemas.StatusRunning, 0, "memory is being prepared", d.canceller(ticket))
		}
	})
}

// requestID is the id of the command, for events.
func (a *grantCall) requestID() string { return a.c.RequestID }

func (d *deviceActor) canceller(t ledger.Ticket) canceller {
	return func(err *schemas.Error, seen func()) {
		d.tell(seam.SystemLane, func() {
			d.core.Cancel(t, err, d.house.now())
			d.flush()
			seen()
		})
	}
}

// outcome implements asker.
func (a *grantCall) outcome(d *deviceActor, o *ledger.Outcome) {
	switch o.Kind {
	case ledger.OutcomeGranted:
		took := d.house.cfg.Clock.Now().Sub(a.begun)
		d.took.grant(took, time.Duration(o.Queued))
		id, tenant := o.Grant.ID, o.Grant.Owner.Tenant
		if a.follow != nil {
			d.followed(a.follow, id)
		}
		a.c.done(d.allocated(o.Grant, o.Claim, took, time.Duration(o.Queued), o.Evicted), func() { d.undo(id, tenant, false) })
	case ledger.OutcomeQueued:
		if a.c.operation == "" {
			a.c.glance = d.glance(o.Ticket)
		}
		a.c.follow(schemas.StatusQueued, o.Position, o.Reason, d.canceller(o.Ticket))
	case ledger.OutcomeRefused:
		if a.follow != nil {
			d.unfollow(a.follow)
		}
		a.c.fail(o.Err)
	}
}

// allocated renders the reply to an allocate; without a claim it has no handle.
func (d *deviceActor) allocated(g *ledger.Grant, claim string, took, queued time.Duration, evicted []ledger.Evicted) *schemas.AllocateReply {
	f := d.core.Figures()
	granted := &struct {
		reply  schemas.AllocateReply
		handle schemas.Handle
	}{reply: schemas.AllocateReply{
		Finished: schemas.Done(), Success: true, DeviceID: d.id, Allocation: d.allocation(g),
		AllocationTimeMs: millis(took), QueuedMs: millis(queued), Evicted: evictions(evicted),
		AvailableMemoryBytes: f.Available, UtilizationPercentage: percent(f.Used, f.Limit), Message: "granted", AllocatedAt: g.Created,
	}}
	r := &granted.reply
	r.AllocationID = r.Allocation.AllocationID
	if claim != "" {
		granted.handle = d.handle(g, claim)
		r.Handle = &granted.handle
	}
	return r
}

func evictions(in []ledger.Evicted) []schemas.Eviction {
	out := make([]schemas.Eviction, len(in))
	for i, e := range in {
		out[i] = schemas.Eviction{Model: e.Model, Tier: schemas.Tier(e.Tier), FreedBytes: e.Bytes, ReloadCostMs: millis(e.Cost)}
	}
	return out
}

func (d *deviceActor) handle(g *ledger.Grant, claim string) schemas.Handle {
	h := schemas.Handle{Kind: schemas.HandleKind(d.info.HandleKind), Node: d.house.cfg.Node, DataSocket: d.house.cfg.DataSocket,
		Claim: d.claims + claim, SizeBytes: g.Size, SegmentCount: len(g.Blocks)}
	if n := len(g.Claims); n > 0 {
		h.ClaimExpiresAt = d.house.wallAt(g.Claims[n-1].Expires)
	}
	return h
}

// planAllocate is the dry run of an allocate: the core's figures, then the optimizer's plan.
func (d *deviceActor) planAllocate(c *call, r *ledger.Request) {
	p := d.core.Plan(r, d.house.now())
	d.plan(c, p, r.Patience > 0)
}

// plan answers a dry run. Where room lacks, the pool says which models would go.
func (d *deviceActor) plan(c *call, p ledger.Plan, patient bool) {
	if p.Lacks == 0 {
		if p.Outcome == string(schemas.PlanRefused) {
			p.Position = 0 // it gets no place
		}
		c.done(&schemas.DryRunReply{Plan: schemas.Plan{Outcome: schemas.PlanOutcome(p.Outcome), Position: p.Position, Reason: p.Reason, Evict: []schemas.Eviction{}}}, nil)
		return
	}
	d.house.pool.foresee(d, p, patient, c)
}

// releaseCall is a deallocate command in the core's hands.
type releaseCall call

func (d *deviceActor) deallocate(c *call, id uuid.UUID) {
	d.take(seam.ReleaseLane, c, func() {
		in := c.Data.(*schemas.DeallocateRequest)
		g, err := d.core.FindGrant(id, c.Tenant)
		switch {
		case err != nil:
			c.fail(err)
			return
		case g.Class == ledger.ClassWeights:
			c.fail(schemas.Errorf(schemas.CodeInvalidRequest, "allocation %s holds model %q: use unload_model", id, g.Model).With("field", "allocation_id"))
			return
		}
		r := ledger.ReleaseRequest{Ref: (*releaseCall)(c), Grant: id, Tenant: c.Tenant, Force: in.Force, Why: ledger.WhyDeallocated}
		if in.DeadlineMs != nil {
			r.Deadline = time.Duration(*in.DeadlineMs) * time.Millisecond
		}
		if c.DryRun {
			c.foreseen(d.core.PlanRelease(r), "the allocation would be released")
			return
		}
		if c.key != "" {
			r.Key, c.home = c.key, "device/"+d.id
			r.Answer = func(g *ledger.Grant) ledger.AnswerRecord {
				c.record = ledger.AnswerRecord{Key: c.key, Digest: c.Digest, Action: string(c.Action),
					Body: codec.Append(nil, codec.JSON, d.deallocated(g.Granted, true, 0))}
				return c.record
			}
		}
		d.core.Release(r, d.house.now())
		d.flush()
		c.follow(schemas.StatusRunning, 0, "waits until nobody can touch the bytes any more", nil)
	})
}

// outcome implements asker.
func (a *releaseCall) outcome(d *deviceActor, o *ledger.Outcome) {
	c := (*call)(a)
	if o.Kind == ledger.OutcomeRefused {
		c.fail(o.Err)
		return
	}
	r := d.deallocated(o.Freed, o.Confirmed, o.Zombie)
	if c.record.Key != "" {
		c.record.Body = codec.Append(nil, codec.JSON, r) // it was foreseen; this is what came of it
	}
	c.done(r, nil)
}

func (d *deviceActor) deallocated(freed int64, confirmed bool, zombie int64) *schemas.DeallocateReply {
	f := d.core.Figures()
	return &schemas.DeallocateReply{Finished: schemas.Done(), Success: true, FreedBytes: freed, Confirmed: confirmed, ZombieBytes: zombie,
		AvailableMemoryBytes: f.Available, UtilizationPercentage: percent(f.Used, f.Limit)}
}

// foreseen answers a dry run with what the command itself would be answered: what does not
// exist or may not be fails it, what stands in its way is the plan's reason.
func (c *call) foreseen(err *schemas.Error, reason string) {
	switch {
	case err == nil:
		c.done(planned("granted", reason), nil)
	case err.Status <= schemas.CodeAllocationNotFound.Status():
		c.fail(err)
	default:
		c.done(planned("refused", err.Message), nil)
	}
}

func planned(outcome, reason string) *schemas.DryRunReply {
	return &schemas.DryRunReply{Plan: schemas.Plan{Outcome: schemas.PlanOutcome(outcome), Reason: reason, Evict: []schemas.Eviction{}}}
}

// claim makes a fresh claim on a grant of a tenant, for a reader who may be of another where
// it is a shared model's, and gives it to use, on the device's goroutine.
func (d *deviceActor) claim(id uuid.UUID, tenant, reader string, use func(*schemas.Handle, *schemas.Error)) {
	d.tell(seam.SystemLane, func() {
		g, claim, err := d.core.HandleFor(id, tenant, reader, d.house.now())
		if err != nil {
			d.flush()
			use(nil, err)
			return
		}
		h := d.handle(g, claim)
		d.flush()
		use(&h, nil)
	})
}

func (d *deviceActor) getHandle(c *call, id uuid.UUID) {
	d.take(seam.GrantLane, c, func() {
		g, claim, err := d.core.Handle(id, c.Tenant, d.house.now())
		if err != nil {
			d.flush()
			c.fail(err)
			return
		}
		h := d.handle(g, claim)
		weights := g.Class == ledger.ClassWeights
		d.flush()
		if weights {
			d.house.pool.touch(id)
		}
		c.done(&schemas.GetHandleReply{Handle: h}, nil)
	})
}

// renew extends one grant's lease and gives its new end to use, on the device's goroutine.
func (d *deviceActor) renew(id uuid.UUID, tenant string, lease time.Duration, dry bool, use func(time.Time, *schemas.Error)) {
	d.tell(seam.SystemLane, func() {
		if dry {
			use(time.Time{}, d.core.PlanRenew(id, tenant, lease))
			return
		}
		g, err := d.core.Renew(id, tenant, lease, d.house.now())
		var end time.Time
		if err == nil {
			end = d.house.wallAt(g.LeaseEnds)
		}
		d.flush()
		use(end, err)
	})
}

func (d *deviceActor) setLimits(c *call, in *schemas.SetLimitsRequest) {
	d.take(seam.ReleaseLane, c, func() {
		if err := d.core.PlanLimits(in.LimitBytes, in.ModelLimitBytes, in.ReserveBytes); err != nil {
			c.fail(err)
			return
		}
		if in.Tenant != nil {
			err := d.knows(in.Tenant.Name)
			if err == nil {
				err = d.core.CheckQuota(quotaChange(in.Tenant))
			}
			if err != nil {
				c.fail(err)
				return
			}
		}
		// All or nothing: the thresholds are judged before anything is set.
		d.house.monitor.judge(d, in.Thresholds, func(err *schemas.Error) {
			switch {
			case err != nil:
				c.fail(err)
			case c.DryRun:
				c.done(planned("granted", "the limits would be set"), nil)
			default:
				d.tell(seam.SystemLane, func() { d.limit(c, in) })
			}
		})
	})
}

// limit sets limits that have been judged.
func (d *deviceActor) limit(c *call, in *schemas.SetLimitsRequest) {
	err := d.core.SetLimits(in.LimitBytes, in.ModelLimitBytes, in.ReserveBytes, d.house.now())
	if err == nil && in.Tenant != nil {
		err = d.core.SetQuota(quotaChange(in.Tenant), d.house.now())
	}
	d.flush()
	if err != nil {
		c.fail(err)
		return
	}
	f := d.core.Figures()
	_, models, reserve := d.core.Limits()
	if models == 0 {
		models = f.Limit
	}
	var tenant *schemas.TenantLimits
	if in.Tenant != nil {
		tenant = tenantLimits(d.core.Quota(in.Tenant.Name))
	}
	d.house.monitor.setThresholds(d, in.Thresholds, func(t schemas.Thresholds, err *schemas.Error) {
		if err != nil {
			c.fail(err)
			return
		}
		c.done(&schemas.SetLimitsReply{Finished: schemas.Done(), DeviceID: d.id, LimitBytes: f.Limit, ModelLimitBytes: models,
			ModelLimitMb: schemas.Megabytes(models), ReserveBytes: reserve, Thresholds: t, Tenant: tenant}, nil)
	})
}
