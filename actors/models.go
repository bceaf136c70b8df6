package actors

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// take gives a command to the pool's mailbox, or refuses it.
func (p *poolActor) take(c *call) {
	spec, _ := schemas.Lookup(c.Action)
	lane := map[schemas.Lane]seam.Lane{schemas.LaneRelease: seam.ReleaseLane, schemas.LaneGrant: seam.GrantLane, schemas.LaneQuery: seam.QueryLane}[spec.Lane]
	err := p.offer(lane, c, func() {
		switch in := c.Data.(type) {
		case *schemas.LoadModelRequest:
			p.load(c, in)
		case *schemas.UnloadModelRequest:
			p.unload(c, in)
		case *schemas.AcquireModelRequest:
			p.acquire(c, in)
		case *schemas.ReleaseModelRequest:
			p.releaseReference(c, in)
		case *schemas.GetModelInfoRequest:
			p.getModelInfo(c, in)
		case *schemas.ModelStatusRequest:
			p.modelStatus(c, in)
		case *schemas.GetHandleRequest:
			p.getHandle(c, in)
		}
	})
	if err != nil {
		c.fail(busy("the pool"))
	}
}

// modelCall is a command in the catalog's hands.
type modelCall struct {
	c     *call
	begun time.Time
	// load is the request, of a load; audit says with what the loaded bytes are compared, which
	// check does.
	load  *catalog.LoadRequest
	audit audit
	check *checking
}

// target is the device a model goes to: the one named, the only one, or the first GPU.
func (p *poolActor) target(name, tenant, device string) (*deviceActor, *schemas.Error) {
	h := p.house
	if device != "" {
		return h.device(device)
	}
	if m, err := p.core.Find(tenant, name); err == nil {
		if cp := m.Usable(""); cp != nil && h.byID[cp.Home] != nil {
			return h.device(cp.Home) // it was demoted from there
		} else if cp != nil {
			return h.device(cp.Device)
		}
	}
	if len(h.devices) == 1 {
		return h.devices[0], nil
	}
	return h.pick("", schemas.DeviceTypeVRAM)
}

func (p *poolActor) load(c *call, in *schemas.LoadModelRequest) {
	d, err := p.target(in.Name, c.Tenant, in.DeviceID)
	if err == nil && p.house.draining.Load() {
		err = schemas.Errorf(schemas.CodeDraining, "the node is stopping")
	}
	if err != nil {
		c.fail(err)
		return
	}
	r := catalog.LoadRequest{Ref: &modelCall{c: c, begun: p.house.cfg.Clock.Wall(), audit: newAudit(in)}, Tenant: c.Tenant, Name: in.Name, Path: in.Path, Type: in.Type, Device: d.id,
		Shared: in.Shared, Pinned: in.Pinned, Priority: in.Priority, RequestID: c.RequestID, DryRun: c.DryRun,
		Cold: in.KeepWarm != nil && !*in.KeepWarm}
	if in.EstimatedSizeBytes != nil {
		r.Estimate = *in.EstimatedSizeBytes
	}
	if in.TimeoutSeconds != nil {
		r.Patience = time.Duration(*in.TimeoutSeconds) * time.Second
	}
	if in.SessionID != "" {
		r.Reference = &catalog.Reference{ID: newID(p.house.cfg.Random, d.tag).String(), Session: c.owner.Session}
	}
	if c.offered != nil {
		p.loadOffered(c, r)
		return
	}
	m, err := p.core.Find(c.Tenant, in.Name)
	if err == nil && p.stale(m, &r) {
		p.lookAgain(c, r, m)
		return
	}
	p.loadWith(c, r)
}

func (p *poolActor) loadWith(c *call, r catalog.LoadRequest) {
	a := r.Ref.(*modelCall)
	if c.key != "" && !a.audit.wanted() { // what is verified is known later: a retry verifies again
		r.Key, c.home = c.key, "pool"
		r.Answer = func(cp *catalog.Copy) ledger.AnswerRecord {
			c.record = ledger.AnswerRecord{Key: c.key, Digest: c.Digest, Action: string(c.Action), Model: cp.Model.Name}
			if c.Action == schemas.ActionLoadModel {
				c.record.Grant = cp.Grant
				c.record.Body = codec.Append(nil, codec.JSON, p.loaded(&catalog.Outcome{Copy: cp, Took: cp.Took, Reference: r.Reference}, c.Tenant))
			} else {
				c.record.Body = codec.Append(nil, codec.JSON, p.acquired(cp, r.Reference, c.Tenant))
			}
			return c.record
		}
	}
	a.load = &r
	if c.operation == "" {
		c.glance = p.glance(&r)
	}
	p.core.Load(r, p.house.now())
	p.flush()
	if !c.handed && !c.answered {
		c.follow(schemas.StatusRunning, 0, "the model is being loaded", func(err *schemas.Error, seen func()) {
			p.tell(seam.SystemLane, func() {
				if a.check != nil {
					a.check.cancel(err)
				}
				p.core.Cancel(r.Ref, err, p.house.now())
				p.flush()
				seen()
			})
		})
	}
}

// modelOutcome implements modelAsker.
func (a *modelCall) modelOutcome(p *poolActor, o *catalog.Outcome) {
	c, kind := a.c, o.Kind
	if kind == catalog.OutcomeAcquired && c.Action == schemas.ActionLoadModel {
		kind = catalog.OutcomeLoaded // and acquired with it
	}
	switch kind {
	case catalog.OutcomeLoaded:
		if !o.Hit {
			p.house.byID[o.Copy.Device].took.load(o.Took)
			p.house.byID[o.Copy.Device].rates.measured(p.sourceTier(o.Copy), o.Copy.Model.Bytes, o.Took)
		}
		r := p.loaded(o, c.Tenant)
		if o.Hit {
			r.LoadTimeMs = millis(p.house.cfg.Clock.Wall().Sub(a.begun))
		}
		if a.audit.wanted() {
			cp := o.Copy
			p.check(a, cp, func(err *schemas.Error) {
				if err != nil {
					p.dropReference(c.Tenant, r.ReferenceID)
					c.fail(err)
					return
				}
				r.Verified = true
				a.hand(p, cp, r)
			})
			return
		}
		a.hand(p, o.Copy, r)
	case catalog.OutcomeAcquired:
		ref := o.Reference.ID
		c.done(p.acquired(o.Copy, o.Reference, c.Tenant), func() { p.dropReference(c.Tenant, ref) })
	case catalog.OutcomePlanned:
		a.planned(p, o)
	case catalog.OutcomeRefused:
		a.audit.close()
		c.fail(o.Err)
	case catalog.OutcomeUnloaded:
		r := &schemas.UnloadModelReply{Finished: schemas.Done(), Unloaded: len(o.Names) > 0, ModelsUnloaded: append([]string{}, o.Names...),
			FreedBytes: o.Freed, Confirmed: o.Confirmed, ZombieBytes: o.Zombie}
		p.tell(seam.SystemLane, func() { // not here: the catalog's effects are being carried out
			p.remember(c, r)
			c.done(r, nil)
		})
	case catalog.OutcomeProgress:
		status := schemas.StatusRunning
		if o.Position > 0 {
			status = schemas.StatusQueued
		}
		if c.operation != "" {
			c.follow(status, o.Position, o.Reason, nil)
		}
	}
}

// hand answers a load, with a handle of the copy.
func (a *modelCall) hand(p *poolActor, cp *catalog.Copy, r *schemas.LoadModelReply) {
	c, d, name := a.c, p.house.byID[cp.Device], cp.Model.Name
	c.handed = true
	d.claim(cp.Grant, cp.Model.Tenant, c.Tenant, func(h *schemas.Handle, err *schemas.Error) {
		// The device answers on its own goroutine, and the call is still the pool's,
		// which may be about to follow it.
		p.tell(seam.SystemLane, func() {
			if err != nil {
				p.forgetAnswer(c)
				p.dropReference(c.Tenant, r.ReferenceID)
				c.fail(handleGone(name, err))
				return
			}
			r.Handle = h
			// Of an operation that was answered before it ended, the reference ends with its session.
			var undo func()
			if ref := r.ReferenceID; ref != "" && c.operation == "" {
				undo = func() { p.dropReference(c.Tenant, ref) }
			}
			c.done(r, undo)
		})
	})
}

// dropReference ends a reference that nobody has heard of; "" means none.
func (p *poolActor) dropReference(tenant, id string) {
	if id == "" {
		return
	}
	p.tell(seam.SystemLane, func() { p.core.ReleaseReference(tenant, "", id, p.house.now()); p.flush() })
}

// planned answers the dry run of a load.
func (a *modelCall) planned(p *poolActor, o *catalog.Outcome) {
	if o.Copy != nil {
		reason := "the model is already there"
		if !o.Hit {
			reason = "the model is already being loaded"
		}
		a.c.done(planned("granted", reason), nil)
		return
	}
	d := p.house.byID[a.load.Device]
	var size int64
	for _, s := range o.Segments {
		size += s
	}
	r := &ledger.Request{Owner: ledger.Owner{Tenant: a.c.Tenant, UID: p.house.cfg.UID}, Class: ledger.ClassWeights, Size: size, Segments: o.Segments, Model: a.load.Name,
		Priority: a.load.Priority, Patience: a.load.Patience}
	if o.Estimate > size { // room is made for so much before it is known to be less
		r.Size, r.Segments, r.Estimated = o.Estimate, nil, true
	}
	a.c.handed = true
	d.tell(seam.SystemLane, func() { d.planAllocate(a.c, r) })
}

func (p *poolActor) loaded(o *catalog.Outcome, tenant string) *schemas.LoadModelReply {
	cp := o.Copy
	d := p.house.byID[cp.Device]
	r := &schemas.LoadModelReply{Finished: schemas.Done(), Loaded: true, Model: p.model(cp.Model, tenant, false), AllocationIDs: []string{cp.Grant.String()},
		Tier: d.tier(), LoadTimeMs: millis(o.Took), SourceTier: p.sourceTier(cp), Evicted: evictions(o.Evicted)}
	if o.Reference != nil {
		r.ReferenceID = o.Reference.ID
	}
	if o.Hit {
		r.SourceTier, r.Evicted = d.tier(), []schemas.Eviction{}
	} else if o.Took > 0 {
		r.ThroughputBytesPerSecond = float64(cp.Model.Bytes) / o.Took.Seconds()
	}
	return r
}

func (p *poolActor) acquired(cp *catalog.Copy, ref *catalog.Reference, tenant string) *schemas.AcquireModelReply {
	r := &schemas.AcquireModelReply{Finished: schemas.Done(), ReferenceID: ref.ID, Model: p.model(cp.Model, tenant, false)}
	if ref.Ends != 0 {
		end := p.house.wallAt(ref.Ends)
		r.LeaseExpiresAt = &end
	}
	return r
}

func (p *poolActor) unload(c *call, in *schemas.UnloadModelRequest) {
	device := ""
	if in.DeviceID != "" {
		d, err := p.house.device(in.DeviceID)
		if err != nil {
			c.fail(err)
			return
		}
		device = d.id
	}
	r := catalog.UnloadRequest{Ref: &modelCall{c: c, begun: p.house.cfg.Clock.Wall()}, Tenant: c.Tenant, Name: in.Name, Device: device, Force: in.Force, RequestID: c.RequestID}
	if in.DeadlineMs != nil {
		r.Deadline = time.Duration(*in.DeadlineMs) * time.Millisecond
	}
	if in.To == schemas.UnloadToRAM {
		p.demote(c, r)
		return
	}
	if c.DryRun {
		c.foreseen(p.core.PlanUnload(r), "the model would be released")
		return
	}
	p.core.Unload(r, p.house.now())
	p.flush()
	c.follow(schemas.StatusRunning, 0, "waits until nobody can touch the bytes any more", nil)
}

// acquirePatience is how long the load of an acquired model may wait for room: what
// load_model waits by default.
const acquirePatience = 120 * time.Second

func (p *poolActor) acquire(c *call, in *schemas.AcquireModelRequest) {
	d, err := p.target(in.Name, c.Tenant, in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	ref := &catalog.Reference{ID: newID(p.house.cfg.Random, d.tag).String(), Session: c.owner.Session}
	if in.LeaseSeconds != nil {
		ref.Lease = time.Duration(*in.LeaseSeconds) * time.Second
	}
	p.loadWith(c, catalog.LoadRequest{Ref: &modelCall{c: c, begun: p.house.cfg.Clock.Wall()}, Tenant: c.Tenant, Name: in.Name, Device: d.id, RequestID: c.RequestID,
		Patience: acquirePatience, Reference: ref, Keep: true, DryRun: c.DryRun})
}

func (p *poolActor) releaseReference(c *call, in *schemas.ReleaseModelRequest) {
	if c.DryRun {
		_, err := p.core.FindReference(c.Tenant, in.Name, in.ReferenceID)
		c.foreseen(err, "the reference would end")
		return
	}
	err := p.core.ReleaseReference(c.Tenant, in.Name, in.ReferenceID, p.house.now())
	p.flush()
	if err != nil {
		c.fail(err)
		return
	}
	r := &schemas.ReleaseModelReply{Finished: schemas.Done(), ReferenceID: in.ReferenceID}
	p.remember(c, r)
	c.done(r, nil)
}

// remember records the outcome of a command whose effect is on record already. Where the
// ledger has no room for it, a retry is a new command: it finds nothing left to do.
func (p *poolActor) remember(c *call, reply any) {
	if c.key == "" {
		return
	}
	rec := ledger.AnswerRecord{Key: c.key, Digest: c.Digest, Action: string(c.Action), Body: codec.Append(nil, codec.JSON, reply)}
	err := p.core.KeepAnswer(c.key, rec, p.house.now())
	p.flush()
	if err != nil {
		p.house.log.Warn("an outcome is not remembered", "action", string(c.Action), "request_id", c.RequestID, "error", err)
		return
	}
	c.home, c.record = "pool", rec
}

// renew extends a reference's lease and gives its new end to use, on the pool's goroutine.
func (p *poolActor) renew(tenant, id string, lease time.Duration, dry bool, use func(time.Time, *schemas.Error)) {
	p.tell(seam.SystemLane, func() {
		if dry {
			_, err := p.core.FindReference(tenant, "", id)
			use(time.Time{}, err)
			return
		}
		ref, err := p.core.Renew(tenant, id, catalog.Reference{Lease: lease}, p.house.now())
		var end time.Time
		if err == nil {
			end = p.house.wallAt(ref.Ends)
		}
		p.flush()
		use(end, err)
	})
}

func (p *poolActor) getHandle(c *call, in *schemas.GetHandleRequest) {
	m, err := p.core.Find(c.Tenant, in.ModelName)
	if err != nil {
		c.fail(err)
		return
	}
	device := ""
	if in.DeviceID != "" {
		d, err := p.house.device(in.DeviceID)
		if err != nil {
			c.fail(err)
			return
		}
		device = d.id
	}
	cp := m.Usable(device)
	if cp == nil {
		c.fail(schemas.Errorf(schemas.CodeModelNotFound, "model %q is known but not loaded: use load_model or acquire_model", in.ModelName).With("name", in.ModelName))
		return
	}
	p.core.Touch(cp.Grant, p.house.now())
	p.flush()
	p.house.byID[cp.Device].claim(cp.Grant, m.Tenant, c.Tenant, func(h *schemas.Handle, err *schemas.Error) {
		if err != nil {
			c.fail(err)
			return
		}
		c.done(&schemas.GetHandleReply{Handle: *h}, nil)
	})
}

// handleOf makes a fresh claim on a copy that a tenant has loaded, and gives it to use. A
// copy that has gone since has none; name is of the model, for the message.
func (p *poolActor) handleOf(grant uuid.UUID, tenant, name string, use func(*schemas.Handle, *schemas.Error)) {
	p.tell(seam.SystemLane, func() {
		cp, ok := p.core.ByGrant(grant)
		if !ok || cp.State != catalog.Sealed || cp.Model.Tenant != tenant && !cp.Model.Shared {
			use(nil, handleGone(name, nil))
			return
		}
		p.house.byID[cp.Device].claim(grant, cp.Model.Tenant, tenant, func(h *schemas.Handle, err *schemas.Error) {
			if err != nil {
				err = handleGone(name, err)
			}
			use(h, err)
		})
	})
}

// handleGone is what is said of a loaded model whose memory cannot be had any more. A
// ledger that is full for the moment says so itself.
func handleGone(name string, err *schemas.Error) *schemas.Error {
	if err != nil && err.Code == schemas.CodeBusy {
		return err
	}
	return schemas.Errorf(schemas.CodeStaleHandle, "model %q was released before its handle was fetched: load it again", name).With("name", name)
}

// forgetAnswer drops the record of an outcome that was not told after all.
func (p *poolActor) forgetAnswer(c *call) {
	if c.record.Key != "" {
		c.record = ledger.AnswerRecord{}
		p.core.ForgetAnswers([]string{c.key})
	}
}

// progressed tells those who follow a load how far it has come.
func (p *poolActor) progressed(cp *catalog.Copy) {
	for _, ref := range cp.Waiters() {
		if a, ok := ref.(*modelCall); ok && a.c.operation != "" {
			p.house.sessions.moved(a.c.operation, cp.Done(), cp.Model.Bytes)
		}
	}
}
