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
		if l := d.held[t]; l != nil {
			f.Waiting, f.Deficit = l.Len(), d.excess(l.At(0).Of)
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
	for t, l := range d.held {
		for i := range l.Len() {
			if r := l.At(i).Of; !r.held || r.gone || r.spot.Waiting() || r.Owner.Tenant != t || d.quotas[t] == nil {
				return fmt.Errorf("request %d waits for a quota of %s and for something else, or for none", r.ticket, t)
			}
		}
		if l.Len() == 0 {
			return fmt.Errorf("nobody waits for the quota of %s", t)
		}
	}
	return nil
}
