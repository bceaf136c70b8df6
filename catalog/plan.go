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
	LastVictim uuid.UUID // the grant of the copy that goes only when all others do not suffice
	MaxVictims int       // 0: no bound
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

// Plan picks the cheapest set of copies that makes the room, and returns with it whose each
// victim is. It changes nothing, so that a dry run and the real decision are the same call.
func (c *Catalog) Plan(w Want, now clock.Instant) (eviction.Plan, []*Copy) {
	s, policy := c.shelf(w.Device), c.chosen(w.Strategy)
	marks := c.mark(s, &w)
	plan := c.planner.MakePlan(policy, eviction.Request{
		Need: w.Bytes, Already: w.Already, MaxVictims: w.MaxVictims, Force: w.Force,
		Candidates: s.candidates, Worths: s.worthsBy(policy), Terms: c.terms(&w), For: c.newcomer(&w),
	}, now)
	marks.wipe()
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
	return eviction.Expected(c.policy, keyOf(w.Device, m), w.For.Priority, w.weight())
}

// weight is that of whose need it is.
func (w *Want) weight() (weight float64) {
	for i := range w.Quotas {
		if w.Quotas[i].Tenant == w.Whose {
			weight = w.Quotas[i].Weight
		}
	}
	return weight
}

// terms are what holds for each tenant's models: what the others may lose, and who goes first.
func (c *Catalog) terms(w *Want) []eviction.Terms {
	if len(w.Quotas) == 0 && w.Tenant == "" {
		return nil
	}
	terms := make([]eviction.Terms, c.index.groups())
	for i := range w.Quotas {
		q := &w.Quotas[i]
		group, ok := c.index.group(q.Tenant)
		if !ok {
			continue
		}
		t := &terms[group]
		t.First, t.Weight = q.Soft > 0 && q.Used > q.Soft, q.Weight
		if q.Floor > 0 && q.Tenant != w.Whose {
			t.Bounded, t.Spare = true, max(0, q.Used-q.Revoking-q.Zombie-q.Floor)
		}
	}
	if w.Tenant != "" {
		own, ok := c.index.group(w.Tenant)
		for i := range terms {
			if !ok || i != own {
				terms[i].Excluded = "another tenant's"
			}
		}
	}
	return terms
}

// marks are what one plan has said of single candidates, which are the shelf's.
type marks []*eviction.Candidate

// Why a client's choice leaves copies out.
const (
	excludedByName  = "excluded by the client"
	excludedByGrant = "its allocation is to be preserved"
)

// mark tells the candidates that a plan names what it says of them.
func (c *Catalog) mark(s *shelf, w *Want) (m marks) {
	if cp := c.grants[w.LastVictim]; cp != nil && cp.shelved && cp.Device == w.Device {
		s.candidates[cp.place].LastVictim = true
		m = append(m, &s.candidates[cp.place])
	}
	for name := range w.Names {
		for _, named := range c.index.named[name] {
			m.exclude(s, named.copies[w.Device], excludedByName)
		}
	}
	for grant := range w.Grants {
		if cp := c.grants[grant]; cp != nil && cp.Device == w.Device {
			m.exclude(s, cp, excludedByGrant)
		}
	}
	return m
}

// exclude leaves a copy out, unless it is for another reason, or not there.
func (m *marks) exclude(s *shelf, cp *Copy, why string) {
	if cp == nil || !cp.shelved || s.candidates[cp.place].Excluded != "" {
		return
	}
	s.candidates[cp.place].Excluded = why
	*m = append(*m, &s.candidates[cp.place])
}

// wipe takes all of it back.
func (m marks) wipe() {
	for _, x := range m {
		x.LastVictim = false
		if x.Excluded == excludedByName || x.Excluded == excludedByGrant {
			x.Excluded = ""
		}
	}
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
