package actors

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
)

// errand is an optimization of one device that a client asked for. The optimizer carries
// it out in stages (measure, trim, release models, measure again, …), each as a plan of
// its own, so that those who wait for room come in between. An errand belongs to the
// optimizer from start on; whoever made it reads it again in done.
type errand struct {
	// What is asked for.
	requestID, owner string // whose command it is: request and tenant
	why              string
	goals            goals
	trim             trimming
	models           bool // models may be released
	tidy             bool // segments are to be emptied by moving blocks, after all else
	choice           choice
	most             int           // models to be released at most; negative: no bound
	patience         time.Duration // when it is answered at the latest, from its beginning
	dry              bool
	done             func(*errand) // on the optimizer's goroutine, once

	id    string
	begun clock.Instant
	timer clock.Timer

	// How far it is.
	trimmed, stuck, tidied, told, over bool
	late                               bool           // it was answered before all was done
	cancelled                          *schemas.Error // its client gave it up
	busy                               bool           // the device is being defragmented, as was last seen
	stop                               func()         // ends the stage under way early; nil: it ends soon by itself

	// What came of it.
	before, after schemas.MemoryInfo
	target        int64 // bytes wanted of models at first
	toTrim        int64 // idle bytes wanted at first
	toTidy        ledger.Defragmented
	moved         int64 // bytes that lie elsewhere now
	missing       int64 // bytes still missing
	freed         int64 // confirmed off the device
	evicted       []schemas.Eviction
	steps         []schemas.OptimizationStep
	victims       []errandVictim
}

// errandVictim is a model that an errand released.
type errandVictim struct {
	victim
	gone bool // its bytes are confirmed off the device
	step int
}

// trimming says how much idle memory goes back.
type trimming uint8

const (
	trimNone   trimming = iota
	trimExcess          // what is held beyond the target of use
	trimAll
)

// goals are the targets that must hold, all of them.
type goals struct {
	level *pressure.Level // no higher than this
	usage *float64        // percent of the limit, of used bytes
	free  int64           // bytes to be freed at least
}

// choice is how a client has models chosen.
type choice struct {
	strategy string
	force    bool
	deadline time.Duration // by which readers must let go, with force
	tenant   string        // whose models alone; "": anybody's
	names    map[string]bool
	grants   map[uuid.UUID]bool
	most     int // 0: no bound
}

// want is the choice as the catalog takes it; nil is the default one.
func (ch *choice) want(device string, bytes int64) catalog.Want {
	w := catalog.Want{Device: device, Bytes: bytes}
	if ch != nil {
		w.Strategy, w.Force, w.Tenant, w.Whose = ch.strategy, ch.force, ch.tenant, ch.tenant
		w.Names, w.Grants, w.MaxVictims = ch.names, ch.grants, ch.most
	}
	return w
}

// evict begins to release a copy for an order.
func (p *poolActor) evict(cp *catalog.Copy, o roomOrder, why string) bool {
	if o.choice != nil && o.choice.force {
		return p.core.EvictByForce(cp, o.choice.deadline, why, p.house.now())
	}
	return p.core.Evict(cp, why, p.house.now())
}

// measured are a device's figures at one moment.
type measured struct {
	info    schemas.MemoryInfo
	figures ledger.Figures
	idle    int64               // bytes that a trim would give back
	reach   int64               // bytes to release until the wanted level
	tidy    ledger.Defragmented // what a defragmentation would do
	tidying bool                // one is under way
}

// need is how many bytes models must still give up, after so many were freed.
func (g *goals) need(m *measured, freed int64) int64 {
	need := m.reach
	if g.usage != nil {
		need = max(need, m.figures.Used-share(*g.usage, m.figures.Limit))
	}
	need -= m.figures.Revoking // on its way back already
	return max(need, g.free-freed, 0)
}

// share is a part of a limit in percent, in whole bytes.
func share(percent float64, limit int64) int64 { return int64(percent / 100 * float64(limit)) }

// bytes is how much idle memory a trim gives back.
func (t trimming) bytes(g *goals, m *measured) int64 {
	switch t {
	case trimAll:
		return m.idle
	case trimExcess:
		if g.usage != nil {
			return min(m.idle, max(0, m.figures.Used+m.idle-share(*g.usage, m.figures.Limit)))
		}
	}
	return 0
}

// maxErrands bounds how many optimizations of one device wait; more are refused with BUSY.
const maxErrands = 64

// start takes an errand. It may be called from any goroutine.
func (o *optimizerActor) start(e *errand) {
	e.id = uuid.NewString()
	o.tell(seam.SystemLane, func() {
		e.begun = o.house.cfg.Clock.Now()
		if len(o.errands) >= maxErrands {
			e.over, e.cancelled = true, busy("the optimizer of "+o.device.id)
			e.done(e)
			return
		}
		o.errands = append(o.errands, e)
		if !e.dry {
			e.timer = o.house.cfg.Clock.AfterFunc(e.patience, func() {
				o.tell(seam.SystemLane, func() {
					e.late = true
					o.close(e)
				})
			})
		}
		o.next()
	})
}

// giveUpFor ends a command's errands before they are done; what is on its way back stays so.
func (o *optimizerActor) giveUpFor(requestID, owner string, err *schemas.Error) {
	o.tell(seam.SystemLane, func() {
		for _, e := range append([]*errand(nil), o.errands...) {
			if e.requestID == requestID && e.owner == owner {
				e.cancelled = err
				o.close(e)
			}
		}
	})
}

// measure gives a device's figures of now to use, on the optimizer's goroutine. Of the
// errand it reads what never changes: what is asked for.
func (o *optimizerActor) measure(e *errand, use func(*measured)) {
	d, g := o.device, &e.goals
	d.tell(seam.SystemLane, func() {
		m := &measured{info: d.memoryInfo(), figures: d.core.Figures(), idle: d.core.Trimmable()}
		if e.tidy {
			m.tidy, m.tidying = d.core.PlanDefragment(d.tidyRequest(e)), d.core.Defragmenting()
		}
		back := func(bytes int64) {
			m.reach = bytes
			o.tell(seam.SystemLane, func() { use(m) })
		}
		if g.level == nil {
			back(0)
			return
		}
		o.house.monitor.toReach(d, *g.level, back)
	})
}

// advance looks where an errand stands and begins its next stage.
func (o *optimizerActor) advance(e *errand) {
	p := &plan{id: e.id, why: e.why, begun: o.house.cfg.Clock.Now(), errand: e}
	o.plan = p
	first := e.before.DeviceID == ""
	o.measure(e, func(m *measured) {
		need := e.goals.need(m, e.freed)
		if first {
			e.before, e.target, e.toTrim, e.toTidy = m.info, need, e.trim.bytes(&e.goals, m), m.tidy
		}
		if e.over {
			o.ended(p)
			return
		}
		e.busy = m.tidying
		e.after, e.missing = m.info, need
		switch idle := e.trim.bytes(&e.goals, m); {
		case idle > 0 && !e.trimmed && !e.dry:
			o.trimIdle(p, idle)
		case need > 0 && e.models && e.most != 0 && !e.stuck:
			o.releaseModels(p, need)
		case e.tidy && !e.tidied && !e.dry:
			o.tidyUp(p)
		default:
			o.settle(e)
			o.ended(p)
		}
	})
}

// trimIdle is the stage that gives idle memory back.
func (o *optimizerActor) trimIdle(p *plan, bytes int64) {
	e := p.errand
	e.trimmed = true
	o.tellStarted(e)
	o.device.trim(bytes, func(freed int64) {
		o.tell(seam.SystemLane, func() {
			if !e.over {
				e.freed += freed
				e.steps = append(e.steps, schemas.OptimizationStep{Kind: "trim", Subject: o.device.id, Reason: "idle memory is given back",
					FreedBytes: freed, DurationMs: millis(o.house.cfg.Clock.Now().Sub(p.begun))})
			}
			o.ended(p)
		})
	})
}

// releaseModels is the stage that has models released.
func (o *optimizerActor) releaseModels(p *plan, need int64) {
	e := p.errand
	ch := e.choice
	ch.most = max(0, e.most)
	if left := e.begun.Add(e.patience).Sub(p.begun); ch.deadline > left {
		ch.deadline = max(time.Millisecond, left)
	}
	p.target = need
	o.order(p, roomOrder{bytes: need, why: e.why, choice: &ch, dry: e.dry})
}

// ordered takes the pool's choice for an errand's plan.
func (o *optimizerActor) ordered(p *plan, vs []victim) {
	e := p.errand
	e.stuck = e.dry || len(vs) == 0
	if len(vs) == 0 || e.over {
		return
	}
	for i, v := range vs {
		e.victims = append(e.victims, errandVictim{victim: v, step: len(e.steps) + i})
	}
	e.evicted, e.steps = append(e.evicted, p.evicted...), append(e.steps, p.steps...)
	if e.most > 0 {
		e.most -= len(vs)
	}
	if e.dry {
		p.left, e.missing = 0, p.shortfall
		return
	}
	for i := range p.steps {
		e.steps[len(e.steps)-1-i].FreedBytes = 0 // until it is confirmed
	}
	o.tellStarted(e)
	o.house.log.Info("models are released for a client", "device", o.device.id, "request_id", e.requestID, "bytes", p.target, "models", len(vs))
}

// victimGone is the device's word on one of an errand's victims; freed is what is off the
// device: nothing, where somebody still pins it.
func (e *errand) victimGone(grant uuid.UUID, freed int64, took time.Duration) {
	for i := range e.victims {
		if v := &e.victims[i]; v.grant == grant && !v.gone {
			v.gone = freed > 0
			if e.over {
				return // it was answered, and its steps are the client's
			}
			e.freed += freed
			s := &e.steps[v.step]
			s.FreedBytes, s.DurationMs = freed, millis(took)
			if freed == 0 {
				s.Reason += "; it is still held"
			}
			return
		}
	}
}

// close answers an errand now, whatever is still on its way.
func (o *optimizerActor) close(e *errand) {
	if e.over {
		return
	}
	e.over = true
	if e.stop != nil {
		e.stop()
	}
	for i, x := range o.errands {
		if x == e {
			o.errands = append(o.errands[:i], o.errands[i+1:]...)
			break
		}
	}
	o.measure(e, func(m *measured) {
		if e.before.DeviceID == "" {
			e.before = m.info
		}
		e.after, e.missing = m.info, e.goals.need(m, e.freed)
		o.conclude(e)
	})
}

// settle answers an errand whose figures have just been taken.
func (o *optimizerActor) settle(e *errand) {
	e.over = true
	o.errands = o.errands[1:]
	o.conclude(e)
}

func (o *optimizerActor) conclude(e *errand) {
	if e.timer != nil {
		e.timer.Stop()
	}
	if e.told {
		o.announceErrand(schemas.EventCompleted, e)
	}
	e.done(e)
}

// tellStarted publishes, once, that an errand does something.
func (o *optimizerActor) tellStarted(e *errand) {
	if !e.told {
		e.told = true
		o.announceErrand(schemas.EventStarted, e)
	}
}

func (o *optimizerActor) announceErrand(kind schemas.EventKind, e *errand) {
	ev := &schemas.OptimizationEvent{OptimizationID: e.id, DeviceID: o.device.id, Cause: schemas.CauseOfCommand, Reason: e.why, RequestID: e.requestID,
		TargetBytes: e.target + e.toTrim + e.toTidy.Released, Evicted: append([]schemas.Eviction{}, e.evicted...)}
	if e.models {
		ev.Strategy = schemas.EvictionStrategy(e.choice.strategy)
	}
	if kind == schemas.EventCompleted {
		ev.Steps = append([]schemas.OptimizationStep{}, e.steps...)
		ev.FreedBytes, ev.ShortfallBytes, ev.DurationMs = e.freed, e.missing, millis(o.house.cfg.Clock.Now().Sub(e.begun))
	}
	o.house.publish(schemas.Event{Event: kind, Subject: schemas.OptimizationSubject(o.house.cfg.Node, o.device.id), Data: ev})
}

// unloaded names the models of an errand whose bytes are off the device, and what loading
// them again would take.
func (e *errand) unloaded() (names []string, cost time.Duration) {
	for i := range e.victims {
		if v := &e.victims[i]; v.gone || e.dry {
			names = append(names, v.model)
			cost += v.cost
		}
	}
	return names, cost
}

// pending counts the models that an errand ordered to go and that are not gone.
func (e *errand) pending() (n int) {
	for i := range e.victims {
		if !e.victims[i].gone {
			n++
		}
	}
	return n
}

// outcome says in words what came of an errand, or would.
func (e *errand) outcome() string {
	names, _ := e.unloaded()
	s := fmt.Sprintf("%d models released, %d bytes freed", len(names), e.freed)
	if e.dry {
		var bytes int64
		for _, v := range e.victims {
			bytes += v.bytes
		}
		s = fmt.Sprintf("%d models would be released for %d bytes", len(names), bytes)
		if e.toTrim > 0 {
			s += fmt.Sprintf(", %d idle bytes given back", e.toTrim)
		}
		if t := e.toTidy; t.Segments > 0 {
			s += ", " + foreseenTidy(t)
		}
	}
	if e.target == 0 && e.toTrim == 0 && e.toTidy.Segments == 0 {
		s = "every target holds already"
	}
	if n := e.pending(); n > 0 && !e.dry {
		s += fmt.Sprintf("; %d models are still held or on their way", n)
	}
	if e.late {
		s += "; the time is over"
	}
	if e.missing > 0 {
		s += fmt.Sprintf("; %d bytes are missing: what is left is pinned, excluded, read, or not a model", e.missing)
	}
	return s
}
