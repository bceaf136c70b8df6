package catalog

import (
	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
)

// Below says which device of main memory keeps what goes from a device. It is called once for
// each, before anything else: main memory's books know of every use above it.
func (c *Catalog) Below(device, to string) { c.below[device] = to }

// hear has the books of the main memory below a copy's device know of its use: the model would
// be used there if it were not above.
func (c *Catalog) hear(cp *Copy, now clock.Instant) {
	listener, ok := c.policy.(eviction.Listener)
	to := c.below[cp.Device]
	if !ok || to == "" || cp.Model.Superseded {
		return
	}
	listener.Heard(eviction.Object{Key: keyOf(to, cp.Model), Bytes: cp.Granted, Cost: cp.Cost.Seconds(), Place: to}, now)
}

// forget has main memory's books forget a model that a client let go of above.
func (c *Catalog) forget(cp *Copy) {
	if to := c.below[cp.Device]; to != "" && cp.Model.copies[to] == nil {
		c.policy.Removed(keyOf(to, cp.Model))
	}
}

// doubled reports whether a copy that the node keeps in main memory is not needed while
// another is on a device.
func (cp *Copy) doubled() bool {
	if cp.Home == "" {
		return false
	}
	for _, other := range cp.Model.copies {
		if other.Home == "" && other.State == Sealed {
			return true
		}
	}
	return false
}

// Descent is a copy that should go from its device and be kept in main memory, where so many
// bytes are missing for it.
type Descent struct {
	Copy   *Copy
	To     string
	Lacks  int64
	Quotas []ledger.TenantFigures // of To
	Taken  map[uuid.UUID]bool     // grants of what gives way to others already
}

// GiveWay picks what should give way in main memory to a copy that comes down; it reports
// false where nothing should: then the copy is not kept. It changes nothing.
func (c *Catalog) GiveWay(d Descent, now clock.Instant) (eviction.Plan, []*Copy, bool) {
	m := d.Copy.Model
	w := Want{Device: d.To, Bytes: d.Lacks, Whose: m.Tenant, Quotas: d.Quotas, Grants: d.Taken, For: &Newcomer{Priority: m.Priority, Model: m.Name}}
	plan, whose := c.Plan(w, now)
	comes := eviction.Returning(c.policy, keyOf(d.To, m), m.Priority, w.weight())
	return plan, whose, plan.Yields(comes, d.Copy.Granted)
}
