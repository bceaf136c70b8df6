package actors

import (
	"time"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
)

// modelOptimization is a model_optimize under way: one errand for each device after the
// other. Whichever optimizer has it is the only one that touches it.
type modelOptimization struct {
	c       *call
	in      *schemas.ModelOptimizeRequest
	devices []*deviceActor
	begun   time.Time
	until   time.Duration // of the whole
	most    int           // models that may still go; negative: no bound
	free    int64         // bytes that must still be freed
	next    int           // the device whose turn it is
	extra   bool          // the targets of each device are done; more is freed for min_memory_to_free
	reply   schemas.ModelOptimizeReply
	evict   []schemas.Eviction
	words   string
	wait    float64 // estimated, ms
}

// rules by which readers must let go when a client forces an eviction: as long as
// unload_model gives them.
const forcedDeadline = 2 * time.Second

// whose is the tenant whose models a client may have released: its own. Who comes by the
// host's own account runs the host, and may release anybody's.
func whose(tenant string) string {
	if tenant == schemas.DefaultTenant {
		return ""
	}
	return tenant
}

func (h *House) modelOptimize(c *call, in *schemas.ModelOptimizeRequest) {
	ds, err := h.some(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	m := &modelOptimization{c: c, in: in, devices: ds, begun: h.cfg.Clock.Wall(), until: 5 * time.Second, most: -1}
	if in.MaxOptimizationTimeMs != nil {
		m.until = time.Duration(*in.MaxOptimizationTimeMs) * time.Millisecond
	}
	if in.MaxModelsToUnload != nil {
		m.most = *in.MaxModelsToUnload
	}
	if in.MinMemoryToFree != nil {
		m.free = *in.MinMemoryToFree
	}
	m.reply = schemas.ModelOptimizeReply{Finished: schemas.Done(), OptimizationStarted: m.begun, ModelsUnloaded: []string{},
		OptimizationDetails: []schemas.OptimizationStep{}}
	if !c.DryRun {
		c.follow(schemas.StatusRunning, 0, "models are being released", m.give)
	}
	m.turn()
}

// give is the canceller: the errand that runs is given up, and no other begins.
func (m *modelOptimization) give(err *schemas.Error, seen func()) {
	for _, d := range m.devices {
		d.optimizer.giveUpFor(m.c.RequestID, m.c.Tenant, err)
	}
	seen()
}

// turn begins the errand of the device whose turn it is, or answers.
func (m *modelOptimization) turn() {
	if m.next == len(m.devices) && !m.extra && m.free > 0 && len(m.devices) > 1 {
		m.extra, m.next = true, 0
	}
	left := m.until - m.c.house.cfg.Clock.Wall().Sub(m.begun)
	if m.next == len(m.devices) || left <= 0 && m.next > 0 {
		m.answer()
		return
	}
	d := m.devices[m.next]
	m.next++
	e := &errand{requestID: m.c.RequestID, owner: m.c.Tenant, why: "a client's model_optimize", models: true, most: m.most, patience: max(left, time.Millisecond),
		dry: m.c.DryRun, done: func(e *errand) { m.take(d, e) },
		choice: choice{strategy: string(m.in.Strategy), force: m.in.ForceOptimization, deadline: forcedDeadline, tenant: whose(m.c.Tenant),
			names: map[string]bool{}}}
	for _, name := range m.in.ExcludeModels {
		e.choice.names[name] = true
	}
	if !m.extra {
		level := levelOf(m.in.TargetPressureLevel)
		e.goals.level, e.goals.usage = &level, m.in.TargetUsagePercentage
	}
	if m.extra || len(m.devices) == 1 {
		e.goals.free = m.free
	}
	d.optimizer.start(e)
}

// take takes what came of one device's errand.
func (m *modelOptimization) take(d *deviceActor, e *errand) {
	if e.cancelled != nil {
		m.c.fail(e.cancelled.With("memory_freed", m.reply.MemoryFreed+e.freed))
		return
	}
	names, cost := e.unloaded()
	r := &m.reply
	r.OptimizationStrategy = schemas.EvictionStrategy(e.choice.strategy)
	r.OptimizationTriggered = r.OptimizationTriggered || len(e.victims) > 0
	r.ModelsUnloaded = append(r.ModelsUnloaded, names...)
	r.MemoryFreed += e.freed
	r.PerformanceImpact.ReloadCostMs += millis(cost)
	r.OptimizationDetails = append(r.OptimizationDetails, e.steps...)
	m.evict = append(m.evict, e.evicted...)
	m.wait += millis(d.optimizer.pace) * float64(len(e.victims))
	if m.most > 0 {
		m.most = max(0, m.most-len(e.victims))
	}
	gained := e.freed
	if e.dry {
		for _, v := range e.victims {
			gained += v.bytes
		}
	}
	m.free = max(0, m.free-gained)
	if m.words != "" {
		m.words += "; "
	}
	m.words += d.id + ": " + e.outcome()
	m.turn()
}

func (m *modelOptimization) answer() {
	c, r := m.c, &m.reply
	if c.DryRun {
		plan := planned(string(schemas.PlanGranted), m.words)
		plan.Plan.Evict, plan.Plan.EstimatedMs = append(plan.Plan.Evict, m.evict...), m.wait
		c.done(plan, nil)
		return
	}
	r.MemoryFreedBytes = r.MemoryFreed
	r.EstimatedDurationSeconds = m.wait / 1000
	r.OptimizationTimeMs = millis(c.house.cfg.Clock.Wall().Sub(m.begun))
	r.Message = m.words
	c.house.pool.conclude(c, r)
}

// conclude records a command's outcome and answers it, on the pool's goroutine.
func (p *poolActor) conclude(c *call, reply any) {
	p.tell(seam.SystemLane, func() {
		p.remember(c, reply)
		c.done(reply, nil)
	})
}

func levelOf(l schemas.PressureLevel) pressure.Level {
	for at := pressure.Low; at < pressure.Critical; at++ {
		if at.String() == string(l) {
			return at
		}
	}
	return pressure.Critical
}
