package actors

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/schemas"
)

// Models that go from a device to make room are kept in main memory where that is worth it:
// where having the model back from there saves more than the way down takes, and main memory has room that pressure
// leaves alone, or copies that are worth less.

// nominalRate is what copies between main memory and a device are taken to come to, in bytes
// a second, until the first was measured.
const nominalRate = 8 << 30

// descents are what main memory has to do with one plan, beside what the catalog knows of.
type descents struct {
	bytes map[*deviceActor]int64 // promised by a dry run, less what gives way
	taken map[uuid.UUID]bool     // what does not give way: it has in a dry run, or the plan counts on it
}

// descents begins with the copies that those which are to go from d have in main memory.
func (p *poolActor) descents(d *deviceActor, whose []*catalog.Copy) *descents {
	x := &descents{bytes: map[*deviceActor]int64{}, taken: map[uuid.UUID]bool{}}
	for _, cp := range whose {
		if warm := p.core.WarmCopy(cp.Model, d.id); warm != nil {
			x.taken[warm.Grant] = true
		}
	}
	return x
}

// promise notes that a model would come to main memory, and what would give way to it.
func (x *descents) promise(to *deviceActor, bytes int64, way []yielding) {
	x.bytes[to] += bytes
	for _, y := range way {
		x.bytes[to] -= y.copy.Granted
		x.taken[y.copy.Grant] = true
	}
}

// yielding is a copy in main memory that gives way to one that comes down.
type yielding struct {
	copy *catalog.Copy
	why  string
}

// shelter is the main memory that is to keep a model which goes from d for an order, and what
// gives way to it there; or nil: it is dropped.
func (p *poolActor) shelter(d *deviceActor, cp *catalog.Copy, o roomOrder, before *descents) (to *deviceActor, way []yielding) {
	if p.house.cfg.DemoteOff || d.kind == schemas.DeviceTypeRAM || cp.Model.Superseded || o.choice != nil && o.choice.force {
		return nil, nil
	}
	if warm := p.core.WarmCopy(cp.Model, d.id); warm != nil {
		return p.house.byID[warm.Device], nil // it is there
	}
	to = p.house.below(d)
	if to == nil || o.urgent || p.house.draining.Load() || to.beat.Load().Health == schemas.HealthLost || cp.Model.Copy(to.id) != nil {
		return nil, nil
	}
	if cp.Cost <= 2*p.wayBack(d, cp) {
		return nil, nil // reading its file again takes no longer than the way down and up
	}
	switch to.beat.Load().PressureLevel {
	case schemas.PressureHigh, schemas.PressureCritical:
		return nil, nil
	}
	if lacks := cp.Granted + p.core.Arriving(to.id) + before.bytes[to] - to.gauges.room() - p.core.Revoking(to.id); lacks > 0 {
		plan, whose, ok := p.core.GiveWay(catalog.Descent{Copy: cp, To: to.id, Lacks: lacks, Quotas: to.quotas.get(), Taken: before.taken}, p.house.now().Boot)
		if !ok {
			return nil, nil
		}
		for i := range plan.Victims {
			way = append(way, yielding{whose[i], "it gives way to a model that comes from " + d.id + "; " + plan.Victims[i].Reason()})
		}
	}
	if o.dry {
		before.promise(to, cp.Granted, way)
	}
	return to, way
}

// giveWay lets go of copies in main memory for one that comes down.
func (p *poolActor) giveWay(way []yielding) {
	for _, y := range way {
		p.core.Evict(y.copy, y.why, p.house.now())
		p.flush()
	}
}

// wayBack is what it would take to have a model back on a device from main memory.
func (p *poolActor) wayBack(d *deviceActor, cp *catalog.Copy) time.Duration {
	if cp.Model.WarmCost > 0 {
		return cp.Model.WarmCost
	}
	if t := d.rates.takes(schemas.TierRAM, cp.Model.Bytes); t > 0 {
		return t
	}
	return time.Duration(float64(cp.Model.Bytes) / nominalRate * float64(time.Second))
}

// priced is a victim with what having it back takes, from where it will be.
func (p *poolActor) priced(d *deviceActor, cp *catalog.Copy, v victim) victim {
	if v.demoted {
		v.cost = min(v.cost, p.wayBack(d, cp))
	}
	return v
}

// hurry is the monitor's word that a device is nearly full: what is being copied to main
// memory before it goes is dropped.
func (p *poolActor) hurry(d *deviceActor) {
	p.tell(seam.SystemLane, func() { p.core.Hurry(d.id); p.flush() })
}
