package actors

import (
	"fmt"
	"math"
	"slices"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/history"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// holding is who holds a device's bytes, and what may leak of them.
type holding struct {
	top    []ledger.Holding
	held   []history.Held
	owners []ledger.Owner // of held
}

// holdings gives what a tenant ("": anybody) holds on some devices to use.
func (h *House) holdings(ds []*deviceActor, tenant string, use func([]holding, *schemas.Error)) {
	ask(h, ds, func(d *deviceActor) (out holding) {
		// All of them: who holds a little of each device may hold the most of all.
		if out.top = d.core.Holders(math.MaxInt); tenant != "" {
			out.top = d.core.HoldersFor(tenant, math.MaxInt)
		}
		d.core.Grants(func(g *ledger.Grant) {
			if tenant == "" || g.Owner.Tenant == tenant {
				out.add(d, g)
			}
		})
		return out
	}, func(parts []holding, err *schemas.Error) {
		if err != nil {
			use(nil, err)
			return
		}
		h.sessions.tell(seam.SystemLane, func() {
			for i := range parts {
				h.sessions.findGone(&parts[i])
			}
			use(parts, nil)
		})
	})
}

// add takes a grant as the rules for leaks see it. Models have their own readers and rules,
// unless their tenant is gone.
func (x *holding) add(d *deviceActor, g *ledger.Grant) {
	held := history.Held{ID: g.ID.String(), Owner: g.Holder(), Bytes: g.Granted, Created: g.Created, LastUsed: g.LastUsed, Mapped: g.Live(),
		Kept: g.Persistent || g.LeaseEnds != 0 || g.Class == ledger.ClassReservation || g.Class == ledger.ClassWeights || g.Status != ledger.StatusActive}
	if all := d.house.cfg.Tenants; g.Status == ledger.StatusActive && len(all) > 0 && !slices.Contains(all, g.Owner.Tenant) && g.Owner.Tenant != schemas.DefaultTenant {
		held.Gone = fmt.Sprintf("tenant %s is not configured any more", g.Owner.Tenant)
	}
	owner := g.Owner
	if g.Status != ledger.StatusActive || !g.Persistent || g.Class == ledger.ClassWeights {
		owner = ledger.Owner{} // it ends with its session, or by its lease, or is ending
	}
	x.held = append(x.held, held)
	x.owners = append(x.owners, owner)
}

// findGone says of each grant what has become of its owner.
func (s *sessionsActor) findGone(x *holding) {
	for i, o := range x.owners {
		if o.Session == "" || x.held[i].Gone != "" {
			continue
		}
		if _, err := s.core.Lookup(o.Session); err == nil {
			continue
		}
		x.held[i].Gone = "the session that they were made for has ended"
		if !s.core.Known(o.Session) {
			x.held[i].Gone = fmt.Sprintf("the process that they were made for, pid %d, has ended", o.PID)
		}
	}
}
