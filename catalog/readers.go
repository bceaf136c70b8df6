package catalog

import (
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

func object(cp *Copy) eviction.Object {
	return eviction.Object{Key: cp.Key(), Bytes: cp.Granted, Cost: cp.cost().Seconds(), Place: cp.Device}
}

// cost is what it would take to have the copy again: less, where main memory has another.
func (cp *Copy) cost() time.Duration {
	if w := cp.Model.WarmCost; w > 0 && cp.Home == "" && w < cp.Cost {
		for _, other := range cp.Model.copies {
			if other.Home != "" && other.State == Sealed {
				return w
			}
		}
	}
	return cp.Cost
}

// Mapped is the device's word that a session holds descriptors of a copy, or no longer.
func (c *Catalog) Mapped(r ledger.Reader, now ledger.Now) {
	c.begin()
	s := r.Session
	cp, ok := c.grants[r.Grant]
	if !ok {
		return
	}
	_, known := cp.mappers[s]
	switch {
	case r.Gone:
		delete(cp.mappers, s)
		cp.unread(now)
	case !known:
		cp.mappers[s] = r.Tenant
		c.use(cp, UseTouch, now)
	}
	c.settle(cp, now)
	c.moved(cp)
}

// unread notes that a reader has let go.
func (cp *Copy) unread(now ledger.Now) {
	if cp.Readers() == 0 {
		cp.letGo = now.Boot
	}
}

// grace is for how long the copy is kept because it was just loaded.
func (cp *Copy) grace() (g eviction.Grace) {
	if cp.loaded != 0 {
		g = eviction.GraceOf(cp.loaded, cp.Took)
		if cp.letGo != 0 {
			g = g.LetGo(cp.letGo)
		}
	}
	return g
}

// ReleaseReference ends a reference that acquire_model gave.
func (c *Catalog) ReleaseReference(tenant, name, id string, now ledger.Now) *schemas.Error {
	c.begin()
	cp, err := c.FindReference(tenant, name, id)
	if err != nil {
		return err
	}
	c.dropReference(cp, id, now)
	return nil
}

// FindReference finds the copy that a reference of a tenant keeps; name, if set, must be
// its model's. It is the dry run of ReleaseReference and of Renew.
func (c *Catalog) FindReference(tenant, name, id string) (*Copy, *schemas.Error) {
	cp, ok := c.byRef[id]
	if !ok || cp.readerOf(cp.refs[id].Tenant) != tenant || name != "" && cp.Model.Name != name {
		return nil, schemas.Errorf(schemas.CodeModelNotFound, "no reference %s", id).With("reference_id", id)
	}
	return cp, nil
}

func (c *Catalog) dropReference(cp *Copy, id string, now ledger.Now) {
	delete(cp.refs, id)
	delete(c.byRef, id)
	cp.unread(now)
	c.saveCopy(cp)
	c.settle(cp, now)
	c.moved(cp)
}

// Renew extends a reference's lease from now.
func (c *Catalog) Renew(tenant, id string, r Reference, now ledger.Now) (*Reference, *schemas.Error) {
	c.begin()
	cp, err := c.FindReference(tenant, "", id)
	if err != nil {
		return nil, err
	}
	ref := cp.refs[id]
	ref.Lease, ref.Ends = r.Lease, now.Boot.Add(r.Lease)
	c.saveCopy(cp)
	return ref, nil
}

// SessionGone ends the references of a session.
func (c *Catalog) SessionGone(s ledger.SessionID, now ledger.Now) {
	c.begin()
	for _, id := range sorted(c.byRef) {
		if cp := c.byRef[id]; cp.refs[id].Session == s {
			c.dropReference(cp, id, now)
		}
	}
}

// Next returns when the next lease of a reference runs out.
func (c *Catalog) Next() (at clock.Instant, ok bool) {
	if c.away {
		return 0, false
	}
	for id, cp := range c.byRef {
		if e := cp.refs[id].Ends; e != 0 && (!ok || e < at) {
			at, ok = e, true
		}
	}
	return at, ok
}

// Tick ends references whose lease ran out.
func (c *Catalog) Tick(now ledger.Now) {
	c.begin()
	if c.away {
		return
	}
	for _, id := range sorted(c.byRef) {
		cp := c.byRef[id]
		if e := cp.refs[id].Ends; e != 0 && e <= now.Boot {
			c.dropReference(cp, id, now)
		}
	}
}

// settle lets go of a superseded version that nobody reads any more.
func (c *Catalog) settle(cp *Copy, now ledger.Now) {
	if cp.Model.Superseded && cp.State == Sealed && cp.Readers() == 0 && len(cp.feeds) == 0 && cp.Model.copies[cp.Device] == cp {
		c.release(cp, false, 0, "a newer version has its name", nil)
	}
}
