package actors

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/history"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// The kinds of recommendations.
const (
	recUnload   = "unload_idle_model"
	recTrim     = "trim_pool"
	recRaise    = "raise_limit"
	recLower    = "lower_limit"
	recZombie   = "release_zombie"
	recPin      = "set_pinned"
	recUnpin    = "set_unpinned"
	recLeak     = "leak_suspect"
	recDefrag   = "defragment"
	maxLeakRecs = 10 // of one device, the largest
)

// aboutModels reports whether a recommendation belongs in the models' account.
func aboutModels(kind string) bool { return kind == recUnload || kind == recPin || kind == recUnpin }

// When something is recommended.
const (
	idleModel    = 10 * time.Minute // a model that nobody read for so long
	pinnedIdle   = time.Hour        // a pin that served nobody for so long
	oftenLoaded  = 3                // loads of a model, from which a pin saves the next
	trimShare    = 20               // idle memory of a twentieth of the limit
	fragmentedBy = 50.0             // percent
	lowPeak      = 25.0             // percent of the limit in use at most, for lowAge
	lowAge       = time.Hour
	limitRounded = 64 << 20
	worthSeconds = 1.0 // of loading saved by a higher limit, and
	worthShare   = 0.1 // of all that was spent
)

// advice is what one device's part of the recommendations is made of.
type advice struct {
	device  *deviceActor
	figures ledger.Figures
	idle    int64
	ceiling int64 // the most the limit could be set to
	recs    []schemas.Recommendation
	leaks   holding // of the tenant that asks
}

// recommendations answers optimization_recs.
func (h *House) recommendations(c *call, in *schemas.OptimizationRecsRequest) {
	ds, err := h.some(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	recommend := func() {
		h.recommend(ds, c, func(recs []schemas.Recommendation, err *schemas.Error) {
			if err != nil {
				c.fail(err)
				return
			}
			c.done(&schemas.OptimizationRecsReply{Recommendations: recs}, nil)
		})
	}
	if !c.may(schemas.ActionSetLimits) {
		recommend()
		return
	}
	a := h.analytics
	a.tell(seam.SystemLane, func() {
		a.look()
		a.foresee(ds, func([]*foresight) { recommend() })
	})
}

// recommend gives use what could be done on some devices, what yields most first. A tenant
// is told of its own grants and models, and of nothing that only an operator could do.
func (h *House) recommend(ds []*deviceActor, c *call, use func([]schemas.Recommendation, *schemas.Error)) {
	ask(h, ds, func(d *deviceActor) advice { return d.advise(c.Tenant) }, func(parts []advice, err *schemas.Error) {
		if err != nil {
			use(nil, err)
			return
		}
		h.sessions.tell(seam.SystemLane, func() {
			for i := range parts {
				h.sessions.findGone(&parts[i].leaks)
				parts[i].adviseLeaks(h.cfg.Clock.Wall())
			}
			h.analytics.tell(seam.SystemLane, func() {
				for i := range parts {
					h.analytics.adviseLimit(&parts[i])
				}
				h.pool.tell(seam.SystemLane, func() { use(h.pool.adviseAll(parts, c), nil) })
			})
		})
	})
}

// adviseAll adds what the pool knows, and puts everything in order.
func (p *poolActor) adviseAll(parts []advice, c *call) []schemas.Recommendation {
	recs := []schemas.Recommendation{}
	for i := range parts {
		p.advise(&parts[i], c.Tenant)
		recs = append(recs, parts[i].recs...)
	}
	recs = slices.DeleteFunc(recs, func(r schemas.Recommendation) bool { return !c.may(r.Command.Action) })
	slices.SortStableFunc(recs, func(a, b schemas.Recommendation) int { return cmp.Compare(b.ExpectedBytes, a.ExpectedBytes) })
	return recs
}

func (a *advice) add(kind, reason string, bytes int64, cost time.Duration, action schemas.Action, data map[string]any) {
	a.recs = append(a.recs, schemas.Recommendation{Kind: kind, Reason: reason, ExpectedBytes: bytes, ExpectedCostMs: millis(cost),
		Command: schemas.RecommendedCommand{Action: action, Data: data}})
}

// advise recommends what the device itself knows of.
func (d *deviceActor) advise(tenant string) advice {
	f := d.core.Figures()
	a := advice{device: d, figures: f, idle: d.core.Trimmable()}
	_, _, reserve := d.core.Limits()
	a.ceiling = f.Physical - max(reserve, d.cfg.Reserve)
	if a.idle > 0 && a.idle >= f.Limit/trimShare {
		a.add(recTrim, fmt.Sprintf("%d bytes are kept warm and idle", a.idle), a.idle, 0, schemas.ActionOptimize,
			map[string]any{"device_id": d.id, "optimization_type": string(schemas.OptimizeTrim)})
	}
	frag := d.fragmentation()
	if p := d.core.PlanDefragment(ledger.DefragmentRequest{MaxBytes: math.MaxInt64}); p.Released > 0 && frag.FragmentationPercentage >= fragmentedBy {
		a.add(recDefrag, fmt.Sprintf("%d free bytes lie in %d pieces inside segments", frag.FreeBytes, frag.FreeBlocks), p.Released, 0,
			schemas.ActionDefragment, map[string]any{"device_id": d.id, "strategy": string(schemas.DefragmentFull)})
	}
	d.core.Grants(func(g *ledger.Grant) {
		if g.Owner.Tenant != tenant {
			return
		}
		a.leaks.add(d, g)
		switch {
		case g.Status != ledger.StatusZombie:
		case g.Class == ledger.ClassWeights:
			a.add(recZombie, fmt.Sprintf("model %s is unloaded and still mapped by %v", g.Model, g.Pins()), g.Granted, 0, schemas.ActionUnloadModel,
				map[string]any{"name": g.Model, "device_id": d.id, "force": true})
		default:
			a.add(recZombie, fmt.Sprintf("it is released and still mapped by %v: end these processes, then ask again", g.Pins()), g.Granted, 0,
				schemas.ActionDeallocate, map[string]any{"allocation_id": g.ID.String(), "force": true})
		}
	})
	return a
}

// adviseLeaks recommends to give back the largest grants that are suspected to leak.
func (a *advice) adviseLeaks(now time.Time) {
	leaks := slices.DeleteFunc(a.leaks.held, func(g history.Held) bool { return g.Suspected(now) == "" })
	slices.SortFunc(leaks, func(x, y history.Held) int { return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(x.ID, y.ID)) })
	for _, g := range leaks[:min(len(leaks), maxLeakRecs)] {
		why := fmt.Sprintf("%s holds it, and nobody has mapped it for %s", g.Owner, now.Sub(g.LastUsed).Round(time.Second))
		if g.Gone != "" {
			why += ": " + g.Gone
		}
		a.add(recLeak, why, g.Bytes, 0, schemas.ActionDeallocate, map[string]any{"allocation_id": g.ID})
	}
}

// adviseLimit recommends another limit, by what is lacking now or was never used.
func (a *analyticsActor) adviseLimit(x *advice) {
	d, f := x.device, &x.figures
	now := a.house.cfg.Clock.Now()
	level := levelOf(d.beat.Load().PressureLevel)
	more := min(x.ceiling-f.Limit, max(f.Deficit, f.Limit/10))
	if level >= levelOf(schemas.PressureHigh) && more > 0 {
		x.add(recRaise, fmt.Sprintf("pressure is high, and the device has %d bytes beyond its limit", x.ceiling-f.Limit), more, 0,
			schemas.ActionSetLimits, map[string]any{"device_id": d.id, "limit_bytes": f.Limit + more})
		return
	}
	if row, of := a.worthwhile(d, f.Limit, x.ceiling); row != nil {
		x.add(recRaise, fmt.Sprintf("with %d bytes more, of %d requests for models %d would have been loads instead of %d: %.1f s of loading less",
			row.DeltaBytes, row.Requests, row.Loads, of.Loads, row.SavedSeconds), row.DeltaBytes, 0,
			schemas.ActionSetLimits, map[string]any{"device_id": d.id, "limit_bytes": row.LimitBytes})
		return
	}
	points := a.past.Series(d.id, now.Add(-min(24*time.Hour, time.Duration(now))), history.Coarse)
	if len(points) == 0 || now.Sub(points[0].At) < lowAge {
		return
	}
	var peak int64
	for _, p := range points {
		peak = max(peak, p.Peak)
	}
	to := (2*max(peak, f.Used) + limitRounded - 1) / limitRounded * limitRounded
	if percent(peak, f.Limit) < lowPeak && f.Waiting == 0 && to > 0 && to < f.Limit {
		x.add(recLower, fmt.Sprintf("never more than %d bytes of it were used in %s", peak, now.Sub(points[0].At).Round(time.Minute)), f.Limit-to, 0,
			schemas.ActionSetLimits, map[string]any{"device_id": d.id, "limit_bytes": to})
	}
}

// worthwhile is the least of the higher limits that were looked at, up to a ceiling, by which
// enough loading would have been saved, and beside it the present one; nil where there is none,
// or nobody has looked.
func (a *analyticsActor) worthwhile(d *deviceActor, limit, ceiling int64) (row, present *schemas.WhatIf) {
	f := a.what[d]
	if f == nil || f.limit != limit {
		return nil, nil
	}
	for i := range f.rows {
		switch r := &f.rows[i]; {
		case r.DeltaBytes == 0:
			present = r
		case present != nil && r.LimitBytes <= ceiling && r.SavedSeconds >= max(worthSeconds, worthShare*present.ReloadSeconds):
			return r, present
		}
	}
	return nil, nil
}

// advise recommends what the pool knows of a device's models.
func (p *poolActor) advise(a *advice, tenant string) {
	now := p.house.cfg.Clock.Now()
	for _, m := range p.list(tenant) {
		cp := m.Copy(a.device.id)
		if m.Tenant != tenant || m.Superseded || cp == nil || cp.State != catalog.Sealed || cp.Readers() > 0 {
			continue
		}
		idle := now.Sub(cp.UsedAt)
		pin := func(on bool) map[string]any {
			return map[string]any{"name": m.Name, "device_id": cp.Device, "pinned": on, "priority": m.Priority, "shared": m.Shared}
		}
		switch {
		case m.Pinned && idle >= pinnedIdle:
			a.add(recUnpin, fmt.Sprintf("model %s is pinned and nobody has read it for %s", m.Name, idle.Round(time.Second)), cp.Granted, 0, schemas.ActionLoadModel, pin(false))
		case m.Pinned:
		case idle >= idleModel:
			a.add(recUnload, fmt.Sprintf("nobody has read model %s for %s", m.Name, idle.Round(time.Second)), cp.Granted, cp.Cost, schemas.ActionUnloadModel,
				map[string]any{"name": m.Name, "device_id": cp.Device})
		case m.Loads >= oftenLoaded:
			a.add(recPin, fmt.Sprintf("model %s was loaded %d times: each time took %s", m.Name, m.Loads, cp.Cost.Round(time.Millisecond)), 0, 0, schemas.ActionLoadModel, pin(true))
		}
	}
}
