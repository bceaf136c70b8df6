package ledger

import (
	"fmt"
	"sort"
	"strings"

	"github.com/isobar-project/isobar/schemas"
)

// outOfMemory is the refusal that says what is lacking and who holds it.
func (d *Device) outOfMemory(r *Request, need int64) *schemas.Error {
	f, largest := d.Figures(), max(0, d.spareFor(r))
	return schemas.Errorf(schemas.CodeOutOfMemory, "%s has no room for %d bytes: %s", d.cfg.Device, r.Size, d.topHolders(r.Owner.Tenant)).
		With("required_bytes", need).With("available_bytes", f.Available).
		With("shortfall_bytes", max(0, need-largest)).With("largest_grantable_bytes", largest).
		With("holders", d.HoldersFor(r.Owner.Tenant, 5)).With("position", d.line.Len()+1)
}

// Holding is one who holds bytes, for people.
type Holding struct {
	Owner string `json:"owner"`
	Bytes int64  `json:"bytes"`
	// Tenant whose it is; empty for what is nobody's.
	Tenant string `json:"-"`
	// Process says that it is a process which nobody has granted anything: of those the host's
	// own people are told, and other tenants what they have in all.
	Process bool `json:"-"`
}

// Others is the owner under which use outside is shown that no process is known for.
const Others = "others on this machine"

// Other is a process that uses the device without the node.
type Other struct {
	PID     int32
	Command string
	Bytes   int64
}

func (o *Other) name() string {
	if o.Command == "" {
		return fmt.Sprintf("pid %d, without the node", o.PID)
	}
	return fmt.Sprintf("pid %d (%s), without the node", o.PID, o.Command)
}

// SetOthers takes which processes use the device by themselves, those with the most first: it
// says whose the use outside is, not how much that is.
func (d *Device) SetOthers(list []Other) { d.others = list }

// Holders lists who holds the most, greatest first.
func (d *Device) Holders(n int) []Holding {
	return d.holders(n, true, func(g *Grant) Holding { return Holding{Owner: g.Holder(), Tenant: g.Owner.Tenant} })
}

// HoldersFor is Holders as a tenant may see it: the others are one.
func (d *Device) HoldersFor(tenant string, n int) []Holding {
	return d.holders(n, tenant == schemas.DefaultTenant, func(g *Grant) Holding {
		if g.Owner.Tenant != tenant {
			return Holding{Owner: EverybodyElse}
		}
		return Holding{Owner: g.Holder(), Tenant: tenant}
	})
}

// EverybodyElse is the owner under which a tenant sees what others hold.
const EverybodyElse = "everybody else"

func (d *Device) holders(n int, named bool, who func(*Grant) Holding) []Holding {
	sums := map[Holding]int64{}
	for _, g := range d.grants {
		sums[who(g)] += g.Counted()
	}
	if d.books.promised > 0 {
		sums[Holding{Owner: "requests being prepared"}] += d.books.promised
	}
	d.strays(func(h Holding) {
		if h.Process && !named {
			h = Holding{Owner: Others}
		}
		n := h.Bytes
		h.Bytes = 0
		sums[h] += n
	})
	left := d.books.foreign
	for _, o := range d.others {
		if n := min(o.Bytes, left); named && n > 0 {
			sums[Holding{Owner: o.name(), Process: true}] += n
			left -= n
		}
	}
	if left > 0 {
		sums[Holding{Owner: Others}] += left
	}
	out := make([]Holding, 0, len(sums))
	for h, b := range sums {
		h.Bytes = b
		out = append(out, h)
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Bytes > out[j].Bytes || out[i].Bytes == out[j].Bytes &&
			(out[i].Owner < out[j].Owner || out[i].Owner == out[j].Owner && out[i].Tenant < out[j].Tenant)
	})
	return out[:min(n, len(out))]
}

// Holder names whose a grant is, for people.
func (g *Grant) Holder() string {
	switch {
	case g.Model != "":
		return "model " + g.Model
	case g.Follows.PID != 0:
		return fmt.Sprintf("pid %d of tenant %s", g.Follows.PID, g.Owner.Tenant)
	case g.Owner.PID != 0:
		return fmt.Sprintf("pid %d of tenant %s", g.Owner.PID, g.Owner.Tenant)
	case g.Purpose != "":
		return g.Purpose + " of tenant " + g.Owner.Tenant
	}
	return "tenant " + g.Owner.Tenant
}

func (d *Device) topHolders(tenant string) string {
	h := d.HoldersFor(tenant, 3)
	if len(h) == 0 {
		return "nobody holds any"
	}
	parts := make([]string, len(h))
	for i, x := range h {
		parts[i] = fmt.Sprintf("%s holds %d", x.Owner, x.Bytes)
	}
	return strings.Join(parts, ", ")
}
