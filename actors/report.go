package actors

import (
	"cmp"
	"slices"
	"time"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/history"
	"github.com/isobar-project/isobar/schemas"
)

// The bounds of one answer: how many points it has at most, how many each device has
// where the client named no resolution, and how many times without a node.
const (
	maxPoints    = 3600
	pointsWanted = 300
	maxHolders   = 10
	maxGaps      = 100
)

// answer answers analytics: what happened from the history, who holds and who may leak
// from the devices, and what more memory would save from a replay of what was asked for.
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
		then := func() { a.holders(c, ds, window, r) }
		if c.scope() != "" {
			then()
			return
		}
		a.foresee(ds, func(found []*foresight) {
			for _, f := range found {
				r.ModelRequests = append(r.ModelRequests, f.requests...)
				r.WhatIf = append(r.WhatIf, f.rows...)
			}
			then()
		})
	})
	if told != nil {
		c.fail(busy("analytics"))
	}
}

// holders adds who holds and who may leak, and answers.
func (a *analyticsActor) holders(c *call, ds []*deviceActor, window time.Duration, r *schemas.AnalyticsReply) {
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
			r.LeakSuspects = append(r.LeakSuspects, schemas.LeakSuspect{Owner: s.Owner, Kind: schemas.LeakKind(s.Kind), Bytes: s.Bytes, Allocations: s.Grants,
				GrowthBytesPerHour: s.GrowthBytesPerHour, OldestUnusedSeconds: s.OldestUnused.Seconds(), AgeSeconds: s.Age.Seconds(),
				Reason: s.Reason, Fix: s.Fix, AllocationIDs: s.IDs})
		}
		c.done(r, nil)
	})
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
	r := &schemas.AnalyticsReply{Series: []schemas.SeriesPoint{}, Peaks: []schemas.Peak{}, TopHolders: []schemas.Holder{}, LeakSuspects: []schemas.LeakSuspect{},
		Gaps: []schemas.HistoryGap{}, ModelRequests: []schemas.ModelRequests{}, WhatIf: []schemas.WhatIf{}}
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
		var seen time.Duration
		for i, p := range points {
			at := a.house.wallAt(p.At)
			r.Series = append(r.Series, schemas.SeriesPoint{DeviceID: d.id, Timestamp: at, UsedMemory: p.Used, AvailableMemory: p.Available,
				PressureLevel: levels[p.Level]})
			if p.Peak > peak.UsedMemory || i == 0 {
				peak.UsedMemory, peak.Timestamp = p.Peak, at
			}
			grown = grown.Plus(p.Grown)
			seen += p.Seen
		}
		if len(points) > 0 {
			r.Peaks = append(r.Peaks, peak)
			span = max(span, seen)
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
	gaps := a.past.Gaps(wholeNode, since)
	for _, g := range gaps[max(0, len(gaps)-maxGaps):] {
		r.Gaps = append(r.Gaps, schemas.HistoryGap{From: a.house.wallAt(g.From), To: a.house.wallAt(g.To)})
	}
	return r, nil
}

var levels = []schemas.PressureLevel{schemas.PressureLow, schemas.PressureModerate, schemas.PressureHigh, schemas.PressureCritical}

func percentiles(h *history.Histogram) schemas.Percentiles {
	return schemas.Percentiles{Count: h.Count, P50Ms: millis(h.Percentile(50)), P90Ms: millis(h.Percentile(90)), P99Ms: millis(h.Percentile(99)), MaxMs: millis(h.Max)}
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
