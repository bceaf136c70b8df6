package actors

import (
	"time"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/schemas"
)

// Models that go from a device to make room are kept in main memory where that is worth it:
// where it has room that pressure leaves alone, and having the model back from there
// saves more than the way down takes.

// nominalRate is what copies between main memory and a device are taken to come to, in bytes
// a second, until the first was measured.
const nominalRate = 8 << 30

// shelter is the main memory that is to keep a model which goes from d for an order, or nil: it
// is dropped. arriving is what is promised there beside what the catalog knows of.
func (p *poolActor) shelter(d *deviceActor, cp *catalog.Copy, o roomOrder, arriving map[*deviceActor]int64) *deviceActor {
	if p.house.cfg.DemoteOff || d.kind == schemas.DeviceTypeRAM || cp.Model.Superseded || o.choice != nil && o.choice.force {
		return nil
	}
	if warm := p.core.WarmCopy(cp.Model, d.id); warm != nil {
		return p.house.byID[warm.Device] // it is there
	}
	to := p.house.below(d)
	if to == nil || o.urgent || p.house.draining.Load() || to.beat.Load().Health == schemas.HealthLost {
		return nil
	}
	if cp.Cost <= 2*p.wayBack(d, cp) {
		return nil // reading its file again takes no longer than the way down and up
	}
	switch to.beat.Load().PressureLevel {
	case schemas.PressureHigh, schemas.PressureCritical:
		return nil
	}
	if bytes := cp.Granted + p.core.Arriving(to.id) + arriving[to]; bytes > to.gauges.room() {
		return nil
	}
	return to
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
