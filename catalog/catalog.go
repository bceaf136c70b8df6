package catalog

import (
	"fmt"
	"sort"
	"strconv"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// Catalog is the core of the pool. It is not safe for concurrent use.
type Catalog struct {
	region  *store.Region
	policy  eviction.Policy
	newID   func() uuid.UUID
	models  map[string]*Model // newest version by tenant and name
	all     map[ModelID]*Model
	index   index
	loading map[*Copy]bool // all that are Loading
	leaving map[*Copy]bool // all that are Revoking
	grants  map[uuid.UUID]*Copy
	byRef   map[string]*Copy
	answers map[string]store.RecID
	next    ModelID
	ballast *ledger.Ballast
	// remembered is how many models that are nowhere loaded stay known.
	remembered int
	hits       int64
	misses     int64
	// away says that no client can reach the node, since awaySince: leases stand still.
	away      bool
	warm      map[string]bool   // devices that are main memory
	below     map[string]string // which of them keeps what goes from a device
	awaySince clock.Instant
	out       Effects
	taken     bool // out has been taken

	shelves   map[string]*shelf // by device
	unshelved []*Copy           // whose place on a shelf is to be looked at again
	planner   eviction.Planner
}

// New starts an empty catalog on a freshly formatted region.
func New(region *store.Region, policy eviction.Policy, newID func() uuid.UUID) *Catalog {
	c := newCatalog(policy, newID)
	c.region, c.ballast = region, ledger.NewBallast(region, kindBallast, 0)
	return c
}

func newCatalog(policy eviction.Policy, newID func() uuid.UUID) *Catalog {
	return &Catalog{policy: policy, newID: newID, remembered: maxRemembered,
		warm: map[string]bool{}, below: map[string]string{}, index: newIndex(), loading: map[*Copy]bool{}, leaving: map[*Copy]bool{}, models: map[string]*Model{}, all: map[ModelID]*Model{}, grants: map[uuid.UUID]*Copy{},
		byRef: map[string]*Copy{}, answers: map[string]store.RecID{}, shelves: map[string]*shelf{}, next: 1}
}

// Take returns what has to be done since the last Take: each effect once. The result is
// valid until the catalog is called again.
func (c *Catalog) Take() *Effects {
	c.begin()
	c.taken = true
	return &c.out
}

// begin clears the effects that have been taken; what nobody has taken yet stays.
func (c *Catalog) begin() {
	if c.taken {
		c.out.reset()
		c.taken = false
	}
}

func nameKey(tenant, name string) string { return tenant + "\x00" + name }

// Find looks up the newest version of a model that a tenant may see: its own, else the
// one that was shared first.
func (c *Catalog) Find(tenant, name string) (*Model, *schemas.Error) {
	if m, ok := c.models[nameKey(tenant, name)]; ok {
		return m, nil
	}
	var found *Model
	for _, m := range c.index.named[name] {
		if m.Shared && (found == nil || m.ID < found.ID) && c.models[nameKey(m.Tenant, name)] == m {
			found = m
		}
	}
	if found != nil {
		return found, nil
	}
	return nil, schemas.Errorf(schemas.CodeModelNotFound, "no model %q: load it with its path first", name).With("name", name)
}

// ByGrant finds the copy that a weights grant holds.
func (c *Catalog) ByGrant(id uuid.UUID) (*Copy, bool) {
	cp, ok := c.grants[id]
	return cp, ok
}

// Models calls f for every model a tenant may see, superseded ones with copies included.
func (c *Catalog) Models(tenant string, f func(*Model)) {
	for _, m := range c.all {
		if m.Tenant == tenant || m.Shared {
			f(m)
		}
	}
}

// HitRate counts the loads that found the model resident, and all loads.
func (c *Catalog) HitRate() (hits, total int64) { return c.hits, c.hits + c.misses }

// Usable picks the copy of a model that is sealed on a device, or on any if device is empty:
// one that a demotion left in main memory where there is no other.
func (m *Model) Usable(device string) *Copy {
	var best *Copy
	for d, cp := range m.copies {
		if cp.State == Sealed && (device == "" || d == device) && (best == nil || best.Home != "" && cp.Home == "" || (best.Home == "") == (cp.Home == "") && d < best.Device) {
			best = cp
		}
	}
	return best
}

// Copy returns the copy on a device, in whatever state.
func (m *Model) Copy(device string) *Copy { return m.copies[device] }

// VersionString is the version as the contract has it.
func (m *Model) VersionString() string { return strconv.Itoa(m.Version) }

// Revoking sums the bytes of models on a device that are already on their way back.
func (c *Catalog) Revoking(device string) (bytes int64) {
	for cp := range c.leaving {
		if cp.Device == device {
			bytes += cp.Granted
		}
	}
	return bytes
}

func (cp *Copy) evictable() bool {
	return cp.State == Sealed && !cp.Model.Pinned && cp.Readers() == 0 && len(cp.feeds) == 0
}

// PolicyName is the eviction policy's name on the wire.
func (c *Catalog) PolicyName() string { return c.policy.Name() }

// use counts a use of a copy.
func (c *Catalog) use(cp *Copy, kind UseKind, now ledger.Now) {
	cp.UsedAt = now.Boot
	cp.Model.LastUsed = now.Wall
	u := Use{Kind: kind, Key: cp.Key(), Device: cp.Device, At: now.Boot, Bytes: cp.Granted, Cost: cp.cost()}
	if kind == UseLoad {
		u.Took = cp.Took
	}
	c.policy.Used(u.Key, now.Boot)
	c.hear(cp, now.Boot)
	c.touched(cp)
	c.out.Uses = append(c.out.Uses, u)
}

// Touch counts a use that came by another way: a handle was asked for.
func (c *Catalog) Touch(grant uuid.UUID, now ledger.Now) {
	c.begin()
	if cp, ok := c.grants[grant]; ok {
		c.use(cp, UseTouch, now)
	}
}

// moved says that what can be reclaimed of a copy's device may be something else now.
func (c *Catalog) moved(cp *Copy) {
	c.touched(cp)
	c.out.Devices = append(c.out.Devices, cp.Device)
}

func (c *Catalog) refuse(ref any, err *schemas.Error) {
	if ref != nil {
		c.out.Outcomes = append(c.out.Outcomes, Outcome{Kind: OutcomeRefused, Ref: ref, Err: err})
	}
}

func (c *Catalog) event(kind schemas.EventKind, cp *Copy, e Event) {
	e.Kind, e.Copy = kind, cp
	c.out.Events = append(c.out.Events, e)
}

// must ends the process where a record of what has already happened cannot be written.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("catalog: %v", err))
	}
}

// sorted lists the keys of a map in order, so that effects do not depend on chance.
func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// copies lists every copy that has a grant, by model and device.
func (c *Catalog) copies() []*Copy {
	out := make([]*Copy, 0, len(c.grants))
	for _, cp := range c.grants {
		out = append(out, cp)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		return a.Model.ID < b.Model.ID || a.Model.ID == b.Model.ID && a.Device < b.Device
	})
	return out
}
