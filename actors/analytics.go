package actors

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/history"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// analyticsActor owns the history. It looks once a second at where devices leave their
// figures anyway, so that no command waits for it or sends it anything. It has no part in
// the ledger: after a defect it goes on with an empty history.
type analyticsActor struct {
	inbox
	house *House
	past  *history.History
}

func newAnalytics(h *House) *analyticsActor {
	a := &analyticsActor{house: h}
	a.Restart()
	return a
}

// Restart implements seam.Restarter.
func (a *analyticsActor) Restart() {
	a.past = history.New(history.Config{Devices: len(a.house.cfg.Devices) + 1})
}

// wholeNode is the series of what concerns no one device.
const wholeNode = ""

// durations gathers what took time on a device until analytics takes it.
type durations struct {
	mu                 sync.Mutex
	grants, queued, ld history.Histogram
}

func (d *durations) grant(took, queued time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.grants.Observe(took)
	if queued > 0 {
		d.queued.Observe(queued)
	}
}

func (d *durations) load(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ld.Observe(took)
}

// drain gives what has been gathered and begins anew.
func (d *durations) drain() (grants, queued, loads history.Histogram) {
	d.mu.Lock()
	defer d.mu.Unlock()
	grants, queued, loads = d.grants, d.queued, d.ld
	d.grants, d.queued, d.ld = history.Histogram{}, history.Histogram{}, history.Histogram{}
	return grants, queued, loads
}

// drain gives a device's newest figures and the most it used since the last time.
func (s *gaugeSlot) drain() (gauge, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	peak := s.peak
	s.peak = s.newest.figures.Used
	return s.newest, peak
}

// begin looks once a second from now on, and no oftener than it gets round to.
func (a *analyticsActor) begin() {
	a.house.cfg.Clock.AfterFunc(history.Fine, func() {
		a.tell(seam.SystemLane, func() {
			a.begin() // first: a defect in look costs one look
			a.look()
		})
	})
}

// look takes what every device has left since the last time.
func (a *analyticsActor) look() {
	now := a.house.cfg.Clock.Now()
	for _, d := range a.house.devices {
		g, peak := d.gauges.drain()
		if g.device == nil {
			continue // it has not begun
		}
		a.past.Add(d.id, history.Point{At: now, Used: g.figures.Used, Available: g.figures.Available, Peak: peak, Level: uint8(levelOf(d.beat.Load().PressureLevel))},
			history.Counters{Grants: g.stats.Grants, Releases: g.stats.Releases, Refusals: g.stats.Refusals, Evictions: g.stats.Evictions})
		grants, queued, loads := d.took.drain()
		a.past.Took(d.id, history.Grant, &grants, now)
		a.past.Took(d.id, history.Queue, &queued, now)
		a.past.Took(d.id, history.Load, &loads, now)
	}
	p := a.house.pool
	a.past.Add(wholeNode, history.Point{At: now}, history.Counters{Hits: p.hits.Load(), Loads: p.loads.Load()})
}

// The bounds of one answer: how many points it has at most, and how many each device has
// where the client named no resolution.
const (
	maxPoints    = 3600
	pointsWanted = 300
	maxHolders   = 10
)

// answer answers analytics: what happened from the history, who holds and who may leak
// from the devices.
func (a *analyticsActor) answer(c *call, in *schemas.AnalyticsRequest) {
	ds, err := a.house.some(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	window := time.Hour
	if in.WindowSeconds != nil {
		window = time.Duration(*in.WindowSeconds) * time.Second
	}
	told := a.offer(seam.QueryLane, c, func() {
		a.look()
		r, err := a.report(ds, window, in.ResolutionSeconds)
		if err != nil {
			c.fail(err)
			return
		}
		a.house.holdings(ds, c.scope(), func(parts []holding, err *schemas.Error) {
			if err != nil {
				c.fail(err)
				return
			}
			var all []history.Held
			sums := map[string]int64{}
			for _, p := range parts {
				all = append(all, p.held...)
				for _, h := range p.top {
					sums[h.Owner] += h.Bytes
				}
			}
			r.TopHolders = ranked(sums)
			for _, s := range history.Suspects(all, a.house.cfg.Clock.Wall(), window) {
				r.LeakSuspects = append(r.LeakSuspects, schemas.LeakSuspect{Owner: s.Owner, Bytes: s.Bytes, GrowthBytesPerHour: s.GrowthBytesPerHour,
					OldestUnusedSeconds: s.OldestUnused.Seconds(), Reason: s.Reason})
			}
			c.done(r, nil)
		})
	})
	if told != nil {
		c.fail(busy("analytics"))
	}
}

// report tells the history of some devices over a window.
func (a *analyticsActor) report(ds []*deviceActor, window time.Duration, resolution *int64) (*schemas.AnalyticsReply, *schemas.Error) {
	now := a.house.cfg.Clock.Now()
	since := now - clock.Instant(min(window, time.Duration(now)))
	step := max(history.Fine, (window / pointsWanted).Round(time.Second))
	for _, d := range ds {
		step = max(step, a.past.Resolution(d.id, since))
	}
	if resolution != nil {
		step = time.Duration(*resolution) * time.Second
	}
	r := &schemas.AnalyticsReply{Series: []schemas.SeriesPoint{}, Peaks: []schemas.Peak{}, TopHolders: []schemas.Holder{}, LeakSuspects: []schemas.LeakSuspect{}}
	var grown history.Counters
	var grants, queued, loads history.Histogram
	var span time.Duration
	for _, d := range ds {
		points := a.past.Series(d.id, since, step)
		if len(r.Series)+len(points) > maxPoints {
			return nil, schemas.Errorf(schemas.CodeInvalidRequest, "more than %d points: ask for a resolution of at least %d s, or for one device",
				maxPoints, (int64(window/time.Second)*int64(len(ds))+maxPoints-1)/maxPoints).With("field", "resolution_seconds")
		}
		peak := schemas.Peak{DeviceID: d.id}
		for i, p := range points {
			at := a.house.wallAt(p.At)
			r.Series = append(r.Series, schemas.SeriesPoint{DeviceID: d.id, Timestamp: at, UsedMemory: p.Used, AvailableMemory: p.Available,
				PressureLevel: levels[p.Level]})
			if p.Peak > peak.UsedMemory || i == 0 {
				peak.UsedMemory, peak.Timestamp = p.Peak, at
			}
			grown = grown.Plus(p.Grown)
		}
		if len(points) > 0 {
			r.Peaks = append(r.Peaks, peak)
			span = max(span, min(window, now.Sub(points[0].At)+step))
		}
		for k, sum := range map[history.Kind]*history.Histogram{history.Grant: &grants, history.Queue: &queued, history.Load: &loads} {
			h := a.past.Durations(d.id, k, since, now)
			sum.Merge(&h)
		}
	}
	if s := span.Seconds(); s > 0 {
		r.Rates = schemas.Rates{GrantsPerSecond: float64(grown.Grants) / s, ReleasesPerSecond: float64(grown.Releases) / s,
			RefusalsPerSecond: float64(grown.Refusals) / s, EvictionsPerSecond: float64(grown.Evictions) / s}
	}
	r.Percentiles = schemas.DurationPercentiles{Grant: percentiles(&grants), Queue: percentiles(&queued), Load: percentiles(&loads)}
	var whole history.Counters
	for _, p := range a.past.Series(wholeNode, since, step) {
		whole = whole.Plus(p.Grown)
	}
	if whole.Loads > 0 {
		r.ModelHitRate = float64(whole.Hits) / float64(whole.Loads)
	}
	return r, nil
}

var levels = []schemas.PressureLevel{schemas.PressureLow, schemas.PressureModerate, schemas.PressureHigh, schemas.PressureCritical}

func percentiles(h *history.Histogram) schemas.Percentiles {
	return schemas.Percentiles{Count: h.Count, P50Ms: millis(h.Percentile(50)), P90Ms: millis(h.Percentile(90)), P99Ms: millis(h.Percentile(99)), MaxMs: millis(h.Max)}
}

// holding is who holds a device's bytes, and what may leak of them.
type holding struct {
	top  []ledger.Holding
	held []history.Held
}

// holdings gives what a tenant ("": anybody) holds on some devices to use.
func (h *House) holdings(ds []*deviceActor, tenant string, use func([]holding, *schemas.Error)) {
	ask(h, ds, func(d *deviceActor) (out holding) {
		if out.top = d.core.Holders(maxHolders); tenant != "" {
			out.top = d.core.HoldersFor(tenant, maxHolders)
		}
		d.core.Grants(func(g *ledger.Grant) {
			if tenant == "" || g.Owner.Tenant == tenant {
				out.held = append(out.held, held(g))
			}
		})
		return out
	}, use)
}

// held is a grant as the rule for leaks sees it. Models have their own readers and rules.
func held(g *ledger.Grant) history.Held {
	return history.Held{Owner: g.Holder(), Bytes: g.Granted, Created: g.Created, LastUsed: g.LastUsed, Mapped: g.Live(),
		Kept: g.Persistent || g.LeaseEnds != 0 || g.Class == ledger.ClassReservation || g.Class == ledger.ClassWeights || g.Status != ledger.StatusActive}
}

// ranked lists who holds the most, greatest first.
func ranked(sums map[string]int64) []schemas.Holder {
	out := make([]schemas.Holder, 0, len(sums))
	for owner, bytes := range sums {
		out = append(out, schemas.Holder{Owner: owner, Bytes: bytes})
	}
	slices.SortFunc(out, func(a, b schemas.Holder) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Owner, b.Owner))
	})
	return out[:min(maxHolders, len(out))]
}
