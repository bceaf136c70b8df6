package ledger

import (
	"fmt"
	"sort"
)

// Share is what one tenant has of a device, in bytes, as the books count it.
type Share struct {
	Granted  int64 // active
	Reserved int64
	Revoking int64
	Zombie   int64
	Models   int64 // the part of Granted, Revoking and Zombie that is weights
}

// add moves bytes of a grant, which is no reservation, in or out of its status.
func (s *Share) add(g *Grant, bytes int64) {
	switch g.Status {
	case StatusActive:
		s.Granted += bytes
	case StatusRevoking:
		s.Revoking += bytes
	case StatusZombie:
		s.Zombie += bytes
	}
	if g.Class == ClassWeights {
		s.Models += bytes
	}
}

// share is the account of a grant's tenant.
func (d *Device) share(g *Grant) *Share {
	s := d.shares[g.Owner.Tenant]
	if s == nil {
		s = &Share{}
		d.shares[g.Owner.Tenant] = s
	}
	return s
}

// reserve moves a reservation's bytes in or out of the books.
func (d *Device) reserve(g *Grant, bytes int64) {
	d.books.reserved += bytes
	d.share(g).Reserved += bytes
}

// TenantFigures is what a tenant with a quota has of a device, in bytes.
type TenantFigures struct {
	Quota
	Share
	// Used is what counts against the quota; it is not less than the share's sum.
	Used int64
	// Deficit is what the first request that waits for the quota lacks.
	Deficit int64
	// Reclaimable is what the tenant's unread models hold.
	Reclaimable int64
	// Waiting requests are held back by the quota.
	Waiting int
}

// Tenants reports on every tenant that has a quota, by name.
func (d *Device) Tenants() []TenantFigures {
	if len(d.quotas) == 0 {
		return nil
	}
	out := make([]TenantFigures, 0, len(d.quotas))
	for t, q := range d.quotas {
		f := TenantFigures{Quota: q.Quota, Used: d.bound(t), Reclaimable: d.unread[t]}
		if s := d.shares[t]; s != nil {
			f.Share = *s
		}
		for _, r := range d.held {
			if r.Owner.Tenant == t {
				if f.Waiting++; f.Waiting == 1 {
					f.Deficit = d.excess(r)
				}
			}
		}
		out = append(out, f)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Tenant < out[j].Tenant })
	return out
}

// SetReclaimableOf takes the pool's figures of bytes that unread models of tenants with a
// quota hold here; SetReclaimable follows it.
func (d *Device) SetReclaimableOf(unread map[string]int64) { d.unread = unread }

// checkQuotas recomputes the tenants' shares and looks at who is held.
func (d *Device) checkQuotas() error {
	want := map[string]Share{}
	for _, g := range d.grants {
		s := want[g.Owner.Tenant]
		if g.Class == ClassReservation {
			s.Reserved += g.Counted()
		} else {
			s.add(g, g.Granted)
		}
		want[g.Owner.Tenant] = s
	}
	for t, s := range d.shares {
		if *s != want[t] {
			return fmt.Errorf("tenant %s is counted %+v, has %+v", t, *s, want[t])
		}
		if has := s.Granted + s.Reserved + s.Revoking + s.Zombie; has > d.bound(t) {
			return fmt.Errorf("tenant %s has %d bytes, and only %d are bound", t, has, d.bound(t))
		}
		delete(want, t)
	}
	if len(want) > 0 {
		return fmt.Errorf("%d tenants are not counted", len(want))
	}
	for i, r := range d.held {
		if !r.held || r.gone || d.quotas[r.Owner.Tenant] == nil || i > 0 && !before(d.held[i-1], r) {
			return fmt.Errorf("request %d waits for a quota out of order, or for none", r.ticket)
		}
	}
	for _, r := range d.queue {
		if r.held {
			return fmt.Errorf("request %d waits in line and beside it", r.ticket)
		}
	}
	return nil
}
