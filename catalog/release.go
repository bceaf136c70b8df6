package catalog

import (
	"sort"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// Unload lets go of a model, or of all models of the tenant by the name "*". The answer
// is OutcomeUnloaded once the bytes are back or the deadline has passed.
func (c *Catalog) Unload(r UnloadRequest, now ledger.Now) {
	c.begin()
	copies, err := c.unloadable(r)
	if err != nil {
		c.refuse(r.Ref, err)
		return
	}
	b := &batch{ref: r.Ref, left: len(copies), confirmed: true}
	if len(copies) == 0 {
		c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomeUnloaded, Ref: r.Ref, Confirmed: true})
		return
	}
	for _, cp := range copies {
		u := r
		u.Ref = b
		b.name(cp.Model.Name)
		if r.Demote != nil {
			c.demote(cp, u, now)
			continue
		}
		switch cp.State {
		case Sealed:
			c.release(cp, r.Force, r.Deadline, ledger.WhyUnloaded, &u)
		case Loading:
			cp.unloads = append(cp.unloads, u)
			c.stop(cp, unloadedMeanwhile(cp.Model.Name))
		case Revoking:
			cp.unloads = append(cp.unloads, u)
		}
	}
}

// batch gathers the ends of an unload of several copies.
type batch struct {
	ref           any
	left          int
	names         []string
	freed, zombie int64
	confirmed     bool
}

func (b *batch) name(s string) {
	for _, n := range b.names {
		if n == s {
			return
		}
	}
	b.names = append(b.names, s)
}

func (c *Catalog) unloaded(u UnloadRequest, cp *Copy, freed int64, confirmed bool, zombie int64) {
	b := u.Ref.(*batch)
	b.left--
	b.freed += freed
	b.zombie += zombie
	b.confirmed = b.confirmed && confirmed
	if b.left == 0 && b.ref != nil {
		c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomeUnloaded, Ref: b.ref, Copy: cp, Names: b.names, Freed: b.freed, Zombie: b.zombie, Confirmed: b.confirmed})
	}
}

// Evict begins to release a copy because the optimizer ordered it. It reports false when
// the copy is not, or no longer, evictable.
func (c *Catalog) Evict(cp *Copy, why string, now ledger.Now) bool {
	c.begin()
	if !cp.evictable() {
		return false
	}
	c.evict(cp, false, 0, why, now)
	return true
}

// EvictByForce is Evict of a copy that somebody may read: its references end, and who maps
// it is asked to let go by the deadline (0: the device's own). A pinned copy stays.
func (c *Catalog) EvictByForce(cp *Copy, deadline time.Duration, why string, now ledger.Now) bool {
	c.begin()
	if cp.State != Sealed || cp.Model.Pinned || len(cp.feeds) > 0 {
		return false
	}
	c.evict(cp, true, deadline, why, now)
	return true
}

func (c *Catalog) evict(cp *Copy, force bool, deadline time.Duration, why string, now ledger.Now) {
	c.policy.Evicted(cp.Key(), now.Boot)
	cp.ordered = true
	c.release(cp, force, deadline, why, nil)
}

func (c *Catalog) release(cp *Copy, force bool, deadline time.Duration, why string, u *UnloadRequest) {
	cp.State, cp.why, cp.force = Revoking, why, force
	c.leaving[cp] = true
	var readers map[string]int
	if cp.Model.Shared {
		readers = cp.ReadersByTenant()
	}
	if u != nil {
		cp.unloads = append(cp.unloads, *u)
	}
	if force {
		for id := range cp.refs {
			delete(c.byRef, id)
		}
		clear(cp.refs)
	}
	c.saveCopy(cp)
	c.event(schemas.EventModelReleaseRequested, cp, Event{Reason: why, Readers: readers})
	c.out.Steps = append(c.out.Steps, Step{Kind: StepRelease, Copy: cp, Grant: cp.Grant, Force: force, Deadline: deadline, Why: why})
	c.moved(cp)
}

// Released is the device's word on a copy's grant: its bytes are back (confirmed), or
// somebody pins them past the deadline. A pinned copy is reported again when it is free.
func (c *Catalog) Released(grant uuid.UUID, freed, zombie int64, confirmed bool, now ledger.Now) {
	c.begin()
	cp, ok := c.grants[grant]
	if !ok {
		return
	}
	unloads := cp.unloads
	cp.unloads = nil
	if cp.cancel != nil {
		c.erase(cp)
		cp.unloads = unloads
		c.failed(cp, cp.cancel, now)
		return
	}
	if confirmed {
		delete(c.leaving, cp)
		delete(cp.Model.copies, cp.Device)
		delete(c.grants, grant)
		c.erase(cp)
		c.unknown(cp, now)
		kind := schemas.EventModelUnloaded
		if demotedWhy(cp.why) {
			kind = schemas.EventModelDemoted
		}
		c.event(kind, cp, Event{Freed: freed, Reason: cp.why})
		if m := cp.Model; m.Superseded && m.nowhere() {
			c.drop(m)
		}
		c.forgetOld()
	}
	for _, u := range unloads {
		c.unloaded(u, cp, freed, confirmed, zombie)
	}
	c.moved(cp)
}

// ReleaseRefused is the device's word that somebody mapped the copy before its release:
// it stays.
func (c *Catalog) ReleaseRefused(grant uuid.UUID, err *schemas.Error, now ledger.Now) {
	c.begin()
	cp, ok := c.grants[grant]
	if !ok {
		return
	}
	if cp.cancel != nil {
		return // an unfinished load is released by force: there is nobody to refuse for
	}
	cp.State, cp.ordered, cp.force = Sealed, false, false
	delete(c.leaving, cp)
	c.saveCopy(cp)
	c.policy.Loaded(object(cp), now.Boot)
	unloads := cp.unloads
	cp.unloads = nil
	c.moved(cp)
	for _, u := range unloads {
		c.refuseUnload(u, err)
		if u.into != nil {
			c.cool(u.into)
		}
	}
}

// unknown has the policy forget a copy that was not evicted, unless another version of
// the model lies in its place.
func (c *Catalog) unknown(cp *Copy, now ledger.Now) {
	if cp.ordered {
		return
	}
	for _, m := range c.index.named[cp.Model.Name] {
		if other := m.copies[cp.Device]; other != nil && m.Tenant == cp.Model.Tenant && c.grants[other.Grant] == other {
			return
		}
	}
	c.policy.Removed(cp.Key())
	c.forget(cp)
	c.out.Uses = append(c.out.Uses, Use{Kind: UseGone, Key: cp.Key(), Device: cp.Device, At: now.Boot, Bytes: cp.Granted, Cost: cp.cost()})
}

// maxRemembered bounds the models that are known and nowhere loaded: what a client can name
// without its path.
const maxRemembered = 4096

// forgetOld drops the models that nobody has used for longest, where more are remembered
// than may be. It drops some more than it must, so that this is not looked at with every
// unload.
func (c *Catalog) forgetOld() {
	if len(c.all)-len(c.grants) <= c.remembered { // a model that is loaded has a grant
		return
	}
	var idle []*Model
	for _, m := range c.all {
		if m.nowhere() {
			idle = append(idle, m)
		}
	}
	if len(idle) <= c.remembered {
		return
	}
	sort.Slice(idle, func(i, j int) bool {
		a, b := idle[i], idle[j]
		return a.LastUsed.Before(b.LastUsed) || a.LastUsed.Equal(b.LastUsed) && a.ID < b.ID
	})
	for _, m := range idle[:len(idle)-c.remembered+c.remembered/16] {
		c.drop(m)
	}
}

// drop removes a model that has no copies. Its name means the version before it, if this
// one never replaced that.
func (c *Catalog) drop(m *Model) {
	delete(c.all, m.ID)
	c.index.leave(m)
	if k := nameKey(m.Tenant, m.Name); c.models[k] == m {
		delete(c.models, k)
		if m.prev != nil && !m.prev.Superseded {
			c.models[k] = m.prev
		}
	}
	for _, next := range c.all {
		if next.prev == m {
			next.prev = m.prev
		}
	}
	if m.rec != 0 {
		tx := c.region.Begin()
		tx.Delete(m.rec)
		must(tx.Commit())
		m.rec = 0
	}
}

// PlanUnload is the dry run of Unload: why it would be refused, or nil.
func (c *Catalog) PlanUnload(r UnloadRequest) *schemas.Error {
	_, err := c.unloadable(r)
	return err
}

// unloadable lists the copies that an unload lets go of, in order, or says why it may not.
func (c *Catalog) unloadable(r UnloadRequest) ([]*Copy, *schemas.Error) {
	var models []*Model
	if r.Name == schemas.ModelNameAll {
		for _, m := range c.all {
			if m.Tenant == r.Tenant || r.Everyone {
				models = append(models, m)
			}
		}
		sort.Slice(models, func(i, j int) bool { return models[i].ID < models[j].ID })
	} else {
		m, err := c.Find(r.Tenant, r.Name)
		if err == nil && m.Tenant != r.Tenant {
			err = schemas.Errorf(schemas.CodeForbidden, "model %q belongs to another tenant", r.Name)
		}
		if err != nil {
			return nil, err
		}
		models = []*Model{m}
		for _, old := range c.all {
			if old.Superseded && old.Tenant == m.Tenant && old.Name == m.Name {
				models = append(models, old)
			}
		}
	}
	var copies []*Copy
	for _, m := range models {
		for _, cp := range m.copies {
			if r.Device == "" || r.Device == cp.Device {
				copies = append(copies, cp)
			}
		}
	}
	sort.Slice(copies, func(i, j int) bool {
		a, b := copies[i], copies[j]
		return a.Key() < b.Key() || a.Key() == b.Key() && a.Model.ID < b.Model.ID
	})
	if r.Name != "*" && len(copies) == 0 && len(models[0].parked) > 0 {
		return nil, schemas.Errorf(schemas.CodeDeviceLost, "model %q is on a device that is missing from the node's configuration, and is kept for when it is back", r.Name).
			With("name", r.Name)
	}
	if r.Demote != nil {
		var err *schemas.Error
		if copies, err = c.demotable(r, copies); err != nil {
			return nil, err
		}
	}
	if !r.Force {
		for _, cp := range copies {
			switch {
			case cp.State != Sealed:
			case cp.Readers() > 0:
				return nil, inUse(cp)
			case len(cp.feeds) > 0 && r.Demote == nil && !cp.onlyDescends():
				return nil, beingCopied(cp)
			}
		}
	}
	return copies, nil
}
