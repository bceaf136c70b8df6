package catalog

import (
	"sort"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// Demotion and promotion: a copy of a model that is made of another copy, not of the files.
// Down, an unload has the bytes copied to main memory before the copy on the device is
// released; up, a load takes them from there. The copy that is read is neither evicted nor
// let go of meanwhile, except by force: then the new one comes to nothing.

// WhyDemoted is why the copy of a model that was demoted is released, in events.
const WhyDemoted = "demoted to main memory"

// demotion is an unload, or an eviction, that waits until the copy in main memory is sealed.
type demotion struct {
	from   *Copy
	unload UnloadRequest
	order  *descent // nil: a client asked for it
}

// Warm names the devices whose copies other devices are served from: main memory. It is
// called once, before anything else.
func (c *Catalog) Warm(devices ...string) {
	for _, d := range devices {
		c.warm[d] = true
	}
}

// warmCopy is the sealed copy of a model in main memory, or nil.
func (c *Catalog) warmCopy(m *Model) *Copy {
	for _, d := range sorted(m.copies) {
		if cp := m.copies[d]; c.warm[d] && cp.State == Sealed {
			return cp
		}
	}
	return nil
}

// WarmCopy is the copy that a load to a device would be made of, or nil: then its file is
// read.
func (c *Catalog) WarmCopy(m *Model, device string) *Copy {
	if c.warm[device] || m.Superseded {
		return nil
	}
	return c.warmCopy(m)
}

// copyOf makes the loading copy of a model on a device, of another copy or, where from is
// nil, of its file.
func (c *Catalog) copyOf(m *Model, device string, from *Copy, now ledger.Now) *Copy {
	cp := &Copy{Model: m, Device: device, key: keyOf(device, m), State: Loading, started: now.Boot, refs: map[string]*Reference{}, mappers: map[ledger.SessionID]string{}}
	m.copies[device] = cp
	c.loading[cp] = true
	if from != nil {
		cp.from, cp.Origin, cp.Cost = from, from.Device, from.Cost
		if from.feeds == nil {
			from.feeds = map[*Copy]bool{}
		}
		from.feeds[cp] = true
		c.moved(from)
	}
	return cp
}

// promote begins a load of a model that main memory holds.
func (c *Catalog) promote(m *Model, from *Copy, r LoadRequest, now ledger.Now) {
	cp := c.copyOf(m, r.Device, from, now)
	cp.waiters = []LoadRequest{r}
	c.out.Steps = append(c.out.Steps, Step{Kind: StepAllocate, Copy: cp, Request: &r, Patience: r.Patience})
	c.event(schemas.EventModelLoading, cp, Event{RequestID: r.RequestID})
}

// demotable lists the copies that an unload to main memory takes there, of those that it
// names, or says why it may not. What is in main memory stays as it is.
func (c *Catalog) demotable(r UnloadRequest, copies []*Copy) ([]*Copy, *schemas.Error) {
	var out []*Copy
	for _, cp := range copies {
		if c.warm[cp.Device] {
			continue
		}
		into := c.warmCopy(cp.Model)
		if into == nil {
			into = cp.Model.copies[r.Demote[cp.Device]]
		}
		wait := func(where, what string) ([]*Copy, *schemas.Error) {
			return nil, schemas.Errorf(schemas.CodeBusy, "model %q is being %s %s", cp.Model.Name, what, where).With("retry_after_ms", 50)
		}
		switch {
		case cp.State == Loading:
			return wait(cp.Device, "loaded to")
		case cp.State == Revoking && (into == nil || into.State != Sealed):
			return wait(cp.Device, "released from")
		case into != nil && into.State == Revoking:
			return wait(into.Device, "released from")
		case into != nil && into.cancel != nil:
			return wait(into.Device, "given up on")
		}
		out = append(out, cp)
	}
	return out, nil
}

// ToDemote lists the copies that an unload would have to copy to main memory, in order: no
// copy is there, nor on its way.
func (c *Catalog) ToDemote(r UnloadRequest) (out []*Copy) {
	copies, err := c.unloadable(r)
	if err != nil {
		return nil
	}
	seen := map[*Model]bool{}
	for _, cp := range copies {
		if m := cp.Model; cp.State == Sealed && !seen[m] && c.warmCopy(m) == nil && m.copies[r.Demote[cp.Device]] == nil {
			seen[m] = true
			out = append(out, cp)
		}
	}
	return out
}

// demote has a copy copied to main memory, if it is not there, and then released.
func (c *Catalog) demote(cp *Copy, u UnloadRequest, now ledger.Now) {
	m := cp.Model
	into := c.warmCopy(m)
	if into == nil {
		into = m.copies[u.Demote[cp.Device]]
	}
	if into != nil && into.State == Sealed {
		c.demoted(cp, into, u)
		return
	}
	if into == nil {
		into = c.copyOf(m, u.Demote[cp.Device], cp, now)
		into.Home, into.UsedAt = cp.Device, cp.UsedAt
		// It does not queue: where main memory has no room, and can make none, the model stays.
		r := &LoadRequest{Ref: u.Ref.(*batch).ref, Tenant: m.Tenant, Name: m.Name, Device: into.Device, RequestID: u.RequestID}
		c.out.Steps = append(c.out.Steps, Step{Kind: StepAllocate, Copy: into, Request: r})
		c.event(schemas.EventModelLoading, into, Event{RequestID: u.RequestID, Reason: "it is demoted from " + cp.Device})
	}
	into.demotions = append(into.demotions, demotion{from: cp, unload: u})
}

// demoted goes on with an unload whose copy in main memory is there.
func (c *Catalog) demoted(from, into *Copy, u UnloadRequest) {
	switch {
	case from.Model.copies[from.Device] != from:
		c.unloaded(u, from, 0, true, 0) // it went by another way
	case from.State == Revoking:
		from.unloads = append(from.unloads, u)
	case from.State == Sealed && from.Readers() > 0 && !u.Force:
		c.refuseUnload(u, inUse(from))
		c.cool(into)
	case from.State == Sealed && len(from.feeds) > 0 && !u.Force:
		c.refuseUnload(u, beingCopied(from))
		c.cool(into)
	default:
		u.into = into
		c.release(from, u.Force, u.Deadline, WhyDemoted, &u)
	}
}

// cool lets go of a copy in main memory that was made for a demotion which came to nothing.
func (c *Catalog) cool(cp *Copy) {
	if cp.Home != "" && cp.State == Sealed && cp.Readers() == 0 && len(cp.feeds) == 0 {
		c.release(cp, false, 0, "its demotion came to nothing", nil)
	}
}

// fed notes that a copy needs the one that it is made of no longer.
func (c *Catalog) fed(cp *Copy, now ledger.Now) {
	if from := cp.from; from != nil {
		cp.from = nil
		delete(from.feeds, cp)
		c.settle(from, now)
		c.moved(from)
	}
}

// unfed is why a copy could not be made, where that is because the one it is made of went.
func (cp *Copy) unfed(fail *schemas.Error) *schemas.Error {
	if fail != nil && cp.from != nil && cp.from.State != Sealed && fail.Code != schemas.CodeDraining {
		return unloadedMeanwhile(cp.Model.Name)
	}
	return fail
}

// unwarmed lets go of the copy in main memory that a load was made of, where a client does
// not want it kept.
func (c *Catalog) unwarmed(cp *Copy, waiters []LoadRequest) {
	from := cp.Model.copies[cp.Origin]
	for _, r := range waiters {
		if r.Cold && from != nil && from.Home != "" && from.State == Sealed && from.Readers() == 0 && len(from.feeds) == 0 {
			c.release(from, false, 0, "its model was promoted, and is not to be kept warm", nil)
			return
		}
	}
}

func (c *Catalog) refuseUnload(u UnloadRequest, err *schemas.Error) {
	if b := u.Ref.(*batch); b.ref != nil {
		c.refuse(b.ref, err)
		b.ref = nil
	}
}

func inUse(cp *Copy) *schemas.Error {
	n := cp.Readers()
	return schemas.Errorf(schemas.CodeModelInUse, "%d readers hold model %q on %s: wait for them, or use force", n, cp.Model.Name, cp.Device).
		With("readers", n).With("name", cp.Model.Name)
}

func beingCopied(cp *Copy) *schemas.Error {
	var to []string
	for f := range cp.feeds {
		to = append(to, f.Device)
	}
	sort.Strings(to)
	return schemas.Errorf(schemas.CodeModelInUse, "model %q is being copied from %s to %s: wait for that, or use force", cp.Model.Name, cp.Device, to[0]).
		With("name", cp.Model.Name)
}

// cancelUnload takes an unload off the demotions that wait for their copy; one that nobody
// else waits for is stopped, and refuses the unload when it is undone. It reports whether
// ref waited. What is being released already goes on.
func (c *Catalog) cancelUnload(ref any, err *schemas.Error) bool {
	var b *batch
	stopped := false
	for _, cp := range c.loadingCopies() {
		for i := 0; i < len(cp.demotions); {
			x := cp.demotions[i].unload.Ref.(*batch)
			if x.ref != ref {
				i++
				continue
			}
			b = x
			if len(cp.waiters)+len(cp.demotions) == 1 {
				c.stop(cp, err)
				stopped = true
				break
			}
			cp.demotions = append(cp.demotions[:i:i], cp.demotions[i+1:]...)
		}
	}
	if b != nil && !stopped {
		c.refuse(ref, err)
		b.ref = nil
	}
	return b != nil
}

// loadingCopies lists the copies that somebody waits for, in order.
func (c *Catalog) loadingCopies() (out []*Copy) {
	for cp := range c.loading {
		out = append(out, cp)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		return a.Model.ID < b.Model.ID || a.Model.ID == b.Model.ID && a.Device < b.Device
	})
	return out
}
