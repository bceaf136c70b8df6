package actors

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/schemas"
)

// optimizePatience bounds an optimize: readers that are forced have let go or are zombies
// long before.
const optimizePatience = 30 * time.Second

// optimize brings a device's use down, through its optimizer.
func (h *House) optimize(c *call, in *schemas.OptimizeRequest) {
	d, err := h.device(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	kind := in.OptimizationType
	keep := map[uuid.UUID]bool{}
	if !c.DryRun {
		c.follow(schemas.StatusRunning, 0, "the device is being optimized", func(err *schemas.Error, seen func()) {
			d.optimizer.giveUpFor(c.RequestID, c.Tenant, err)
			seen()
		})
		if in.WaitForCompletion != nil && !*in.WaitForCompletion {
			h.sessions.answerNow(c)
		}
	}
	h.exist(in.PreserveAllocations, c.Tenant, keep, func(err *schemas.Error) {
		if err != nil {
			c.fail(err)
			return
		}
		e := &errand{requestID: c.RequestID, owner: c.Tenant, why: "a client's optimize", most: -1, patience: optimizePatience, dry: c.DryRun,
			goals:  goals{usage: in.TargetUsagePercentage},
			choice: choice{strategy: h.pool.strategy, force: in.Force, deadline: forcedDeadline, tenant: whose(c.Tenant), grants: keep},
			done:   func(e *errand) { h.optimized(c, d, e) }}
		switch kind {
		case schemas.OptimizeTrim:
			e.trim = trimAll
		case schemas.OptimizeModels:
			e.models = true
		case schemas.OptimizeDefragment:
			e.tidy = true
		case schemas.OptimizeAll:
			e.trim, e.models, e.tidy = trimAll, true, true
		default:
			e.trim, e.models = trimExcess, true
		}
		d.optimizer.start(e)
	})
}

// optimized answers an optimize, on the optimizer's goroutine.
func (h *House) optimized(c *call, d *deviceActor, e *errand) {
	switch {
	case e.cancelled != nil:
		c.fail(e.cancelled.With("freed_bytes", e.freed))
	case e.dry:
		plan := planned(string(schemas.PlanGranted), e.outcome())
		if e.tidy && !e.models && e.busy {
			plan = planned(string(schemas.PlanRefused), d.id+" is being defragmented")
		}
		plan.Plan.Evict = append(plan.Plan.Evict, e.evicted...)
		plan.Plan.EstimatedMs = millis(d.optimizer.pace) * float64(len(e.victims))
		c.done(plan, nil)
	default:
		h.pool.conclude(c, &schemas.OptimizeReply{Finished: schemas.Done(), Before: e.before, After: e.after, FreedBytes: e.freed, MovedBytes: e.moved,
			Steps: append([]schemas.OptimizationStep{}, e.steps...)})
	}
}

// exist looks allocations up, puts them into found, and tells use of the first that a
// tenant does not have. use runs on one actor or another.
func (h *House) exist(ids []string, tenant string, found map[uuid.UUID]bool, use func(*schemas.Error)) {
	if len(ids) == 0 {
		use(nil)
		return
	}
	d, id, err := h.deviceOfID(ids[0])
	if err != nil {
		use(err)
		return
	}
	d.tell(seam.SystemLane, func() {
		if _, err := d.core.FindGrant(id, tenant); err != nil {
			use(err)
			return
		}
		found[id] = true
		h.exist(ids[1:], tenant, found, use)
	})
}

// answerNow answers a command that is followed, without waiting for its end.
func (s *sessionsActor) answerNow(c *call) {
	id := c.operation
	s.tell(seam.SystemLane, func() { s.overdue(s.ops[id]) })
}
