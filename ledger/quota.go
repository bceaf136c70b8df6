package ledger

import (
	"fmt"
	"math"

	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// Quota is what a tenant may have of a device. What counts is every byte that nobody else
// can have because of the tenant: its segments with what is free in them, its
// reservations, and what is being made for it. All bytes; 0: none.
type Quota struct {
	Tenant string
	// Floor is kept for the tenant: others are not granted it, and no need of theirs takes
	// the tenant's models below it.
	Floor int64
	// Soft is from where on the tenant's unread models go before those of others.
	Soft int64
	// Hard is never passed by a grant.
	Hard int64
	// Weight is the tenant's share against others': of what is granted while others wait, and
	// of what its models are worth when others are to go. 0 is 1.
	Weight float64
}

// QuotaChange changes a tenant's quota; what is nil stays as it is.
type QuotaChange struct {
	Tenant            string
	Floor, Soft, Hard *int64
	Weight            *float64
}

// quota is a quota on record.
type quota struct {
	Quota
	rec store.RecID
}

// maxQuotas bounds the tenants with a quota on one device.
const maxQuotas = 4096

// change is a quota as it would become.
func (d *Device) change(c QuotaChange) Quota {
	q := Quota{Tenant: c.Tenant}
	if old := d.quotas[c.Tenant]; old != nil {
		q = old.Quota
	}
	set := func(v, to *int64) {
		if to != nil {
			*v = *to
		}
	}
	set(&q.Floor, c.Floor)
	set(&q.Soft, c.Soft)
	set(&q.Hard, c.Hard)
	if c.Weight != nil {
		q.Weight = *c.Weight
	}
	return q
}

// CheckQuota says why a quota cannot be so, INVALID_REQUEST with the field. It changes
// nothing.
func (d *Device) CheckQuota(c QuotaChange) *schemas.Error {
	q := d.change(c)
	bad := func(field, format string, args ...any) *schemas.Error {
		return schemas.Errorf(schemas.CodeInvalidRequest, format, args...).With("field", "tenant."+field)
	}
	if reason := q.impossible(); reason != "" {
		return bad("name", "%s", reason)
	}
	switch {
	case q.Hard > 0 && q.Soft > q.Hard:
		return bad("soft_bytes", "soft_bytes %d is more than hard_bytes %d", q.Soft, q.Hard)
	case q.Hard > 0 && q.Floor > q.Hard:
		return bad("floor_bytes", "floor_bytes %d is more than hard_bytes %d", q.Floor, q.Hard)
	case q.Floor > d.books.limit-d.otherFloors(q.Tenant):
		return bad("floor_bytes", "floor_bytes %d is more than the %d bytes of %s that are not another tenant's floor", q.Floor,
			d.books.limit-d.otherFloors(q.Tenant), d.cfg.Device)
	case d.quotas[q.Tenant] == nil && len(d.quotas) >= maxQuotas:
		return bad("name", "%s has quotas for %d tenants, the most there can be", d.cfg.Device, maxQuotas)
	}
	return nil
}

// SetQuota changes a tenant's quota. What a tenant has beyond a new hard quota stays its
// own until it lets go; a floor that others have filled is theirs no more as they let go.
func (d *Device) SetQuota(c QuotaChange, now Now) *schemas.Error {
	d.begin()
	if err := d.CheckQuota(c); err != nil {
		return err
	}
	if !d.ballast.Hold() {
		return d.ballast.Refusal()
	}
	old := d.quotas[c.Tenant]
	next := &quota{Quota: d.change(c)}
	none := next.Quota == Quota{Tenant: c.Tenant}
	tx := d.region.Begin()
	switch {
	case old == nil && none:
		tx.Discard()
		return nil
	case old == nil:
		next.rec = tx.Insert(kindQuota, encodeQuota(next))
	case none:
		tx.Delete(old.rec)
	default:
		next.rec = old.rec
		tx.Update(old.rec, encodeQuota(next))
	}
	if err := tx.Commit(); err != nil {
		return ledgerFull(err)
	}
	if none {
		delete(d.quotas, c.Tenant)
	} else {
		d.quotas[c.Tenant] = next
	}
	d.line.Reweigh()
	d.changed("limit_change", nil)
	d.expel()
	d.pump(now)
	return nil
}

// Quota returns the quota in force for a tenant.
func (d *Device) Quota(tenant string) Quota {
	if q := d.quotas[tenant]; q != nil {
		return q.Quota
	}
	return Quota{Tenant: tenant}
}

// bound is every byte that nobody else can have because of a tenant.
func (d *Device) bound(tenant string) int64 {
	var n int64
	for k, domain := range d.domains {
		if k.tenant == tenant {
			n += d.heap.OwnerBytes(domain)
		}
	}
	for _, r := range d.pending {
		if r.Owner.Tenant == tenant {
			for _, s := range r.segs {
				n += s.bytes
			}
			if r.Estimated {
				n += r.promised
			}
		}
	}
	if s := d.shares[tenant]; s != nil {
		n += s.Reserved
	}
	return n
}

// floors is what is kept free for tenants other than one: what their floors exceed what
// they have.
func (d *Device) floors(except string) (n int64) {
	for t, q := range d.quotas {
		if t != except && q.Floor > 0 {
			n += max(0, q.Floor-d.bound(t))
		}
	}
	return n
}

// otherFloors is what other tenants' floors keep from a tenant in any case.
func (d *Device) otherFloors(tenant string) (n int64) {
	for t, q := range d.quotas {
		if t != tenant {
			n += q.Floor
		}
	}
	return n
}

// spareFor is what a request's tenant could be given without taking anything from anybody.
func (d *Device) spareFor(r *Request) int64 { return d.books.spare() - d.floors(r.Owner.Tenant) }

// allowance is the most that the quotas leave a request's tenant to grow by.
func (d *Device) allowance(r *Request) int64 {
	if len(d.quotas) == 0 {
		return math.MaxInt64
	}
	left := int64(math.MaxInt64)
	if floors := d.floors(r.Owner.Tenant); floors > 0 {
		left = d.books.spare() - floors
	}
	if q := d.quotas[r.Owner.Tenant]; q != nil && q.Hard > 0 {
		left = min(left, q.Hard-d.bound(r.Owner.Tenant))
	}
	return left
}

// protected says why an eviction would take a tenant below its floor for another's need.
func (d *Device) protected(g *Grant, whose string) *schemas.Error {
	t := g.Owner.Tenant
	q := d.quotas[t]
	if q == nil || q.Floor == 0 || whose == t {
		return nil
	}
	if left := d.bound(t) - d.leaving(t) - g.Granted; left < q.Floor {
		return schemas.Errorf(schemas.CodeAllocationInUse, "tenant %s would be left with %d bytes of its floor of %d", t, left, q.Floor)
	}
	return nil
}

// leaving is what of a tenant's bytes is on its way back.
func (d *Device) leaving(tenant string) int64 {
	if s := d.shares[tenant]; s != nil {
		return s.Revoking + s.Zombie
	}
	return 0
}

// quotaExceeded is the refusal that says by how much.
func (d *Device) quotaExceeded(r *Request, grow int64) *schemas.Error {
	q := d.Quota(r.Owner.Tenant)
	has := d.bound(q.Tenant)
	return schemas.Errorf(schemas.CodeQuotaExceeded, "%d bytes more would take tenant %s past its %d bytes of %s: it has %d", grow, q.Tenant, q.Hard, d.cfg.Device, has).
		With("tenant", q.Tenant).With("device_id", d.cfg.Device).With("required_bytes", grow).With("hard_bytes", q.Hard).
		With("used_bytes", has).With("available_bytes", max(0, q.Hard-has))
}

// overHard refuses what its tenant's hard quota can never hold.
func (d *Device) overHard(r *Request, need int64) *schemas.Error {
	q := d.quotas[r.Owner.Tenant]
	if q == nil || q.Hard == 0 || need <= q.Hard || r.Size <= q.Hard && d.harmless(r) {
		return nil
	}
	err := d.quotaExceeded(r, need)
	err.Message = fmt.Sprintf("%d bytes can never fit: tenant %s may have %d bytes of %s", need, q.Tenant, q.Hard, d.cfg.Device)
	return err
}

// impossible says what is wrong with a quota by itself, or nothing.
func (q *Quota) impossible() string {
	switch {
	case !schemas.ValidToken(q.Tenant):
		return fmt.Sprintf("a tenant's name is lower-case letters, digits and dashes, not %q", q.Tenant)
	case q.Floor < 0 || q.Soft < 0 || q.Hard < 0 || q.Floor > maxBytes || q.Soft > maxQuotaBytes || q.Hard > maxQuotaBytes:
		return fmt.Sprintf("tenant %s: bytes out of range", q.Tenant)
	case math.IsNaN(q.Weight) || q.Weight < 0 || q.Weight > maxWeight:
		return fmt.Sprintf("tenant %s: a weight of %v", q.Tenant, q.Weight)
	}
	return ""
}

// The contract's bounds of a quota. A floor is bounded by its device as well.
const (
	maxQuotaBytes = 1 << 60
	maxWeight     = 1000
)

func checkQuotas(quotas []*quota) error {
	seen := map[string]bool{}
	for _, q := range quotas {
		reason := q.impossible()
		if seen[q.Tenant] {
			reason = "two quotas of tenant " + q.Tenant
		}
		if reason != "" {
			return &ImageError{q.rec, reason}
		}
		seen[q.Tenant] = true
	}
	return nil
}

func encodeQuota(q *quota) []byte {
	e := enc{}
	e.str(q.Tenant)
	e.i64(q.Floor)
	e.i64(q.Soft)
	e.i64(q.Hard)
	e.i64(int64(math.Float64bits(q.Weight)))
	return e.b
}

func decodeQuota(b []byte) (*quota, error) {
	d := dec{b: b}
	q := &quota{Quota: Quota{Tenant: d.str(), Floor: d.i64(), Soft: d.i64(), Hard: d.i64(), Weight: math.Float64frombits(uint64(d.i64()))}}
	return q, d.end()
}
