package pressure

import (
	"math"

	"github.com/isobar-project/isobar/clock"
)

// Figures are the bytes of one device or quota at one moment. The terms are
// those of the design's identity of bytes.
type Figures struct {
	Limit            int64 // the limit in force
	Used             int64 // granted + reserved + revoking + zombie + foreign
	Available        int64 // what a request can get by making room
	Reserved         int64
	Foreign          int64
	Zombie           int64
	Reclaimable      int64 // held by unread models; part of Used
	Models           int64 // held by all models; part of Used
	Deficit          int64 // demand that fits the limit but found no room
	LargestGrantable int64
	UnloadInFlight   bool // models are being unloaded: bytes are revoking
	Stale            bool // the outside figures are older than they should be
	// Sampled is when Foreign was last looked at; 0: never. A later instant than before is
	// a new sample, whatever it shows.
	Sampled clock.Instant
	// Stall is the level that the kernel's own signals call for, whatever the share.
	Stall Level
}

// Change is one event to publish: a change of level or, with Reminder set, the
// repetition of the last one.
type Change struct {
	From, To Level
	Cause    Cause
	At       clock.Instant
	// Episode counts up each time that low is left.
	Episode uint64
	// Target is how many bytes to release to leave the level To; see State.
	Target int64
	// Reminder is true for a repetition: From and To are then the same, Cause is
	// that of the last change, and ReminderSequence counts from 1 since it.
	Reminder         bool
	ReminderSequence uint64
}

// Quality says how far the figures can be trusted.
type Quality string

// The contract's spellings.
const (
	Fresh Quality = "fresh"
	Stale Quality = "stale"
)

// State is everything that is known at the latest step.
type State struct {
	Level    Level
	Previous Level // the level before the last change
	Cause    Cause // of the last change
	Since    clock.Instant
	Episode  uint64
	Figures  Figures
	At       clock.Instant // of the figures
	// Target is how many bytes to release so that the level can be left: down to
	// under its leave threshold, and no less than the deficit. Zero at low.
	Target int64
	// Stalled is true when nothing but the kernel's signals asks for Target.
	Stalled bool
	// Utilization and ModelUtilization are shares of the limit; they pass 1 when
	// it was lowered under what is in use.
	Utilization, ModelUtilization float64
	// TrendBytesPerSecond is the estimated growth of used bytes, negative when
	// they shrink.
	TrendBytesPerSecond float64
	// ExhaustionSeconds until the limit is reached at this trend; valid if Filling.
	ExhaustionSeconds float64
	Filling           bool
	Quality           Quality
}

// Evaluator holds the level of one device or quota.
type Evaluator struct {
	cfg      Config
	trend    Trend
	forecast Forecaster
	growth   float64 // what the forecast said after the latest sample

	figures  Figures
	at       clock.Instant
	level    Level
	previous Level
	cause    Cause
	since    clock.Instant
	episode  uint64

	under      bool          // the share is under the level's leave threshold,
	underSince clock.Instant // and has been since then, or is to be from then on, without interruption

	foreseen      Level         // what the growth of others will call for,
	foreseenUntil clock.Instant // as far as is known until then

	reminding  bool // critical with a deficit
	remindAt   clock.Instant
	remindedAs uint64
}

// New makes an Evaluator at low that has seen no figures.
func New(cfg Config, now clock.Instant) (*Evaluator, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Evaluator{cfg: cfg, forecast: cfg.NewForecaster(), at: now, since: now}, nil
}

// Step takes new figures and reports the change that they, or the time, bring.
// Cause is named by the change if the figures raise the level.
func (e *Evaluator) Step(f Figures, cause Cause, now clock.Instant) (Change, bool) {
	if f.Sampled > e.figures.Sampled && !f.Stale {
		e.forecast.Observe(f.Foreign, f.Sampled)
		e.growth = e.forecast.Growth()
	}
	e.figures, e.at = f, now
	e.trend.Observe(f.Used, now)
	return e.evaluate(cause, now)
}

// Tick lets time pass. Calling it before Next is harmless.
func (e *Evaluator) Tick(now clock.Instant) (Change, bool) {
	e.trend.Observe(e.figures.Used, now)
	return e.evaluate(CauseDwell, now)
}

// Configure judges the latest figures by other rules from now on. An unsound
// configuration is refused and changes nothing. The forecaster is kept.
func (e *Evaluator) Configure(cfg Config, now clock.Instant) (Change, bool, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return Change{}, false, err
	}
	e.cfg = cfg
	c, ok := e.evaluate(CauseLimitChange, now)
	return c, ok, nil
}

// Config returns the rules in force.
func (e *Evaluator) Config() Config { return e.cfg }

// Level returns the level.
func (e *Evaluator) Level() Level { return e.level }

// Next returns when Tick is due, if nothing else happens before.
func (e *Evaluator) Next() (clock.Instant, bool) {
	at, ok := e.fallDue()
	if e.reminding && (!ok || e.remindAt < at) {
		return e.remindAt, true
	}
	return at, ok
}

func (e *Evaluator) evaluate(cause Cause, now clock.Instant) (Change, bool) {
	share := e.share()
	to := e.entered(share)
	e.foresee(to, now)
	switch {
	case e.figures.Stall > max(to, e.level) && e.figures.Stall >= e.foreseen:
		return e.move(e.figures.Stall, CauseStall, share, now), true
	case e.foreseen > max(to, e.level):
		return e.move(e.foreseen, CauseForecast, share, now), true
	case to > e.level:
		return e.move(to, cause, share, now), true
	}
	e.watch(share, now)
	if due, ok := e.fallDue(); ok && now >= due {
		return e.move(e.level-1, CauseDwell, share, now), true
	}
	return e.remind(now)
}

// entered is the highest level that the figures call for at once.
func (e *Evaluator) entered(share float64) Level {
	t := &e.cfg.Thresholds
	switch {
	case share >= t.Critical.Enter:
		return Critical
	case share >= t.High.Enter || e.figures.Deficit > 0:
		return High
	case share >= t.Moderate.Enter:
		return Moderate
	}
	return Low
}

// foresee notes whether the growth of others is about to call for one level more than the
// figures do, up to high: there room is made. Critical is not foreseen, since a sample
// comes before the device is full, and a false one would cry wolf.
func (e *Evaluator) foresee(to Level, now clock.Instant) {
	e.foreseen = Low
	f := &e.figures
	if e.growth <= 0 || f.Stale || to >= High || f.Limit <= 0 {
		return
	}
	until := f.Sampled.Add(e.cfg.Horizon)
	if now >= until {
		return
	}
	ahead := float64(e.counted()) + e.growth*seconds(e.cfg.Horizon)
	if ahead/float64(f.Limit) < e.cfg.Thresholds.of(to+1).Enter {
		return
	}
	e.foreseen, e.foreseenUntil = to+1, until
}

// watch notes whether the level could be left, and since when.
func (e *Evaluator) watch(share float64, now clock.Instant) {
	under := e.level != Low && e.figures.Stall < e.level && share < e.threshold().Leave && (e.level == Critical || e.figures.Deficit <= 0)
	if under && (!e.under || e.underSince > now) {
		e.underSince = now
	}
	if under && e.foreseen >= e.level {
		e.underSince = e.foreseenUntil // unless a sample says before that it goes on, or has ended
	}
	e.under = under
}

// fallDue is when the level falls if the figures stay as they are.
func (e *Evaluator) fallDue() (clock.Instant, bool) {
	if !e.under {
		return 0, false
	}
	dwell := e.cfg.Dwell
	if e.level == Critical {
		dwell = e.cfg.DwellCritical
	}
	if e.figures.UnloadInFlight {
		dwell += e.cfg.UnloadHold
	}
	return e.underSince.Add(dwell), true
}

// move changes the level and begins the watch over the new one.
func (e *Evaluator) move(to Level, cause Cause, share float64, now clock.Instant) Change {
	if e.level == Low {
		e.episode++
	}
	e.previous, e.level, e.cause, e.since = e.level, to, cause, now
	e.under = false
	e.watch(share, now)
	e.reminding = to == Critical && e.figures.Deficit > 0
	e.remindAt, e.remindedAs = now.Add(e.cfg.Reminder), 0
	return Change{From: e.previous, To: to, Cause: cause, At: now, Episode: e.episode, Target: e.target()}
}

// remind repeats the last change while critical with a deficit.
func (e *Evaluator) remind(now clock.Instant) (Change, bool) {
	needed := e.level == Critical && e.figures.Deficit > 0
	switch {
	case !needed:
		e.reminding = false
		return Change{}, false
	case !e.reminding:
		e.reminding, e.remindAt = true, now.Add(e.cfg.Reminder)
		return Change{}, false
	case now < e.remindAt:
		return Change{}, false
	}
	e.remindedAs++
	e.remindAt = now.Add(e.cfg.Reminder) // from now: who is late gets no burst
	return Change{
		From: e.level, To: e.level, Cause: e.cause, At: now, Episode: e.episode, Target: e.target(),
		Reminder: true, ReminderSequence: e.remindedAs,
	}, true
}

// threshold is that of the present level, which must not be low.
func (e *Evaluator) threshold() *Threshold { return e.cfg.Thresholds.of(e.level) }

// counted is the bytes that count towards the level.
func (e *Evaluator) counted() int64 {
	if e.cfg.Basis == BasisUnreclaimable {
		return max(0, e.figures.Used-e.figures.Reclaimable)
	}
	return e.figures.Used
}

func (e *Evaluator) share() float64 { return shareOf(e.counted(), e.figures.Limit) }

// shareOf is bytes over limit. A limit of nothing is full with anything in it.
func shareOf(bytes, limit int64) float64 {
	switch {
	case bytes <= 0:
		return 0
	case limit <= 0:
		return 1
	}
	return float64(bytes) / float64(limit)
}

func (e *Evaluator) target() int64 {
	return max(e.needed(), e.stalled())
}

// needed is what to release so that the share and the deficit allow to leave the level.
func (e *Evaluator) needed() int64 {
	if e.level == Low {
		return 0
	}
	// The most that may stay: the share must be under the threshold, not at it.
	limit, counted := float64(max(0, e.figures.Limit)), e.counted()
	stay := int64(math.Ceil(e.threshold().Leave*limit)) - 1
	if e.foreseen >= e.level {
		// Room is made for what is about to come, as if the threshold were reached.
		counted = max(counted, int64(e.threshold().Enter*limit))
	}
	return max(counted-max(0, stay), e.figures.Deficit, 0)
}

// stalled is what to release while the kernel says that memory is tight although the share
// does not: a twentieth of the limit, again and again until it is silent.
func (e *Evaluator) stalled() int64 {
	if e.figures.Stall < High {
		return 0
	}
	return min(e.figures.Reclaimable, max(1, e.figures.Limit/20))
}

// State returns what is known, as of the latest step.
func (e *Evaluator) State() State {
	s := State{
		Level: e.level, Previous: e.previous, Cause: e.cause, Since: e.since, Episode: e.episode,
		Figures: e.figures, At: e.at, Target: e.target(), Stalled: e.stalled() > e.needed(),
		Utilization:      shareOf(e.figures.Used, e.figures.Limit),
		ModelUtilization: shareOf(e.figures.Models, e.figures.Limit),
		Quality:          Fresh,
	}
	if e.figures.Stale {
		s.Quality = Stale
	}
	if rate, ok := e.trend.Rate(); ok {
		s.TrendBytesPerSecond = rate
		if left := e.figures.Limit - e.figures.Used; rate > 0 && left > 0 {
			s.Filling, s.ExhaustionSeconds = true, float64(left)/rate
		}
	}
	return s
}
