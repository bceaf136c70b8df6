package catalog

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// Load brings a model to a device: at once if it is there, with the others if it is on
// its way, else from a copy in main memory, else from its file. The answer is OutcomeLoaded (OutcomeAcquired with a
// Reference), OutcomePlanned for a dry run, or OutcomeRefused.
func (c *Catalog) Load(r LoadRequest, now ledger.Now) {
	c.begin()
	m, err := c.Find(r.Tenant, r.Name)
	if err == nil && m.Tenant != r.Tenant && r.Path != "" && !m.At(r.Path) {
		m = nil // another tenant's model, and this tenant means a file of its own
	}
	switch {
	case err != nil && r.Path == "":
		c.refuse(r.Ref, err)
		return
	case m != nil && r.Path != "" && !m.At(r.Path) && !m.nowhere():
		c.refuse(r.Ref, schemas.Errorf(schemas.CodeModelConflict, "model %q is %s: unload it, or choose another name", r.Name, m.Path).With("path", m.Path))
		return
	case m != nil:
		if cp := m.copies[r.Device]; cp != nil && !(r.Changed && cp.State == Sealed && m.Tenant == r.Tenant) {
			c.meet(cp, r, now)
			return
		}
		if r.Path == "" || m.At(r.Path) {
			r.Path = m.Path
		}
	}
	if r.DryRun && m != nil && c.source(m, &r) != nil {
		c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomePlanned, Ref: r.Ref, Segments: m.Segments})
		return
	}
	if r.DryRun {
		if m != nil {
			r.Estimate = m.Estimate(r.Estimate)
		}
		c.out.Steps = append(c.out.Steps, Step{Kind: StepInspect, Request: &r})
		return
	}
	c.start(m, r, now)
}

// Estimate is how many bytes a copy will take: what it took the last time, else what a client
// declared.
func (m *Model) Estimate(declared int64) int64 {
	if len(m.Segments) == 0 {
		return declared
	}
	var n int64
	for _, s := range m.Segments {
		n += s
	}
	return n
}

// source is the copy in main memory that a load can be made of, or nil: its file is read.
func (c *Catalog) source(m *Model, r *LoadRequest) *Copy {
	if r.Changed || r.Path != "" && !m.At(r.Path) {
		return nil
	}
	return c.WarmCopy(m, r.Device)
}

// meet serves a load of a model that has a copy on the device.
func (c *Catalog) meet(cp *Copy, r LoadRequest, now ledger.Now) {
	switch cp.State {
	case Sealed:
		if r.DryRun {
			c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomePlanned, Ref: r.Ref, Copy: cp, Hit: true})
			return
		}
		c.hits++
		c.adjust(cp.Model, r)
		if cp.Home != "" {
			cp.Home = "" // it is here because somebody wants it here
			c.saveCopy(cp)
		}
		c.deliver(cp, r, true, now)
	case Loading:
		if cp.cancel != nil {
			c.refuse(r.Ref, schemas.Errorf(schemas.CodeBusy, "a load of model %q is being given up on %s", r.Name, cp.Device).With("retry_after_ms", 50))
			return
		}
		if r.DryRun {
			c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomePlanned, Ref: r.Ref, Copy: cp})
			return
		}
		c.misses++
		cp.waiters = append(cp.waiters, r)
		c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomeProgress, Ref: r.Ref, Copy: cp, Reason: "another client is loading it"})
	default:
		// It is on its way out. It comes back when it is gone: nothing waits on a copy
		// whose readers may never let go.
		c.refuse(r.Ref, schemas.Errorf(schemas.CodeBusy, "model %q is being released from %s", r.Name, cp.Device).With("retry_after_ms", 50))
	}
}

// adjust takes over what a later load says of a known model.
func (c *Catalog) adjust(m *Model, r LoadRequest) {
	if m.Tenant != r.Tenant || r.Keep {
		return
	}
	if m.Pinned != r.Pinned || m.Priority != r.Priority || r.Type != "" && r.Type != m.Type || m.Shared != r.Shared {
		m.Pinned, m.Priority, m.Shared = r.Pinned, r.Priority, r.Shared
		if r.Type != "" {
			m.Type = r.Type
		}
		c.saveModel(m)
		for _, cp := range m.copies {
			c.moved(cp)
		}
	}
}

// start begins a load: the file is looked at before anything is promised.
func (c *Catalog) start(m *Model, r LoadRequest, now ledger.Now) {
	c.misses++
	if m == nil || m.Path != r.Path && m.Tenant == r.Tenant {
		if m != nil {
			c.drop(m) // it has no copies: the name is free for another file
		}
		m = &Model{ID: c.next, Identity: Identity{Tenant: r.Tenant, Name: r.Name, Path: r.Path, Version: 1},
			Type: r.Type, Shared: r.Shared, Pinned: r.Pinned, Priority: r.Priority, asked: r.Path, copies: map[string]*Copy{}}
		c.next++
		c.models[nameKey(r.Tenant, r.Name)] = m
		c.list(m)
	} else {
		c.adjust(m, r)
		if m.copies[r.Device] != nil {
			m = c.successor(m)
		}
		if from := c.source(m, &r); from != nil {
			c.promote(m, from, r, now)
			return
		}
	}
	cp := c.copyOf(m, r.Device, nil, now)
	cp.waiters = []LoadRequest{r}
	c.out.Steps = append(c.out.Steps, Step{Kind: StepInspect, Copy: cp, Request: &r, Estimate: m.Estimate(r.Estimate)})
	c.event(schemas.EventModelLoading, cp, Event{RequestID: r.RequestID})
}

// Inspected is the outcome of StepInspect. For a dry run r is its request and cp is nil.
func (c *Catalog) Inspected(cp *Copy, r *LoadRequest, d Description, fail *schemas.Error, now ledger.Now) (used bool) {
	c.begin()
	if cp == nil {
		if fail != nil {
			c.refuse(r.Ref, fail)
		} else {
			c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomePlanned, Ref: r.Ref, Segments: d.Segments, Estimate: r.Estimate})
		}
		return false
	}
	if cp.State == Failed {
		return false // the device has refused it meanwhile
	}
	if fail == nil {
		fail = cp.cancel
	}
	if fail != nil {
		c.failed(cp, fail, now)
		return false
	}
	if c.unchanged(cp, d, now) {
		return false
	}
	c.version(cp, d)
	m := cp.Model
	m.Path, m.ContentID, m.Bytes, m.Tensors, m.Segments = d.Path, d.ContentID, d.Bytes, d.Tensors, d.Segments
	cp.source, m.Stamp = d.Source, d.Stamp
	first := cp.waiters[0]
	c.out.Steps = append(c.out.Steps, Step{Kind: StepAllocate, Copy: cp, Request: &first, Patience: first.Patience})
	return true
}

// Waiting is the device's word that the allocation is in line.
func (c *Catalog) Waiting(cp *Copy, position int, reason string) {
	c.begin()
	if cp.cancel != nil {
		// It was given up before the device could be told which request to take back.
		c.out.Steps = append(c.out.Steps, Step{Kind: StepAbandon, Copy: cp, Why: cp.cancel.Message})
		return
	}
	for _, r := range cp.waiters {
		c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomeProgress, Ref: r.Ref, Copy: cp, Position: position, Reason: reason})
	}
	for _, d := range cp.demotions {
		if ref := d.unload.Ref.(*batch).ref; ref != nil {
			c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomeProgress, Ref: ref, Copy: cp, Position: position, Reason: reason})
		}
	}
}

// Granted is the device's grant for a load. The device has it on record; the copy is
// recorded when it is sealed, and a successor undoes what is not.
// queued is how long it waited for room: that is no part of what a load takes.
func (c *Catalog) Granted(cp *Copy, grant uuid.UUID, granted int64, evicted []ledger.Evicted, queued time.Duration, now ledger.Now) {
	c.begin()
	cp.queued = queued
	cp.Grant, cp.Granted, cp.evicted = grant, granted, append(cp.evicted, evicted...)
	c.grants[grant] = cp
	if cp.cancel != nil {
		c.out.Steps = append(c.out.Steps, Step{Kind: StepRelease, Copy: cp, Grant: grant, Force: true, Why: ledger.WhyLoadFailed})
		return
	}
	switch from := cp.from; {
	case from == nil:
		c.out.Steps = append(c.out.Steps, Step{Kind: StepFill, Copy: cp, Grant: grant, Source: cp.source})
	case from.State != Sealed:
		cp.cancel = unloadedMeanwhile(cp.Model.Name)
		c.out.Steps = append(c.out.Steps, Step{Kind: StepRelease, Copy: cp, Grant: grant, Force: true, Why: ledger.WhyLoadFailed})
	default:
		c.out.Steps = append(c.out.Steps, Step{Kind: StepCopy, Copy: cp, Grant: grant, From: from})
	}
}

// Refused is the device's refusal of a load, or the end of one that was taken back.
func (c *Catalog) Refused(cp *Copy, err *schemas.Error, now ledger.Now) {
	c.begin()
	if cp.cancel != nil {
		err = cp.cancel
	}
	c.failed(cp, err, now)
}

// progressEvery bounds the progress events of one load (contract: at most 10 a second).
const progressEvery = 100 * time.Millisecond

// Progress reports bytes read.
func (c *Catalog) Progress(cp *Copy, done int64, now ledger.Now) {
	c.begin()
	cp.done = done
	if now.Boot.Sub(cp.progress) < progressEvery {
		return
	}
	cp.progress = now.Boot
	c.event(schemas.EventModelLoadProgress, cp, Event{Done: done, Took: now.Boot.Sub(cp.started)})
}

// Filled is the end of StepFill, and of StepCopy.
func (c *Catalog) Filled(cp *Copy, fail *schemas.Error, now ledger.Now) {
	c.begin()
	if fail = cp.unfed(fail); cp.cancel != nil {
		fail = cp.cancel
	}
	c.fed(cp, now)
	if fail != nil {
		cp.cancel = fail
		c.out.Steps = append(c.out.Steps, Step{Kind: StepRelease, Copy: cp, Grant: cp.Grant, Force: true, Why: ledger.WhyLoadFailed})
		return
	}
	cp.done = cp.Model.Bytes
	c.out.Steps = append(c.out.Steps, Step{Kind: StepSeal, Copy: cp, Grant: cp.Grant})
}

// SealDone is the end of StepSeal: the copy is on record as usable, together with the
// answers of those who waited, and then they hear of it.
func (c *Catalog) SealDone(cp *Copy, fail *schemas.Error, now ledger.Now) {
	c.begin()
	if fail == nil {
		fail = cp.cancel
	}
	if fail != nil {
		cp.cancel = fail
		c.out.Steps = append(c.out.Steps, Step{Kind: StepRelease, Copy: cp, Grant: cp.Grant, Force: true, Why: ledger.WhyLoadFailed})
		return
	}
	m, waiters, asker := cp.Model, cp.waiters, cp.asker()
	cp.State, cp.source, cp.waiters = Sealed, nil, nil
	delete(c.loading, cp)
	cp.Took = max(0, now.Boot.Sub(cp.started)-cp.queued)
	switch {
	case cp.Origin == "":
		cp.Cost = cp.Took
	case c.warm[cp.Origin]:
		m.WarmCost = cp.Took
	}
	if len(waiters) > 0 {
		m.Loads++
		m.LastUsed, cp.UsedAt, cp.Home, cp.loaded = now.Wall, now.Boot, "", now.Boot
	}
	if err := c.saveSealed(cp, waiters, now); err != nil {
		cp.State, cp.waiters = Loading, waiters
		c.loading[cp] = true
		cp.cancel = err
		c.out.Steps = append(c.out.Steps, Step{Kind: StepRelease, Copy: cp, Grant: cp.Grant, Force: true, Why: ledger.WhyLoadFailed})
		return
	}
	c.policy.Loaded(object(cp), now.Boot)
	kind := schemas.EventModelLoaded
	if c.warm[cp.Origin] {
		kind = schemas.EventModelPromoted
	}
	c.event(kind, cp, Event{RequestID: asker, Took: cp.Took, Done: cp.done})
	for i, r := range waiters {
		kind := UseLoad
		if i > 0 {
			kind = UseHit
		}
		c.use(cp, kind, now)
		c.hand(cp, r, i > 0)
	}
	c.moved(cp)
	c.succeed(m, now)
	demotions := cp.demotions
	cp.demotions = nil
	for _, d := range demotions {
		if d.order != nil {
			c.descended(d, cp, now)
		} else {
			c.demoted(d.from, cp, d.unload)
		}
	}
	c.unwarmed(cp, waiters)
	if len(waiters) == 0 {
		c.settle(cp, now) // a newer version may have come meanwhile
	}
}

// asker is the request_id of the command that began a load.
func (cp *Copy) asker() string {
	switch {
	case len(cp.waiters) > 0:
		return cp.waiters[0].RequestID
	case len(cp.demotions) > 0:
		return cp.demotions[0].unload.RequestID
	}
	return ""
}

// deliver answers a load with a copy that is there.
func (c *Catalog) deliver(cp *Copy, r LoadRequest, hit bool, now ledger.Now) {
	c.use(cp, UseHit, now)
	if r.Key != "" && r.Answer != nil || r.Reference != nil {
		if err := c.saveUse(cp, r, now); err != nil {
			c.refuse(r.Ref, err)
			return
		}
		c.moved(cp)
	}
	c.hand(cp, r, hit)
}

func (c *Catalog) hand(cp *Copy, r LoadRequest, hit bool) {
	o := Outcome{Kind: OutcomeLoaded, Ref: r.Ref, Copy: cp, Hit: hit, Took: cp.Took, Evicted: cp.evicted}
	if r.Reference != nil {
		o.Kind, o.Reference = OutcomeAcquired, r.Reference
	}
	c.out.Outcomes = append(c.out.Outcomes, o)
}

// failed ends a load whose bytes are gone, or were never there.
func (c *Catalog) failed(cp *Copy, err *schemas.Error, now ledger.Now) {
	if cp.State == Failed {
		return
	}
	m := cp.Model
	delete(m.copies, cp.Device)
	delete(c.grants, cp.Grant)
	id := cp.asker()
	cp.State = Failed
	delete(c.loading, cp)
	delete(c.leaving, cp)
	c.fed(cp, now)
	c.event(schemas.EventModelLoadFailed, cp, Event{RequestID: id, Err: err, Reason: err.Message, Took: now.Boot.Sub(cp.started)})
	for _, r := range cp.waiters {
		c.refuse(r.Ref, err)
	}
	for _, u := range cp.unloads {
		c.unloaded(u, cp, 0, true, 0)
	}
	for _, d := range cp.demotions {
		if d.order != nil {
			c.dropped(d, err, now)
		} else {
			c.refuseUnload(d.unload, err)
		}
	}
	cp.waiters, cp.unloads, cp.demotions = nil, nil, nil
	c.moved(cp)
	if len(m.copies) == 0 && m.rec == 0 || m.Superseded && m.nowhere() {
		c.drop(m) // it was never there: its name means what it meant before
	}
}

// Cancel takes one waiter off a load, or an unload off the demotions that it waits for; the
// last one ends what is under way. It reports whether ref waited.
func (c *Catalog) Cancel(ref any, err *schemas.Error, now ledger.Now) bool {
	c.begin()
	if c.cancelUnload(ref, err) {
		return true
	}
	for _, cp := range c.loadingCopies() {
		for i, r := range cp.waiters {
			if r.Ref != ref {
				continue
			}
			if len(cp.waiters)+len(cp.demotions) > 1 {
				cp.waiters = append(cp.waiters[:i:i], cp.waiters[i+1:]...)
				c.refuse(ref, err)
				return true
			}
			c.stop(cp, err)
			return true
		}
	}
	return false
}

// stop gives a load up; what is under way ends at its next chunk and then undoes itself.
func (c *Catalog) stop(cp *Copy, err *schemas.Error) {
	if cp.cancel != nil {
		return
	}
	cp.cancel = err
	kind := StepStop
	if cp.Grant == uuid.Nil {
		kind = StepAbandon
	}
	c.out.Steps = append(c.out.Steps, Step{Kind: kind, Copy: cp, Why: err.Message})
}

// unloadedMeanwhile answers those who wait for a load that another client's unload ends:
// they have cancelled nothing.
func unloadedMeanwhile(name string) *schemas.Error {
	return schemas.Errorf(schemas.CodeModelNotFound, "model %q was unloaded by a client while it was being loaded: load it again", name).With("name", name)
}
