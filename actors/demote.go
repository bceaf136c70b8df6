package actors

import (
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// unload_model to main memory, and the copies of models that are made of other copies: down
// for it, up when a load finds the model there.

// demote answers unload_model to=ram. Main memory that has no room, and can make none at
// once, refuses it: the model stays where it is.
func (p *poolActor) demote(c *call, r catalog.UnloadRequest) {
	r.Demote = map[string]string{}
	for _, d := range p.house.devices {
		if d.kind == schemas.DeviceTypeRAM {
			continue
		}
		if to := p.house.below(d); to != nil {
			r.Demote[d.id] = to.id
		}
	}
	if len(r.Demote) == 0 && p.house.ram() == nil {
		c.fail(schemas.Errorf(schemas.CodeInvalidDevice, "the node has no main memory to keep models in: use to=drop").With("field", "to").With("devices", p.house.deviceIDs()))
		return
	}
	if c.DryRun {
		p.planDemote(c, r)
		return
	}
	p.core.Unload(r, p.house.now())
	p.flush()
	c.follow(schemas.StatusRunning, 0, "is copied to main memory, and then waits until nobody can touch the bytes any more", func(err *schemas.Error, seen func()) {
		p.tell(seam.SystemLane, func() { p.core.Cancel(r.Ref, err, p.house.now()); p.flush(); seen() })
	})
}

// planDemote is the dry run of demote: whether the models may go, and whether there is room
// for them below.
func (p *poolActor) planDemote(c *call, r catalog.UnloadRequest) {
	if err := p.core.PlanUnload(r); err != nil {
		c.foreseen(err, "")
		return
	}
	var to *deviceActor
	var segments []int64
	priority, owner := 0, c.Tenant
	for _, cp := range p.core.ToDemote(r) {
		d := p.house.byID[r.Demote[cp.Device]]
		if to == nil {
			to = d
		}
		if d == to { // with several pools of main memory, the first is looked at
			segments = append(segments, roundedUp(cp.Model.Segments, d.info.GranularityBytes)...)
			priority, owner = cp.Model.Priority, cp.Model.Tenant
		}
	}
	if to == nil {
		c.done(planned(string(schemas.PlanGranted), "the model would be released, and stays in main memory where it is there"), nil)
		return
	}
	q := &ledger.Request{Owner: ledger.Owner{Tenant: owner, UID: p.house.cfg.UID}, Class: ledger.ClassWeights, Segments: segments, Priority: priority}
	to.tell(seam.SystemLane, func() { to.planAllocate(c, q) })
}

// roundedUp are a layout's segments as a device of this granularity makes them.
func roundedUp(segments []int64, granularity int64) []int64 {
	out := make([]int64, len(segments))
	for i, n := range segments {
		out[i] = (n + granularity - 1) / granularity * granularity
	}
	return out
}

// ram is the first device of main memory, or nil.
func (h *House) ram() *deviceActor {
	for _, d := range h.devices {
		if d.kind == schemas.DeviceTypeRAM {
			return d
		}
	}
	return nil
}

// below is the main memory to which models of a device are demoted: that of its own node of
// memory, else the first; nil: there is none.
func (h *House) below(d *deviceActor) *deviceActor {
	for _, r := range h.devices {
		if r.kind == schemas.DeviceTypeRAM && r.info.NUMANode == d.info.NUMANode {
			return r
		}
	}
	return h.ram()
}

// sourceTier is where the bytes of a copy came from.
func (p *poolActor) sourceTier(cp *catalog.Copy) schemas.Tier {
	if d := p.house.byID[cp.Origin]; d != nil {
		return d.tier()
	}
	return schemas.TierDisk
}

// feed copies the bytes of a sealed copy of a model into the grant of another, which is held
// so long. The catalog hears of its end as it hears of a fill's.
func (t *transferActor) feed(s catalog.Step) {
	cp, p := s.Copy, t.house.pool
	from, to := t.house.byID[s.From.Device], t.house.byID[cp.Device]
	source, tenant, sizes, total := s.From.Grant, cp.Model.Tenant, cp.Model.Segments, cp.Model.Bytes
	fail := func(err *schemas.Error) {
		p.tell(seam.SystemLane, func() { p.core.Filled(cp, err, p.house.now()); p.flush() })
	}
	from.tell(seam.SystemLane, func() {
		g, err := from.core.Hold(source, tenant, ledger.HoldRead)
		if err != nil {
			fail(err)
			return
		}
		have := wholes(from.handles(g.Blocks), sizes)
		from.flush()
		end := func(err *schemas.Error) {
			from.tell(seam.SystemLane, func() {
				from.core.Unhold(source, ledger.HoldRead, from.house.now())
				from.flush()
				fail(err)
			})
		}
		to.lend(s.Grant, func(l lent) {
			if l.fail != nil {
				end(t.house.loadError(l.fail))
				return
			}
			k := ferry(to, wholes(l.segments, sizes), from, have, source, s.Grant)
			k.progress = func(done int64) { p.fed(cp, min(done, total)) }
			k.end = func(_ int64, _ time.Duration, err error) {
				delete(t.feeds, cp)
				switch {
				case errors.Is(err, errStopped):
					end(schemas.Errorf(schemas.CodeCancelled, "%v", err))
				case err != nil && errors.Is(err, device.ErrOutOfMemory):
					end(t.house.loadError(err))
				default:
					end(outcomeOf(err, schemas.CodeTransferFailed))
				}
			}
			t.tell(seam.SystemLane, func() {
				t.feeds[cp] = k
				t.begin(k)
			})
		})
	})
}

// wholes are the parts of a model's segments that hold its bytes: each begins its segment.
func wholes(segments []device.Segment, sizes []int64) []piece {
	out := make([]piece, len(sizes))
	for i, n := range sizes {
		out[i] = piece{segments[i], 0, n}
	}
	return out
}

// willReturn tells the driver of a device that a model's copy on another was made of its own,
// and may well come back: it can make that fast meanwhile.
func (h *House) willReturn(origin, now *deviceActor, grant uuid.UUID) {
	if origin == nil || now == nil {
		return
	}
	b, ok := origin.driver.(device.Bridge)
	if !ok {
		return
	}
	now.lend(grant, func(l lent) {
		now.work.copies.put(func() {
			for _, s := range l.segments {
				if b.Bridges(s) {
					b.Expect(s)
				}
			}
		})
	})
}

// fed tells how far a copy has come. It may be called from any goroutine, and may be dropped
// under load.
func (p *poolActor) fed(cp *catalog.Copy, done int64) {
	p.tell(seam.QueryLane, func() {
		p.core.Progress(cp, done, p.house.now())
		p.progressed(cp)
		p.flush()
	})
}
