package catalog

import (
	"strings"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// Evictions by way of main memory: what the optimizer orders to go from a device is copied
// down first, and released once the copy is sealed. Whatever keeps the copy from being made
// has the model dropped at once: the order stands.

// descent is an eviction that waits for its copy in main memory.
type descent struct {
	why string        // of the eviction
	at  clock.Instant // when it was ordered
}

// EvictDown is Evict of a copy that main memory is to keep: a device of it, to. Where it has a
// copy already nothing is copied. It reports false, and has done nothing, where the copy is
// not evictable or cannot be kept there; else the copy's release follows, unless Effects.Kept
// says that somebody has come to use it meanwhile.
func (c *Catalog) EvictDown(cp *Copy, to, why string, now ledger.Now) bool {
	c.begin()
	m := cp.Model
	if !cp.evictable() || m.Superseded || c.warm[cp.Device] || !c.warm[to] {
		return false
	}
	if c.warmCopy(m) != nil {
		c.evict(cp, false, 0, demotedBecause(why), now)
		return true
	}
	if m.copies[to] != nil {
		return false // it is on its way in or out
	}
	into := c.copyOf(m, to, cp, now)
	into.Home, into.UsedAt = cp.Device, cp.UsedAt
	into.demotions = []demotion{{from: cp, unload: UnloadRequest{Ref: &batch{}}, order: &descent{why, now.Boot}}}
	r := &LoadRequest{Tenant: m.Tenant, Name: m.Name, Device: to}
	c.out.Steps = append(c.out.Steps, Step{Kind: StepAllocate, Copy: into, Request: r, Modest: true, Awaits: c.Revoking(to) > 0})
	c.event(schemas.EventModelLoading, into, Event{Reason: "it is demoted from " + cp.Device})
	return true
}

// Hurry gives up the copies on whose making evictions from a device wait: what was to be kept
// is dropped.
func (c *Catalog) Hurry(device string) {
	c.begin()
	for _, cp := range c.loadingCopies() {
		if cp.from != nil && cp.from.Device == device && cp.from.onlyDescends() {
			c.stop(cp, schemas.Errorf(schemas.CodeCancelled, "its bytes on %s are needed at once", device))
		}
	}
}

// Arriving sums the bytes that copies on their way to a device will ask it for.
func (c *Catalog) Arriving(device string) (bytes int64) {
	for _, cp := range c.loadingCopies() {
		if cp.Device == device && cp.Granted == 0 {
			bytes += cp.Model.Bytes
		}
	}
	return bytes
}

// onlyDescends reports whether copies are made of this one, all of them for evictions: such
// copies keep nobody from letting go of it.
func (cp *Copy) onlyDescends() bool {
	for f := range cp.feeds {
		if len(f.waiters) > 0 {
			return false
		}
		for _, d := range f.demotions {
			if d.order == nil {
				return false
			}
		}
	}
	return len(cp.feeds) > 0
}

// descended goes on with an eviction whose copy in main memory is there.
func (c *Catalog) descended(d demotion, into *Copy, now ledger.Now) {
	if d.leaves() {
		return
	}
	if !d.from.evictable() || d.from.UsedAt > d.order.at {
		c.keep(d.from)
		c.cool(into)
		return
	}
	c.evict(d.from, false, 0, demotedBecause(d.order.why), now)
}

// dropped goes on with an eviction whose copy in main memory could not be made.
func (c *Catalog) dropped(d demotion, why *schemas.Error, now ledger.Now) {
	switch {
	case d.leaves():
	case !d.from.evictable():
		c.keep(d.from)
	default:
		c.evict(d.from, false, 0, d.order.why+"; it could not be kept in main memory: "+why.Message, now)
	}
}

// leaves reports whether a copy that was to be demoted goes by another way, or has gone: its
// release says so to whoever waits for it.
func (d *demotion) leaves() bool {
	return d.from.Model.copies[d.from.Device] != d.from || d.from.State == Revoking
}

func (c *Catalog) keep(cp *Copy) { c.out.Kept = append(c.out.Kept, cp.Grant) }

func demotedBecause(why string) string { return WhyDemoted + ": " + why }

// demotedWhy reports whether a reason of a release says that main memory keeps the model.
func demotedWhy(why string) bool { return strings.HasPrefix(why, WhyDemoted) }
