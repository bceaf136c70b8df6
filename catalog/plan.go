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
	// For is a request that waits for the room: what was just loaded is kept from it. nil:
	// nothing is, for that reason.
	For *Newcomer

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

// Newcomer is a request as compared with models that were just loaded.
type Newcomer struct {
	Priority int
	Model    string // whose load it is; empty: none's
}

// excluded says why a copy is left out of the choice, empty if it is not.
func (w *Want) excluded(cp *Copy, x *eviction.Candidate) string {
	switch {
	case w.Excluded[x.Key] != "":
		return w.Excluded[x.Key]
	case x.Excluded != "":
		return x.Excluded
	case w.Tenant != "" && x.Group != w.Tenant:
		return "another tenant's"
	case len(w.Names) > 0 && w.Names[cp.Model.Name]:
		return "excluded by the client"
	case len(w.Grants) > 0 && w.Grants[cp.Grant]:
		return "its allocation is to be preserved"
	}
	return ""
}

// Plan picks the cheapest set of copies that makes the room, and returns with it whose each
// victim is. It changes nothing, so that a dry run and the real decision are the same call.
func (c *Catalog) Plan(w Want, now clock.Instant) (eviction.Plan, []*Copy) {
	s, policy := c.shelf(w.Device), c.chosen(w.Strategy)
	req := eviction.Request{Need: w.Bytes, Already: w.Already, MaxVictims: w.MaxVictims, Force: w.Force, Candidates: s.candidates}
	shown := policy.Name() == c.policy.Name()
	if w.particular() || !shown {
		req.Candidates = append(c.scratch[:0], s.candidates...)
		c.scratch = req.Candidates
		req.Spare = w.see(req.Candidates, s.copies, shown)
	}
	req.For = c.newcomer(&w)
	plan := eviction.MakePlan(policy, req, now)
	whose := make([]*Copy, len(plan.Victims))
	for i := range plan.Victims {
		whose[i] = s.copies[plan.Victims[i].Index]
	}
	return plan, whose
}

// newcomer is whom the room is for, as the planner compares it.
func (c *Catalog) newcomer(w *Want) *eviction.Newcomer {
	if w.For == nil {
		return nil
	}
	m := c.models[nameKey(w.Whose, w.For.Model)]
	if m == nil {
		return eviction.Stranger(w.For.Priority)
	}
	weight := 0.
	for i := range w.Quotas {
		if w.Quotas[i].Tenant == w.Whose {
			weight = w.Quotas[i].Weight
		}
	}
	return eviction.Expected(c.policy, keyOf(w.Device, m), w.For.Priority, weight)
}

// particular reports whether the candidates of this plan are not as for any.
func (w *Want) particular() bool {
	return len(w.Excluded)+len(w.Quotas)+len(w.Names)+len(w.Grants) > 0 || w.Tenant != "" || w.LastVictim != ""
}

// see has the candidates as this plan should see them; worths are those that are shown if
// the default policy decides. It returns what may be taken of each tenant.
func (w *Want) see(candidates []eviction.Candidate, copies []*Copy, shown bool) (spare map[string]int64) {
	quotas := make(map[string]*ledger.TenantFigures, len(w.Quotas))
	for i := range w.Quotas {
		q := &w.Quotas[i]
		quotas[q.Tenant] = q
		if q.Floor > 0 && q.Tenant != w.Whose {
			if spare == nil {
				spare = map[string]int64{}
			}
			spare[q.Tenant] = max(0, q.Used-q.Revoking-q.Zombie-q.Floor)
		}
	}
	var (
		q  *ledger.TenantFigures
		of = "\x00" // nobody; the quota is that of the last one looked at
	)
	for i := range candidates {
		x := &candidates[i]
		if !shown {
			x.Worth = nil
		}
		x.Excluded, x.LastVictim = w.excluded(copies[i], x), x.Key == w.LastVictim
		if x.Group != of {
			q, of = quotas[x.Group], x.Group
		}
		if q != nil {
			x.First, x.Weight = q.Soft > 0 && q.Used > q.Soft, q.Weight
		}
	}
	return spare
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
