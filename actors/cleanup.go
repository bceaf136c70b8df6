package actors

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// cleaning is a cleanup under way. The pool's goroutine owns it.
type cleaning struct {
	c       *call
	in      *schemas.CleanupRequest
	devices []*deviceActor
	reply   schemas.CleanupReply
	left    int            // grants that are not answered yet
	fail    *schemas.Error // the first grant that could not be released
	plan    []schemas.Eviction
}

// litter is what a cleanup would release on one device.
type litter struct {
	grants []uuid.UUID
	bytes  int64
	held   int // of the grants, those that living sessions map
}

// cleanup unloads a tenant's models and frees its grants that are not persistent. What is
// in use is looked for first, so that without force it is all or nothing.
func (h *House) cleanup(c *call, in *schemas.CleanupRequest) {
	ds, err := h.some(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	x := &cleaning{c: c, in: in, devices: ds, reply: schemas.CleanupReply{Finished: schemas.Done(), ModelsUnloaded: []string{}}}
	if !c.DryRun {
		c.follow(schemas.StatusRunning, 0, "waits until nobody can touch the bytes any more", nil)
	}
	ask(h, ds, func(d *deviceActor) litter { return d.litter(c.Tenant) }, func(parts []litter, err *schemas.Error) {
		h.pool.tell(seam.SystemLane, func() { x.judge(h.pool, parts, err) })
	})
}

// litter lists what a cleanup of a tenant would release here.
func (d *deviceActor) litter(tenant string) (l litter) {
	d.core.Grants(func(g *ledger.Grant) {
		if g.Owner.Tenant != tenant || g.Class == ledger.ClassWeights || g.Persistent || g.Status != ledger.StatusActive {
			return
		}
		l.grants = append(l.grants, g.ID)
		l.bytes += g.Granted
		if g.Live() {
			l.held++
		}
	})
	return l
}

// judge refuses the cleanup, foresees it, or begins it with the models.
func (x *cleaning) judge(p *poolActor, parts []litter, err *schemas.Error) {
	var sum litter
	for _, l := range parts {
		sum.grants = append(sum.grants, l.grants...)
		sum.bytes += l.bytes
		sum.held += l.held
	}
	readers, models := 0, 0
	p.core.Models(x.c.Tenant, func(m *catalog.Model) {
		m.Copies(func(cp *catalog.Copy) {
			if m.Tenant != x.c.Tenant || !x.on(cp.Device) {
				return
			}
			models++
			readers += cp.Readers()
			if cp.State == catalog.Sealed {
				x.plan = append(x.plan, schemas.Eviction{Model: m.Name, Tier: p.house.byID[cp.Device].tier(), FreedBytes: cp.Granted, ReloadCostMs: millis(cp.Cost)})
			}
		})
	})
	if err == nil && !x.in.Force {
		switch {
		case readers > 0:
			err = schemas.Errorf(schemas.CodeModelInUse, "%d readers hold models: wait for them, or use force", readers).With("readers", readers)
		case sum.held > 0:
			err = schemas.Errorf(schemas.CodeAllocationInUse, "%d allocations are mapped: let them be unmapped, or use force", sum.held).With("allocations", sum.held)
		}
	}
	switch {
	case err != nil && x.c.DryRun && err.Code != schemas.CodeBusy:
		x.c.done(planned(string(schemas.PlanRefused), err.Message), nil)
	case err != nil:
		x.c.fail(err)
	case x.c.DryRun:
		r := planned(string(schemas.PlanGranted), fmt.Sprintf("%d models and %d allocations of %d bytes would be released", models, len(sum.grants), sum.bytes))
		r.Plan.Evict = append(r.Plan.Evict, x.plan...)
		x.c.done(r, nil)
	default:
		x.unload(p, parts)
	}
}

func (x *cleaning) on(device string) bool {
	for _, d := range x.devices {
		if d.id == device {
			return true
		}
	}
	return false
}

// unload has the models go, and then the grants. A model that somebody began to read
// meanwhile refuses it all.
func (x *cleaning) unload(p *poolActor, parts []litter) {
	device := ""
	if len(x.devices) == 1 {
		device = x.devices[0].id
	}
	p.core.Unload(catalog.UnloadRequest{Ref: &cleanupCall{x, parts}, Tenant: x.c.Tenant, Name: schemas.ModelNameAll, Device: device, Force: x.in.Force,
		RequestID: x.c.RequestID}, p.house.now())
	p.flush()
}

// cleanupCall is the unload of a cleanup in the catalog's hands.
type cleanupCall struct {
	x     *cleaning
	parts []litter
}

// modelOutcome implements modelAsker.
func (a *cleanupCall) modelOutcome(p *poolActor, o *catalog.Outcome) {
	x := a.x
	if o.Kind == catalog.OutcomeRefused {
		x.c.fail(o.Err)
		return
	}
	x.reply.FreedBytes += o.Freed
	x.reply.ModelsUnloaded = append(x.reply.ModelsUnloaded, o.Names...)
	p.tell(seam.SystemLane, func() { // not here: the catalog's effects are being carried out
		x.left = 1
		for i, d := range x.devices {
			for _, id := range a.parts[i].grants {
				x.left++
				x.release(p, d, id)
			}
		}
		x.arrived(p)
	})
}

// cleanupGrant is a grant of a cleanup in a device's hands.
type cleanupGrant struct {
	x *cleaning
	p *poolActor
}

func (x *cleaning) release(p *poolActor, d *deviceActor, id uuid.UUID) {
	d.tell(seam.SystemLane, func() {
		d.core.Release(ledger.ReleaseRequest{Ref: &cleanupGrant{x, p}, Grant: id, Tenant: x.c.Tenant, Force: x.in.Force, Why: whyCleanup}, d.house.now())
		d.flush()
	})
}

// whyCleanup is why grants end, in events.
const whyCleanup = "its tenant cleans up"

// outcome implements asker.
func (a *cleanupGrant) outcome(_ *deviceActor, o *ledger.Outcome) {
	freed, err := o.Freed, o.Err
	if o.Kind != ledger.OutcomeRefused {
		err = nil
	}
	x, p := a.x, a.p
	p.tell(seam.SystemLane, func() {
		x.reply.FreedBytes += freed
		if err != nil && err.Code != schemas.CodeAllocationNotFound && x.fail == nil {
			x.fail = err // mapped meanwhile
		}
		x.arrived(p)
	})
}

// arrived answers when the last grant is gone.
func (x *cleaning) arrived(p *poolActor) {
	if x.left--; x.left > 0 {
		return
	}
	if x.fail != nil {
		x.c.fail(x.fail.With("freed_bytes", x.reply.FreedBytes))
		return
	}
	p.remember(x.c, &x.reply)
	x.c.done(&x.reply, nil)
}
