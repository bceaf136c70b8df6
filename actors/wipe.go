package actors

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// wipe is a clear of a whole device: every grant and model of a tenant there is released. It
// belongs to the device's goroutine.
type wipe struct {
	device *deviceActor
	c      *call
	begun  time.Duration
	left   int // releases that are not confirmed yet, the models' counting as one
	freed  int64
	fail   *schemas.Error
}

// clearDevice releases all that the caller's tenant has on the device, whoever maps it.
func (d *deviceActor) clearDevice(c *call) {
	d.take(seam.ReleaseLane, c, func() {
		var ids []uuid.UUID
		var bytes int64
		d.core.Grants(func(g *ledger.Grant) {
			if g.Owner.Tenant == c.Tenant && g.Class != ledger.ClassWeights {
				ids = append(ids, g.ID)
				bytes += g.Granted
			}
		})
		if c.DryRun {
			c.done(planned("granted", fmt.Sprintf("%d allocations of %d bytes, and the tenant's models on %s, would be released", len(ids), bytes, d.id)), nil)
			return
		}
		w := &wipe{device: d, c: c, begun: time.Duration(d.house.cfg.Clock.Now()), left: len(ids) + 1}
		c.follow(schemas.StatusRunning, 0, "waits until nobody can touch the bytes any more", nil)
		d.house.pool.take(w.models())
		for _, id := range ids {
			d.core.Release(ledger.ReleaseRequest{Ref: w, Grant: id, Tenant: c.Tenant, Force: true, Why: WhyCleared}, d.house.now())
			d.flush()
		}
	})
}

// WhyCleared is the reason of releases by a clear of a device, in events.
const WhyCleared = "its device was cleared by a client"

// models is the command that unloads the tenant's models, as if a client had sent it.
func (w *wipe) models() *call {
	d, c := w.device, w.c
	in := &schemas.UnloadModelRequest{Name: schemas.ModelNameAll, DeviceID: d.id, To: schemas.UnloadToDrop, Force: true}
	cmd := &Command{Action: schemas.ActionUnloadModel, Tenant: c.Tenant, User: c.User, RequestID: c.RequestID + "/models", Data: in,
		Wait: 10 * time.Minute, Reply: w}
	return &call{Command: cmd, house: d.house, owner: c.owner}
}

// Done implements Reply: the models are unloaded.
func (w *wipe) Done(data any, _ func()) {
	w.device.tell(seam.SystemLane, func() {
		if r, ok := data.(*schemas.UnloadModelReply); ok {
			w.freed += r.FreedBytes
		}
		w.one()
	})
}

// Fail implements Reply.
func (w *wipe) Fail(err *schemas.Error) {
	w.device.tell(seam.SystemLane, func() {
		w.fail = err
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
