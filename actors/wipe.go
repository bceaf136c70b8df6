package actors

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// wipe is a clear of a whole device: every grant and model of a tenant, or of all tenants,
// there is released. It belongs to the device's goroutine.
type wipe struct {
	device   *deviceActor
	c        *call
	everyone bool // an operator's
	begun    time.Duration
	left     int // releases that are not confirmed yet, the models' counting as one
	freed    int64
	fail     *schemas.Error
}

// clearDevice releases all that the caller's tenant has on the device, whoever maps it; for
// an operator, all that anybody has.
func (d *deviceActor) clearDevice(c *call) {
	d.take(seam.ReleaseLane, c, func() {
		w := &wipe{device: d, c: c, everyone: c.Role == schemas.RoleOperator}
		tenants := map[uuid.UUID]string{}
		var ids []uuid.UUID
		var bytes, models int64
		d.core.Grants(func(g *ledger.Grant) {
			switch {
			case !w.everyone && g.Owner.Tenant != c.Tenant:
			case g.Class == ledger.ClassWeights:
				models += g.Granted
			default:
				ids, tenants[g.ID] = append(ids, g.ID), g.Owner.Tenant
				bytes += g.Granted
			}
		})
		if c.DryRun {
			whose := "of the tenant's "
			if w.everyone {
				whose = "of everybody's "
			}
			c.done(planned("granted", fmt.Sprintf("%d allocations of %d bytes, and %d bytes %smodels on %s, would be released", len(ids), bytes, models, whose, d.id)), nil)
			return
		}
		w.begun, w.left = time.Duration(d.house.cfg.Clock.Now()), len(ids)+1
		c.follow(schemas.StatusRunning, 0, "waits until nobody can touch the bytes any more", nil)
		d.house.pool.wipe(w)
		for _, id := range ids {
			d.core.Release(ledger.ReleaseRequest{Ref: w, Grant: id, Tenant: tenants[id], Force: true, Why: WhyCleared}, d.house.now())
			d.flush()
		}
	})
}

// WhyCleared is the reason of releases by a clear of a device, in events.
const WhyCleared = "its device was cleared by a client"

// wipe has the models of a wiped device go.
func (p *poolActor) wipe(w *wipe) {
	p.tell(seam.SystemLane, func() {
		p.core.Unload(catalog.UnloadRequest{Ref: w, Tenant: w.c.Tenant, Everyone: w.everyone, Name: schemas.ModelNameAll, Device: w.device.id, Force: true,
			RequestID: w.c.RequestID}, p.house.now())
		p.flush()
	})
}

// modelOutcome implements modelAsker: the models are gone.
func (w *wipe) modelOutcome(_ *poolActor, o *catalog.Outcome) {
	freed, err := o.Freed, o.Err
	w.device.tell(seam.SystemLane, func() {
		w.freed += freed
		if err != nil {
			w.fail = err
		}
		w.one()
	})
}

// outcome implements asker.
func (w *wipe) outcome(_ *deviceActor, o *ledger.Outcome) {
	if o.Kind == ledger.OutcomeReleased {
		w.freed += o.Freed
	}
	w.one()
}

// one notes that one release has ended; the last answers.
func (w *wipe) one() {
	if w.left--; w.left > 0 {
		return
	}
	d := w.device
	took := time.Duration(d.house.cfg.Clock.Now()) - w.begun
	// What is recorded is recorded after the flush that may be going on.
	d.tell(seam.SystemLane, func() {
		d.changed(w.c, w.fail, &schemas.ClearReply{Finished: schemas.Done(), ClearedBytes: w.freed, ThroughputBytesPerSecond: rate(w.freed, took), DurationMs: millis(took)})
	})
}
