package catalog

import (
	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
)

// Want asks for a plan that frees bytes on a device.
type Want struct {
	Device     string
	Bytes      int64
	Already    int64
	Excluded   map[string]string // copy key → reason
	LastVictim string            // copy key
	MaxVictims int               // 0: no bound
	// Whose need it is, empty for nobody's in particular: of this tenant any model may go,
	// of the others what their quotas spare. Quotas are those of the device.
	Whose  string
	Quotas []ledger.TenantFigures

	// What follows is a client's choice, not admission's.

	// Strategy names the policy that decides; "" is the default one.
	Strategy string
	// Force takes copies that somebody reads as well, after all others.
	Force bool
	// Tenant, if set, leaves the models of other tenants alone, shared ones too.
	Tenant string
	// Names keeps the models of these names, Grants the copies that hold these grants.
	Names  map[string]bool
	Grants map[uuid.UUID]bool
}

// excluded says why a copy is left out of the choice, empty if it is not.
func (w *Want) excluded(cp *Copy, key string) string {
	switch {
	case w.Excluded[key] != "":
		return w.Excluded[key]
	case len(cp.feeds) > 0:
		return "it is being copied"
	case w.Tenant != "" && cp.Model.Tenant != w.Tenant:
		return "another tenant's"
	case w.Names[cp.Model.Name]:
		return "excluded by the client"
	case w.Grants[cp.Grant]:
		return "its allocation is to be preserved"
	}
	return ""
}

// Plan picks the cheapest set of copies that makes the room. It changes nothing, so that
// a dry run and the real decision are the same call.
func (c *Catalog) Plan(w Want, now clock.Instant) (eviction.Plan, map[string]*Copy) {
	byKey := map[string]*Copy{}
	req := eviction.Request{Need: w.Bytes, Already: w.Already, MaxVictims: w.MaxVictims, Force: w.Force}
	quotas := make(map[string]*ledger.TenantFigures, len(w.Quotas))
	for i := range w.Quotas {
		q := &w.Quotas[i]
		quotas[q.Tenant] = q
		if q.Floor > 0 && q.Tenant != w.Whose {
			if req.Spare == nil {
				req.Spare = map[string]int64{}
			}
			req.Spare[q.Tenant] = max(0, q.Used-q.Revoking-q.Zombie-q.Floor)
		}
	}
	for _, cp := range c.grants {
		if cp.Device != w.Device || cp.State != Sealed {
			continue
		}
		key := cp.Key()
		if byKey[key] != nil || cp.Model.Superseded {
			key += "@" + cp.Model.VersionString()
		}
		byKey[key] = cp
		x := eviction.Candidate{
			Object: eviction.Object{Key: key, Bytes: cp.Granted, Cost: cp.cost().Seconds(), Place: cp.Device},
			Pinned: cp.Model.Pinned, Readers: cp.Readers(), Priority: cp.Model.Priority,
			LastUsed: cp.UsedAt, Excluded: w.excluded(cp, key), LastVictim: key == w.LastVictim, Group: cp.Model.Tenant,
		}
		if q := quotas[cp.Model.Tenant]; q != nil {
			x.First, x.Weight = q.Soft > 0 && q.Used > q.Soft, q.Weight
		}
		req.Candidates = append(req.Candidates, x)
	}
	return eviction.MakePlan(c.chosen(w.Strategy), req, now), byKey
}

// chosen is the policy of a name, or the default one where the catalog has no other.
func (c *Catalog) chosen(name string) eviction.Policy {
	if panel, ok := c.policy.(*eviction.Panel); ok {
		if p, ok := panel.Choose(name); ok {
			return p
		}
	}
	return c.policy
}
