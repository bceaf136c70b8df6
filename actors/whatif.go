package actors

import (
	"strconv"
	"time"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/eviction/replay"
	"github.com/isobar-project/isobar/history"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
)

// foresight is what is known of a device with other limits. The analytics actor owns it.
type foresight struct {
	at       clock.Instant // for which moment it was computed; 0: never
	limit    int64         // the device's, then
	mark     uint64        // of what had been asked, then
	requests []schemas.ModelRequests
	rows     []schemas.WhatIf
	waiting  []func(*foresight)
}

// How long an answer stays good while the limit does: where more has been asked since, and
// where nothing has, but others may hold more or less.
const (
	foreseenFor   = 2 * time.Second
	unchangedGood = time.Minute
)

// good reports whether it need not be computed anew.
func (f *foresight) good(now clock.Instant, limit int64, mark uint64) bool {
	age := now.Sub(f.at)
	return f.at != 0 && f.limit == limit && (age < foreseenFor || f.mark == mark && age < unchangedGood)
}

// otherLimits are those that are looked at, in percent of the present one.
var otherLimits = []int64{50, 75, 90, 100, 125, 150, 200}

// limitStep is what they are rounded to.
const limitStep = 1 << 20

// mostVisits bounds the work of one replay: requests × models, since each may have to be
// looked at to choose what goes. Of more requests than that allows the newest are replayed.
const mostVisits = 2 << 20

// foresee gives use what was asked of some devices, and what other limits would have made of
// it, on the analytics actor.
func (a *analyticsActor) foresee(ds []*deviceActor, use func([]*foresight)) {
	found, left := make([]*foresight, len(ds)), len(ds)
	if left == 0 {
		use(nil)
		return
	}
	for i, d := range ds {
		a.forecast(d, func(f *foresight) {
			found[i] = f
			if left--; left == 0 {
				use(found)
			}
		})
	}
}

// forecast gives what is known of a device to use, computing it where it is not, or not any more.
func (a *analyticsActor) forecast(d *deviceActor, use func(*foresight)) {
	g, _ := d.gauges.get()
	f := a.what[d]
	if f == nil {
		f = &foresight{}
		a.what[d] = f
	}
	now, limit, mark := a.house.cfg.Clock.Now(), g.figures.Limit, a.past.UsesMark(d.id)
	if len(f.waiting) == 0 && f.good(now, limit, mark) {
		use(f)
		return
	}
	if f.waiting = append(f.waiting, use); len(f.waiting) > 1 {
		return // it is being computed
	}
	f.at, f.limit, f.mark = now, limit, mark
	x := &seen{uses: a.past.Uses(d.id), limit: limit, policy: a.house.cfg.Policy.Name()}
	if len(x.uses) == 0 {
		a.foreseen(f, nil, nil)
		return
	}
	x.bound()
	x.others = a.others(d, x.uses[0].At)
	// The actors that know the rest are asked, one after the other; then it is computed beside
	// them all.
	d.tell(seam.SystemLane, func() {
		_, x.models, _ = d.core.Limits()
		m := a.house.monitor
		m.tell(seam.SystemLane, func() {
			if cfg := m.state(d).cfg.WithDefaults(); !d.cfg.ReliefOff && cfg.Basis == pressure.BasisUsed {
				x.relief = cfg.Thresholds.High
			}
			go func() {
				var requests []schemas.ModelRequests
				var rows []schemas.WhatIf
				defer func() {
					if defect := recover(); defect != nil { // nothing depends on it
						a.house.log.Error("what other limits would have saved cannot be said", "device", d.id, "defect", defect)
					}
					a.tell(seam.SystemLane, func() { a.foreseen(f, requests, rows) })
				}()
				requests, rows = x.foresee(d.id, a.house.wallAt)
			}()
		})
	})
}

// foreseen takes what was computed, and tells who waits for it.
func (a *analyticsActor) foreseen(f *foresight, requests []schemas.ModelRequests, rows []schemas.WhatIf) {
	f.requests, f.rows = requests, rows
	waiting := f.waiting
	f.waiting = nil
	for _, use := range waiting {
		use(f)
	}
}

// others is what others than models held of a device since then, on average.
func (a *analyticsActor) others(d *deviceActor, since clock.Instant) int64 {
	var sum, time float64
	for _, p := range a.past.Series(d.id, since-1, history.Coarse) {
		sum += float64(p.Used-p.Models) * p.Seen.Seconds()
		time += p.Seen.Seconds()
	}
	if time == 0 {
		return 0
	}
	return max(0, int64(sum/time))
}

// seen is all that a replay needs to know. It is nobody else's while it runs.
type seen struct {
	uses   []history.Use
	policy string
	limit  int64              // of the device
	models int64              // of its models; 0: none
	others int64              // what others than models hold
	relief pressure.Threshold // from where on models are released; zero: they stay
}

// bound leaves out the oldest uses where there are too many.
func (x *seen) bound() {
	models := map[uint64]bool{}
	for i := len(x.uses) - 1; i >= 0; i-- {
		models[x.uses[i].Model] = true
		if (len(x.uses)-i)*len(models) > mostVisits {
			x.uses = x.uses[i+1:]
			return
		}
	}
}

// room is what a limit leaves for models.
func (x *seen) room(limit int64) replay.Room {
	r := replay.Room{Bytes: limit - x.others}
	if x.models > 0 {
		r.Bytes = min(r.Bytes, x.models)
	}
	if high := int64(x.relief.Enter*float64(limit)) - x.others; x.relief.Enter > 0 && high < r.Bytes {
		r.High, r.Low = max(1, high), max(0, int64(x.relief.Leave*float64(limit))-x.others)
	}
	return r
}

// foresee replays the uses with each limit.
func (x *seen) foresee(device string, wall func(clock.Instant) time.Time) ([]schemas.ModelRequests, []schemas.WhatIf) {
	q := schemas.ModelRequests{DeviceID: device, From: wall(x.uses[0].At), To: wall(x.uses[len(x.uses)-1].At)}
	models := map[uint64]bool{}
	for _, u := range x.uses {
		models[u.Model] = true
		switch u.Kind {
		case history.Miss:
			q.Loads++
			q.ReloadSeconds += u.Took.Seconds()
			q.Requests++
		case history.Hit:
			q.Requests++
		}
	}
	q.Models, q.HitRate = len(models), hitRate(q.Requests, q.Loads)
	uses := x.replayed()
	var rows []schemas.WhatIf
	var present float64
	for _, percent := range otherLimits {
		limit := x.limit * percent / 100
		if percent != 100 {
			limit = (limit + limitStep/2) / limitStep * limitStep
		}
		room := x.room(limit)
		if room.Bytes <= 0 {
			continue
		}
		r, err := replay.Again(uses, room, x.newPolicy())
		if err != nil {
			continue // a defect of the planner: a row less
		}
		if percent == 100 {
			present = r.Seconds
		}
		rows = append(rows, schemas.WhatIf{DeviceID: device, LimitBytes: limit, DeltaBytes: limit - x.limit, ModelBytes: room.Bytes,
			Requests: q.Requests, Loads: r.Loads, HitRate: hitRate(q.Requests, r.Loads), ReloadSeconds: r.Seconds, Unserved: r.Unserved})
	}
	for i := range rows {
		rows[i].SavedSeconds = present - rows[i].ReloadSeconds
	}
	return []schemas.ModelRequests{q}, rows
}

func hitRate(requests, loads int) float64 {
	if requests == 0 {
		return 0
	}
	return 1 - float64(loads)/float64(requests)
}

// replayed are the uses as a replay takes them.
func (x *seen) replayed() []replay.Use {
	kinds := map[history.UseKind]replay.UseKind{history.Hit: replay.Asked, history.Miss: replay.Asked, history.Touch: replay.Touched, history.Gone: replay.LetGo}
	type known struct {
		name  string
		loads int
		took  time.Duration // the last load
	}
	models := map[uint64]*known{}
	out := make([]replay.Use, len(x.uses))
	for i, u := range x.uses {
		m := models[u.Model]
		if m == nil {
			m = &known{name: strconv.Itoa(len(models))}
			models[u.Model] = m
		}
		if u.Kind == history.Miss {
			m.loads, m.took = m.loads+1, u.Took
		}
		load := u.Cost
		if m.loads > 1 || u.Kind == history.Miss {
			load = m.took // a first load says nothing of what comes back from main memory
		}
		out[i] = replay.Use{At: u.At, Kind: kinds[u.Kind], Load: load.Seconds(), Object: eviction.Object{Key: m.name, Bytes: u.Bytes, Cost: u.Cost.Seconds()}}
	}
	return out
}

// newPolicy is one that decides as the node's, and knows nothing yet.
func (x *seen) newPolicy() eviction.Policy {
	if x.policy == eviction.DefaultName {
		return eviction.NewCost(eviction.DefaultRemembered) // a panel's voice, without the others
	}
	if p, err := eviction.New(x.policy); err == nil {
		return p
	}
	return eviction.NewCost(eviction.DefaultRemembered)
}
