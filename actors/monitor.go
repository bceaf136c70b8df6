package actors

import (
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
)

// monitorActor is the shell of pressure: it hears of every change of bytes, publishes
// every change of level once and in order, and tells the optimizers their targets.
type monitorActor struct {
	inbox
	house   *House
	gauges  map[*deviceActor]*gaugeState
	quotas  map[quotaKey]*quotaState
	timer   clock.Timer
	timerAt clock.Instant
}

// gauge is a device's bytes after a change, and what changed them.
type gauge struct {
	device    *deviceActor
	figures   ledger.Figures
	cause     pressure.Cause
	requestID string
	grant     uuid.UUID // weights whose grant this was
	holders   []ledger.Holding
	observed  time.Time
	seen      clock.Instant // of the same sample
	stats     ledger.DeviceStats
}

type gaugeState struct {
	eval      *pressure.Evaluator
	cfg       pressure.Config
	last      gauge
	holders   []ledger.Holding
	sequence  uint64
	unloading int
	stale     bool
	stalls    pressure.Stalls
	eased     bool // the optimizer has been told of the newest signal
	trigger   string
	targeted  int64 // reclaimable bytes when the optimizer was last told its target
	hurried   bool  // evictions in flight have been told that the bytes are needed at once
}

func newMonitor(h *House) *monitorActor {
	return &monitorActor{house: h, gauges: map[*deviceActor]*gaugeState{}, quotas: map[quotaKey]*quotaState{}}
}

func (m *monitorActor) state(d *deviceActor) *gaugeState {
	s, ok := m.gauges[d]
	if !ok {
		eval, err := pressure.New(d.cfg.Pressure, m.house.cfg.Clock.Now())
		if err != nil {
			panic(fmt.Sprintf("actors: pressure of %s: %v", d.id, err)) // validated with the configuration
		}
		s = &gaugeState{eval: eval, cfg: d.cfg.Pressure}
		m.gauges[d] = s
		d.gauges.bound(eval.Config().Thresholds.High.Leave)
	}
	return s
}

// gaugeSlot is where a device leaves its newest figures. Most changes can have no
// consequence for the level: those wait here until somebody asks or time has passed; the
// monitor is told of the others one by one. Changes are never skipped while the monitor
// has yet to hear of an earlier one, because that may move the band.
type gaugeSlot struct {
	mu      sync.Mutex
	newest  gauge
	holders []ledger.Holding
	band    pressure.Band
	calm    float64 // the share of the limit up to which the level is not high
	pending int
	peak    int64 // the most used bytes since analytics looked
}

// put is called by the device. told has the monitor hear of it in any case.
func (s *gaugeSlot) put(m *monitorActor, g *gauge, told bool) {
	f := pressureFigures(&g.figures)
	s.mu.Lock()
	s.newest = *g
	s.peak = max(s.peak, g.figures.Used)
	if g.holders != nil {
		s.holders = g.holders
	}
	quiet := !told && s.pending == 0 && s.band.Holds(&f)
	if !quiet {
		s.pending++
	}
	s.mu.Unlock()
	if !quiet {
		told := *g // else every change would be on the heap
		m.tell(seam.SystemLane, func() { m.gauge(told) })
	}
}

// get is called by the monitor for the newest figures.
func (s *gaugeSlot) get() (gauge, []ledger.Holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest, s.holders
}

// heard is called by the monitor when it has taken a change, with the band around it.
func (s *gaugeSlot) heard(taken int, band pressure.Band) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending -= taken
	s.band = band
}

// bound is called by the monitor with the share of the limit at which the level high is left.
func (s *gaugeSlot) bound(calm float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calm = calm
}

// room is how many bytes more may be used before the level would be high, as far as is known.
// It may be called from any goroutine.
func (s *gaugeSlot) room() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.newest.figures
	return min(int64(s.calm*float64(f.Limit)), f.Limit) - f.Used
}

// gauge takes a change of a device's bytes.
func (m *monitorActor) gauge(g gauge) {
	s := m.state(g.device)
	_, s.holders = g.device.gauges.get()
	s.last = g
	g.device.gauges.heard(1, pressure.Band{})
	m.step(s, g.cause)
}

// refresh takes the newest figures of a device, which may not have been told.
func (m *monitorActor) refresh(s *gaugeState) {
	if s.last.device == nil {
		return
	}
	s.last, s.holders = s.last.device.gauges.get()
	m.step(s, s.last.cause)
}

func pressureFigures(f *ledger.Figures) pressure.Figures {
	return pressure.Figures{
		Limit: f.Limit, Used: f.Used, Available: f.Available, Reserved: f.Reserved, Foreign: f.Foreign, Zombie: f.Zombie,
		Reclaimable: f.Reclaimable, Models: f.Models, Deficit: f.Deficit, LargestGrantable: f.Largest,
	}
}

// stale takes whether a device's outside figures can be read.
func (m *monitorActor) stale(d *deviceActor, stale bool) {
	m.tell(seam.SystemLane, func() {
		s := m.state(d)
		if s.stale == stale {
			return
		}
		s.stale = stale
		if s.last.device != nil {
			m.step(s, pressure.CauseSourceLost)
		}
	})
}

// unloading counts the plans in flight on a device: while there is one its level does
// not fall.
func (m *monitorActor) unloading(d *deviceActor, delta int) {
	m.tell(seam.SystemLane, func() {
		s := m.state(d)
		s.unloading += delta
		if s.last.device != nil {
			s.targeted = -1 // what is still missing is asked for again
			m.step(s, pressure.CauseRelease)
		}
	})
}

func (m *monitorActor) step(s *gaugeState, cause pressure.Cause) {
	f := pressureFigures(&s.last.figures)
	now := m.house.cfg.Clock.Now()
	f.UnloadInFlight, f.Stale, f.Stall = s.unloading > 0, s.stale || s.stalls.Deaf(), s.stalls.Level(now)
	f.Sampled = s.last.seen
	ch, ok := s.eval.Step(f, cause, now)
	s.last.device.gauges.heard(0, s.eval.Band())
	if ok {
		m.changed(s, ch)
	}
	m.aim(s)
	m.arm()
}

// changed publishes a change of level.
func (m *monitorActor) changed(s *gaugeState, ch pressure.Change) {
	d := s.last.device
	kind := schemas.EventPressureReminder
	if !ch.Reminder {
		kind = schemas.EventPressureChanged
		s.sequence++
		s.trigger = s.last.requestID
		if ch.To > ch.From {
			s.targeted = -1
		}
	}
	p := m.render(s, "")
	if ch.Reminder {
		p.ReminderSequence = ch.ReminderSequence
	}
	m.beat(d, s)
	m.house.publish(schemas.Event{Event: kind, Subject: schemas.PressureSubject(m.house.cfg.Node, d.id), Data: p})
	if !ch.Reminder {
		m.house.log.Info("pressure", "device", d.id, "level", ch.To.String(), "was", ch.From.String(), "cause", ch.Cause.String(), "used", p.UsedMemory, "limit", p.TotalMemory)
	}
}

func (m *monitorActor) beat(d *deviceActor, s *gaugeState) {
	d.beat.Store(&schemas.DeviceBeat{DeviceID: d.id, PressureLevel: schemas.PressureLevel(s.eval.Level().String()), Sequence: s.sequence,
		Health: d.state.Load().health})
}

// aim tells the optimizer its target while the level is high, whenever there is something
// it has not heard of: the level rose, a plan ended, or more became reclaimable.
func (m *monitorActor) aim(s *gaugeState) {
	if s.last.device.cfg.ReliefOff {
		return
	}
	if s.eval.Level() < pressure.High {
		s.targeted, s.hurried = -1, false
		return
	}
	st := s.eval.State()
	urgent := st.Level >= pressure.Critical
	if hurry := urgent && s.unloading > 0; hurry != s.hurried {
		if s.hurried = hurry; hurry {
			m.house.pool.hurry(s.last.device)
		}
	}
	if st.Target <= 0 || s.unloading > 0 || st.Figures.Reclaimable == 0 || st.Figures.Reclaimable == s.targeted {
		return
	}
	if st.Stalled {
		if s.eased {
			return // one step a signal: whether it helped is for the kernel to say
		}
		s.eased = true
	}
	s.targeted = st.Figures.Reclaimable
	s.last.device.optimizer.target(goal{bytes: st.Target, grant: s.last.grant, urgent: urgent,
		why: fmt.Sprintf("pressure is %s: %d of %d bytes are used", st.Level, st.Figures.Used, st.Figures.Limit)})
}

// arm sets the one timer: the next dwell or reminder of any device.
func (m *monitorActor) arm() {
	var at clock.Instant
	found := false
	for _, s := range m.gauges {
		if t, ok := s.next(m.house.cfg.Clock.Now()); ok && (!found || t < at) {
			at, found = t, true
		}
	}
	for _, s := range m.quotas {
		if t, ok := s.eval.Next(); ok && (!found || t < at) {
			at, found = t, true
		}
	}
	if !found || m.timer != nil && m.timerAt <= at {
		return
	}
	if m.timer != nil {
		m.timer.Stop()
	}
	m.timerAt = at
	m.timer = m.house.cfg.Clock.AfterFunc(max(0, at.Sub(m.house.cfg.Clock.Now())), func() {
		m.tell(seam.SystemLane, func() {
			m.timer = nil
			now := m.house.cfg.Clock.Now()
			for _, s := range m.gauges {
				if t, ok := s.next(m.timerAt - 1); ok && t <= now {
					m.refresh(s)
				}
			}
			m.tickQuotas(now)
			m.arm()
		})
	})
}

// render is the contract's pressure type of now, as a tenant may see it; an empty viewer
// sees all.
func (m *monitorActor) render(s *gaugeState, viewer string) *schemas.Pressure {
	st := s.eval.State()
	f := s.last.figures
	p := &schemas.Pressure{
		PressureLevel: schemas.PressureLevel(st.Level.String()), PreviousLevel: schemas.PressureLevel(st.Previous.String()),
		Cause: schemas.PressureCause(st.Cause.String()), Sequence: s.sequence, EpisodeID: m.house.cfg.BootID + "-" + strconv.FormatUint(st.Episode, 10),
		TotalMemory: f.Limit, UsedMemory: f.Used, AvailableMemory: f.Available, ReservedMemory: f.Reserved, ForeignMemory: f.Foreign,
		ZombieMemory: f.Zombie, ReclaimableMemory: f.Reclaimable, DeficitBytes: f.Deficit, TargetBytes: st.Target, LargestGrantableBytes: f.Largest,
		UtilizationPercentage: 100 * st.Utilization, ModelUtilizationPercentage: 100 * st.ModelUtilization, TrendBytesPerSecond: st.TrendBytesPerSecond,
		Quality: schemas.Quality(st.Quality), RecommendedActions: recommended(st), TopHolders: topHolders(s.holders, viewer), TriggerRequestID: s.trigger,
	}
	if d := s.last.device; d != nil {
		p.DeviceID = d.id
	}
	if st.Filling {
		p.ExhaustionSeconds = &st.ExhaustionSeconds
	}
	if at := s.last.observed; !at.IsZero() {
		p.ObservedAt = &at
	}
	return p
}

// recommended names the actions that would help, most gentle first.
func recommended(st pressure.State) []string {
	var out []string
	if st.Level >= pressure.Moderate && st.Figures.Reclaimable > 0 {
		out = append(out, "unload_model")
	}
	if st.Level >= pressure.High {
		out = append(out, "deallocate")
	}
	if st.Figures.Zombie > 0 {
		out = append(out, "end the processes that pin zombie bytes")
	}
	return out
}

// getPressure answers get_pressure.
func (m *monitorActor) getPressure(c *call, devices []*deviceActor, all bool) {
	err := m.offer(seam.QueryLane, c, func() {
		r := &schemas.GetPressureReply{}
		for _, d := range devices {
			s := m.state(d)
			m.refresh(s)
			p := m.render(s, c.Tenant)
			r.TenantPressure = append(r.TenantPressure, m.quotasOf(d, c.Tenant)...)
			if !all {
				r.Pressure = p
				break
			}
			r.Devices = append(r.Devices, *p)
		}
		c.done(r, nil)
	})
	if err != nil {
		c.fail(busy("the monitor"))
	}
}

// worst gives the highest level of some devices to use, on the monitor's goroutine.
func (m *monitorActor) worst(ds []*deviceActor, use func(schemas.PressureLevel)) {
	m.tell(seam.SystemLane, func() {
		worst := pressure.Low
		for _, d := range ds {
			worst = max(worst, m.state(d).eval.Level())
		}
		use(schemas.PressureLevel(worst.String()))
	})
}

// judge tells use whether a device could have these thresholds; nil are those it has.
func (m *monitorActor) judge(d *deviceActor, in *schemas.Thresholds, use func(*schemas.Error)) {
	m.tell(seam.SystemLane, func() {
		if in != nil {
			if _, err := pressure.New(with(m.state(d).eval.Config(), in), m.house.cfg.Clock.Now()); err != nil {
				use(badThresholds(err))
				return
			}
		}
		use(nil)
	})
}

func badThresholds(err error) *schemas.Error {
	return schemas.Errorf(schemas.CodeInvalidRequest, "%v", err).With("field", "thresholds")
}

// with is a configuration with other thresholds.
func with(cfg pressure.Config, in *schemas.Thresholds) pressure.Config {
	set := func(t *pressure.Threshold, in *schemas.Threshold) {
		if in != nil {
			t.Enter, t.Leave = in.Enter/100, *in.Leave/100
		}
	}
	set(&cfg.Thresholds.Moderate, in.Moderate)
	set(&cfg.Thresholds.High, in.High)
	set(&cfg.Thresholds.Critical, in.Critical)
	return cfg
}

// hundredfold is a share in percent, without the dust of binary fractions.
func hundredfold(share float64) float64 { return math.Round(share*1e11) / 1e9 }

// setThresholds changes a device's thresholds; nil leaves them. use gets those in force.
func (m *monitorActor) setThresholds(d *deviceActor, in *schemas.Thresholds, use func(schemas.Thresholds, *schemas.Error)) {
	m.tell(seam.SystemLane, func() {
		s := m.state(d)
		if in != nil {
			m.configureQuotas(d, in)
			ch, changed, err := s.eval.Configure(with(s.eval.Config(), in), m.house.cfg.Clock.Now())
			if err != nil {
				use(schemas.Thresholds{}, badThresholds(err))
				return
			}
			if s.last.device != nil {
				if changed {
					m.changed(s, ch)
				}
				d.gauges.heard(0, s.eval.Band())
				m.aim(s)
			}
			d.gauges.bound(s.eval.Config().Thresholds.High.Leave)
			m.arm()
		}
		out := func(t pressure.Threshold) *schemas.Threshold {
			leave := hundredfold(t.Leave)
			return &schemas.Threshold{Enter: hundredfold(t.Enter), Leave: &leave}
		}
		t := s.eval.Config().Thresholds
		use(schemas.Thresholds{Moderate: out(t.Moderate), High: out(t.High), Critical: out(t.Critical)}, nil)
	})
}
