package actors

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
)

// deviceActor is the shell of one device: it feeds the core, carries its effects out, and
// is the only one to hold the driver's segments.
type deviceActor struct {
	inbox
	house     *House
	id        string
	tag       uint32
	subject   string // of its allocation events
	claims    string // what its claims begin with
	named     lastID
	kind      schemas.DeviceType
	cfg       DeviceConfig
	info      device.Info
	driver    device.Driver
	core      *ledger.Device
	live      map[heap.SegmentID]device.Segment
	work      *workers
	making    making
	optimizer *optimizerActor

	timer   clock.Timer
	timerAt clock.Instant

	gauges   gaugeSlot
	quotas   quotaSlot
	took     durations
	rates    rates
	sampling sampling
	follows  follows
	deafen   func() // ends the signals
	beat     atomic.Pointer[schemas.DeviceBeat]
	health   device.Health
	lost     error                     // why nothing can be had of it any more
	ails     *ailment                  // what the observer was last told
	state    atomic.Pointer[condition] // of health, for other goroutines
	vacating *task                     // the segment being emptied
	// inherited are the vault ids of what was taken over, and report tells of it, until settle.
	inherited []uint64
	report    ledger.Report
	origins   []ledger.Origin // of moves that a predecessor had nearly ended
	partings  []parting       // unmaps that wait for their descriptors' arrival
	draining  chan Stays      // of a drain under way
}

// condition is a device's health as others see it.
type condition struct {
	health  schemas.Health
	reasons []string
}

// feels notes the device's health.
func (d *deviceActor) feels(h device.Health, reasons []string) {
	d.health = h
	d.state.Store(&condition{schemas.Health(h.String()), reasons})
}

// sampling is the state of looking at the outside.
type sampling struct {
	timer    clock.Timer
	epoch    uint64 // counts jobs that change what the driver holds
	busy     int    // such jobs under way
	rejected int    // samples in a row that fell between epochs
	at       time.Time
	seen     clock.Instant // when the latest sample that counts was taken
	told     clock.Instant // the one that the monitor has been told of
	turn     uint64        // counts samples begun
	overdue  clock.Timer   // fires when the one under way is late
	pace     pressure.Pace
	agreed   time.Time // last agreement of ledger and driver
	drift    int64
	limit    int64
}

// maxRejected bounds how many samples in a row may be discarded because the device was
// at work: an old figure is worse than one that is off by what is in flight.
const maxRejected = 20

// openDevice reads the device's region, imports its segments and builds the core. It runs
// beside those of other devices, and touches none of what they share: see settle.
func openDevice(h *House, cfg DeviceConfig, mem []byte, inherited bool) (*deviceActor, error) {
	info := cfg.Driver.Info()
	d := &deviceActor{house: h, id: info.ID, tag: tagOf(info.ID), cfg: cfg, info: info, driver: cfg.Driver,
		kind: schemas.DeviceType(info.Type.String()), live: map[heap.SegmentID]device.Segment{}}
	d.feels(device.Healthy, nil)
	// Ledger and driver agree at first: what one has of the other was just read or made.
	d.sampling.agreed = h.cfg.Clock.Wall()
	d.beat.Store(&schemas.DeviceBeat{DeviceID: d.id, PressureLevel: schemas.PressureLow, Health: schemas.HealthHealthy})
	d.deafen = func() {}
	d.subject = schemas.AllocationSubject(h.cfg.Node, d.id)
	d.claims = claimsOf(d.tag)
	random := buffered(h.cfg.Random)
	core := ledger.DeviceConfig{
		Device: d.id, Type: string(d.kind), Physical: info.PhysicalBytes, Limit: cfg.Limit, Ceiling: info.PhysicalBytes - cfg.Reserve,
		Overdue: h.cfg.Overdue, EndGrace: h.cfg.EndGrace,
		BySessions: !info.ProvesRelease,
		Heap:       heap.Config{GranularityBytes: info.GranularityBytes}, Warm: warmable(cfg.Warm, info), PoolBytes: cfg.PoolBytes, PoolHalfLife: cfg.PoolHalfLife,
		Rand: random, NewID: idsOf(random, d.tag),
	}
	if inherited {
		if err := d.restore(core, mem); err != nil {
			return nil, err
		}
	} else {
		region, err := h.format(mem, "device/"+d.id)
		if err != nil {
			return nil, err
		}
		d.core = ledger.NewDevice(core, region)
	}
	if err := d.presetQuotas(); err != nil {
		return nil, err
	}
	return d, nil
}

// warmable are the classes that a device can keep ready: whole segments of its driver.
func warmable(classes []ledger.WarmClass, i device.Info) []ledger.WarmClass {
	return slices.DeleteFunc(slices.Clone(classes), func(c ledger.WarmClass) bool { return c.Bytes%i.GranularityBytes != 0 })
}

// restore takes over what a predecessor had of the device. Where the driver finds that the
// device is lost, that is the error, and everything stays as it was: it is for a later node.
func (d *deviceActor) restore(core ledger.DeviceConfig, mem []byte) error {
	image, err := ledger.ReadImage(mem)
	if err != nil {
		return fmt.Errorf("its ledger: %w", err)
	}
	if d.house.stored != nil {
		image.Observe(d.house.stored)
	}
	missing := map[heap.SegmentID]bool{}
	for _, s := range image.Segments() {
		id := vaultID(d.tag, uint64(s.ID))
		f, ok := d.house.cfg.Inherited[id]
		if !ok {
			missing[s.ID] = true
			continue
		}
		seg, err := d.driver.Import(f, s.Bytes, device.ImportOptions{Weights: s.Weights, Sealed: s.Sealed})
		if errors.Is(err, device.ErrLost) {
			return err
		}
		if err != nil {
			// It stays with what nobody knows, and is dropped from the vault too.
			d.house.log.Error("a segment could not be taken over", "device", d.id, "segment", s.ID, "error", err)
			missing[s.ID] = true
			continue
		}
		d.inherited = append(d.inherited, id)
		d.live[s.ID] = seg
	}
	d.core, d.report, err = ledger.Restore(core, image, missing, d.house.now())
	return err
}

// settle adds a device that was opened to the house: what it took over, and the sealed weights
// among it, which are added to models.
func (d *deviceActor) settle(models map[uuid.UUID]string) {
	for _, id := range d.inherited {
		delete(d.house.cfg.Inherited, id)
	}
	d.inherited = nil
	d.house.noteRestored(d, d.report)
	d.origins = d.report.Origins
	for _, id := range d.report.Models {
		models[id] = d.id
	}
	d.report = ledger.Report{}
	d.work = newWorkers(d.cfg.CopyWorkers, reapers(d.kind))
}

// noteRestored adds a device's part to what the take-over kept and lost.
func (h *House) noteRestored(d *deviceActor, rep ledger.Report) {
	h.restored.Grants += rep.Grants
	h.restored.Segments += rep.Segments
	h.restored.GrantedBytes += d.core.Figures().Granted
	for _, id := range rep.Lost {
		h.restored.LostGrants = append(h.restored.LostGrants, id.String())
	}
	for s := range rep.Sessions {
		h.bearers[s] = true
	}
	h.inheritAnswers("device/"+d.id, rep.Answers)
}

// begin carries out what the core wants done after opening, and starts sampling.
func (d *deviceActor) begin() {
	d.flush()
	d.resumeFollows()
	d.settleOrigins()
	d.figures(&ledger.Effects{Cause: "foreign"}) // so that there is a level before anything happens
	d.sample()
}

// flush carries out the effects of the core's last call.
func (d *deviceActor) flush() {
	e := d.core.Take()
	if e.Figures {
		d.figures(e)
	}
	for i := range e.Jobs {
		d.dispatch(&e.Jobs[i])
	}
	for i := range e.Outcomes {
		e.Outcomes[i].Ref.(asker).outcome(d, &e.Outcomes[i])
		d.house.granted(d.id, &e.Outcomes[i])
	}
	if len(e.Events) > 0 {
		if len(d.follows.by) > 0 {
			d.endFollows(e.Events)
		}
		d.announce(e.Events, e.Outcomes)
	}
	for _, r := range e.Revokes {
		d.house.sessions.revoke(r)
	}
	for _, x := range e.Ends {
		d.house.sessions.end(d, x)
	}
	for _, r := range e.Readers {
		d.house.pool.mapped(r)
	}
	for _, id := range e.Interrupts {
		d.house.transfer.interrupt(id)
	}
	if e.Abandon {
		d.abandon()
	}
	for _, w := range e.Wants {
		d.optimizer.want(w)
	}
	d.arm()
	if d.draining != nil {
		d.checkDrained()
	}
}

// asker is who asked the core for something; outcome answers it, on the device's goroutine,
// without calling the core.
type asker interface {
	outcome(d *deviceActor, o *ledger.Outcome)
}

// arm sets the one timer of the core.
func (d *deviceActor) arm() {
	at, ok := d.core.Next()
	if !ok || d.timer != nil && d.timerAt <= at {
		return
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timerAt = at
	d.timer = d.house.cfg.Clock.AfterFunc(max(0, at.Sub(d.house.cfg.Clock.Now())), func() {
		d.tell(seam.SystemLane, func() {
			d.timer = nil
			d.core.Tick(d.house.now())
			d.flush()
		})
	})
}

// figures tells the monitor that bytes moved. It goes first: pressure is an event.
func (d *deviceActor) figures(e *ledger.Effects) {
	f := d.core.Figures()
	g := gauge{device: d, figures: f, cause: causeOf(e.Cause), requestID: e.RequestID, observed: d.sampling.at, seen: d.sampling.seen, stats: d.core.Stats()}
	for i := range e.Outcomes {
		if o := &e.Outcomes[i]; o.Kind == ledger.OutcomeGranted && o.Grant.Class == ledger.ClassWeights {
			g.grant = o.Grant.ID
		}
	}
	if f.Used*20/max(1, f.Limit) != d.sampling.limit {
		// Another twentieth of the limit: who holds it may be asked for soon.
		d.sampling.limit = f.Used * 20 / max(1, f.Limit)
		g.holders = d.core.Holders(5)
	}
	// Each sample is told: that nothing grew is news too.
	d.gauges.put(d.house.monitor, &g, e.Cause == "foreign" || d.sampling.told != d.sampling.seen)
	d.sampling.told = d.sampling.seen
	d.tellQuotas(g.cause, g.requestID)
}

func causeOf(s string) pressure.Cause {
	for c := pressure.CauseGrant; c <= pressure.CauseSourceLost; c++ {
		if c.String() == s {
			return c
		}
	}
	return pressure.CauseGrant
}

// sample has the driver's figures read on the control goroutine, between its other calls.
func (d *deviceActor) sample() {
	epoch := d.sampling.epoch
	looker := d.looker()
	d.sampling.turn++
	turn := d.sampling.turn
	d.sampling.overdue = d.house.cfg.Clock.AfterFunc(d.cfg.Sampling.WithDefaults().Patience, func() { d.tell(seam.SystemLane, func() { d.sampleLate(turn) }) })
	d.work.control.put(func() {
		var l *look
		if looker != nil {
			l = looker()
		}
		s, err := d.driver.Sample()
		at, wall := d.house.cfg.Clock.Now(), d.house.cfg.Clock.Wall()
		d.tell(seam.SystemLane, func() { d.sampled(s, l, err, epoch, at, wall) })
	})
}

// sampleLate notes that the driver has not answered in time: what others use is not known
// until it does.
func (d *deviceActor) sampleLate(turn uint64) {
	if d.sampling.overdue == nil || d.sampling.turn != turn {
		return // it came meanwhile
	}
	d.house.log.Warn("the driver owes a sample", "device", d.id)
	d.house.monitor.stale(d, true)
	d.warn(true)
}

func (d *deviceActor) sampled(s device.Sample, l *look, err error, epoch uint64, at clock.Instant, wall time.Time) {
	d.sampling.overdue.Stop()
	d.sampling.overdue = nil
	now := d.house.now()
	stale := err != nil
	// At the device's own work a figure may be of between two moments: another one is
	// taken soon.
	period := d.cfg.Sampling.WithDefaults().Shortest
	switch {
	case errors.Is(err, device.ErrLost):
		d.lose(err)
		if len(s.Reasons) > 0 {
			d.feels(device.Lost, s.Reasons)
		}
	case err != nil:
		d.feels(device.Failing, []string{"its figures cannot be read: " + err.Error()})
		d.house.log.Warn("no sample", "device", d.id, "error", err)
		period = d.cfg.Sampling.WithDefaults().Rest
	case (epoch != d.sampling.epoch || d.sampling.busy > 0) && d.sampling.rejected < maxRejected:
		d.sampling.rejected++
	default:
		d.sampling.rejected = 0
		d.sampling.at, d.sampling.seen = wall, at
		d.feels(s.Health, s.Reasons)
		d.looked(l)
		d.core.SetOthers(others(s.Others))
		d.core.SetOutside(s.OutsideBytes(), s.PhysicalBytes-d.cfg.Reserve, now)
		d.flush()
		if d.sampling.told != at {
			d.figures(&ledger.Effects{Cause: "foreign"})
		}
		d.checkDrift(s, epoch)
		f := d.core.Figures()
		// What others use counts only once it has filled what the limit leaves over: so much
		// longer may they grow before it matters.
		headroom := f.Limit - f.Used + max(0, f.Physical-f.Limit-s.OutsideBytes())
		period = d.sampling.pace.Next(d.cfg.Sampling, s.OutsideBytes(), headroom, at)
	}
	d.house.monitor.stale(d, stale)
	d.warn(stale)
	if d.lost != nil {
		return // it answers nothing any more
	}
	d.sampling.timer = d.house.cfg.Clock.AfterFunc(period, func() { d.tell(seam.SystemLane, d.sample) })
}

// others are who uses the device without us.
func others(list []device.ProcessUse) []ledger.Other {
	out := make([]ledger.Other, 0, len(list))
	for _, u := range list {
		if u.Bytes > 0 {
			out = append(out, ledger.Other{PID: int32(u.PID), Command: u.Command, Bytes: u.Bytes})
		}
	}
	return out
}

// checkDrift compares the ledger's segments with the driver's while nothing is in flight.
func (d *deviceActor) checkDrift(s device.Sample, epoch uint64) {
	if epoch != d.sampling.epoch || d.sampling.busy > 0 {
		return
	}
	drift := s.OursBytes - d.core.Figures().Segments
	if d.info.Simulated || d.filling() {
		// A simulated device is sparse until touched, and main memory of weights has no pages
		// before it is filled; what neither may do is to hold more.
		drift = max(0, drift)
	}
	if drift == 0 {
		d.sampling.agreed = d.sampling.at
	}
	if drift != d.sampling.drift {
		d.sampling.drift = drift
		d.house.publish(schemas.Event{Event: schemas.EventDrift, Subject: schemas.NodeSubject(d.house.cfg.Node),
			Data: &schemas.NodeEvent{DeviceID: d.id, DriftBytes: drift, Reason: "the driver's bytes are not the ledger's"}})
		d.house.log.Warn("ledger and driver disagree", "device", d.id, "drift_bytes", drift)
	}
}

// filling tells whether there are weights that are not sealed yet.
func (d *deviceActor) filling() bool {
	for _, s := range d.live {
		if s.Weights() && !s.Sealed() {
			return true
		}
	}
	return false
}

// sessionClosed and sessionDead pass on what happened to a session.
func (d *deviceActor) sessionClosed(s ledger.SessionID) {
	d.tell(seam.SystemLane, func() { d.core.SessionClosed(s, d.house.now()); d.flush() })
}

func (d *deviceActor) sessionDead(s ledger.SessionID) {
	d.tell(seam.SystemLane, func() { d.core.SessionDead(s, d.house.now()); d.flush() })
}

// reclaimable takes the pool's figure of what unread models hold here, in all and of each
// tenant with a quota.
func (d *deviceActor) reclaimable(bytes int64, of map[string]int64) {
	d.tell(seam.SystemLane, func() {
		d.core.SetReclaimableOf(of)
		d.core.SetReclaimable(bytes, d.house.now())
		d.flush()
	})
}

// forgetAnswers deletes records of outcomes whose time has passed.
func (d *deviceActor) forgetAnswers(keys []string) {
	d.tell(seam.SystemLane, func() { d.core.ForgetAnswers(keys); d.flush() })
}

// undo takes a grant back that nobody heard of. With unlessMapped it stays if somebody
// found it by another way.
func (d *deviceActor) undo(id uuid.UUID, tenant string, unlessMapped bool) {
	d.tell(seam.SystemLane, func() {
		if g, ok := d.core.Grant(id); !ok || unlessMapped && (g.Live() || g.Owner.Session != "" && g.Bound && len(g.Claims) == 0) {
			return
		}
		d.core.Release(ledger.ReleaseRequest{Grant: id, Tenant: tenant, Force: true, Why: ledger.WhyUndone}, d.house.now())
		d.flush()
	})
}

// describe is the device as the contract shows it. It may be called from any goroutine.
func (d *deviceActor) describe() schemas.Device {
	c := d.state.Load()
	return schemas.Device{DeviceID: d.id, Type: d.kind, Name: d.info.Name, Driver: d.info.Driver, UUID: d.info.UUID, Simulated: d.info.Simulated,
		GranularityBytes: d.info.GranularityBytes, Peers: d.info.Peers, NUMANode: d.info.NUMANode, Health: c.health, HealthReasons: c.reasons}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
