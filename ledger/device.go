package ledger

import (
	"fmt"
	"sort"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/admission"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// Ticket numbers a request inside one device, from its arrival to its answer.
type Ticket uint64

// WarmClass is one class of the warm pool.
type WarmClass struct {
	Bytes int64 // size of a segment
	Keep  int   // how many clean ones are kept ready
}

// DeviceConfig is what a device core must know. All bytes.
type DeviceConfig struct {
	Device   string // device_id, for messages
	Type     string // device type in the contract's spelling
	Physical int64
	Limit    int64 // set limit; 0: none, the ceiling alone counts
	Ceiling  int64 // what machine and cgroup allow (physical − reserve, ancestors' limits)
	Heap     heap.Config
	Warm     []WarmClass
	// PoolBytes bounds the idle bytes kept warm; while the device works they may be twice as
	// much. PoolHalfLife is in what time a device that rests gives back half of what its pool
	// has beyond Warm.
	PoolBytes    int64
	PoolHalfLife time.Duration
	// MaxQueue bounds the waiting requests; more are refused with BUSY.
	MaxQueue int
	// ClaimLife is how long a claim may be redeemed (contract: 60 s).
	ClaimLife time.Duration
	// RevokeWait is how long a session has to let go where nobody said otherwise.
	RevokeWait time.Duration
	// Overdue is what follows where bytes are held past that; empty: OverdueKeep. EndGrace is
	// how long a process that was asked to end may take before it is killed.
	Overdue  Overdue
	EndGrace time.Duration
	// ProofMin and ProofMax bound the pause between two attempts to prove a release
	// which no event announces (a forked child that still maps).
	ProofMin, ProofMax time.Duration
	// LookMin and LookMax bound the pause before holders of memory are looked for again, where
	// they could not be found; each is twice the one before.
	LookMin, LookMax time.Duration
	// BySessions is true where no driver can prove that everybody has let go of memory, as on
	// a GPU. Then only the word of a living session and the end of a process count, however
	// long they take: what was found out in other ways names holders and frees nothing.
	BySessions bool
	// Rand fills b with unguessable bytes; NewID makes allocation ids.
	Rand  func(b []byte)
	NewID func() uuid.UUID
}

func (c *DeviceConfig) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.ClaimLife, 60*time.Second)
	set(&c.RevokeWait, 2*time.Second)
	set(&c.EndGrace, 5*time.Second)
	set(&c.ProofMin, time.Millisecond)
	set(&c.ProofMax, time.Second)
	set(&c.LookMin, 100*time.Millisecond)
	set(&c.LookMax, 30*time.Second)
	set(&c.PoolHalfLife, 10*time.Second)
	if c.MaxQueue == 0 {
		c.MaxQueue = 4096
	}
	if c.Ceiling == 0 {
		c.Ceiling = c.Physical
	}
}

// Device is the core of one device: its heap, grants, queue and region of the ledger.
// It is not safe for concurrent use.
type Device struct {
	cfg    DeviceConfig
	region *store.Region
	heap   *heap.Heap
	absent absence

	segments map[heap.SegmentID]*segment
	shared   map[heap.SegmentID]bool // a description has left and no proof has come since
	grants   map[uuid.UUID]*Grant
	claims   map[[32]byte]*Grant
	line     *line                         // of those who wait for room
	pending  map[Ticket]*Request           // being prepared by workers
	answers  map[string]*answerAt          // by request key
	sessions map[SessionID]map[*Grant]bool // what each session owns or maps
	trims    []*trim                       // under way
	going    []*Grant                      // being released, zombies too
	owed     map[heap.SegmentID]Owing      // destroyed, and not back
	others   []Other                       // who uses the device by themselves, those with the most first
	ended    map[SessionID]bool
	endedAt  []SessionID

	books   books
	limits  limits
	quotas  map[string]*quota // by tenant
	shares  map[string]*Share // by tenant
	held    map[string]*lane  // waiting for their tenant's quota, by tenant
	unread  map[string]int64  // what the pool says unread models of a tenant hold here
	ticket  Ticket
	nextSeg heap.SegmentID
	warming map[int64]int // segments of a class on their way
	domains map[trust]string
	// settling is true while a background clear is under way or waits for quiet, scrubbing
	// is the segment that is set aside for it, 0 for none; granted is when the device last
	// granted anything.
	settling  bool
	scrubbing heap.SegmentID
	granted   clock.Instant
	kept      []WarmClass // of the configured classes, what the pool has room for
	waning    waning
	warmAfter clock.Instant // the pool is not filled before
	draining  bool
	lost      bool
	timers    timers
	vacant    *defragment // under way
	stats     DeviceStats
	ballast   *Ballast
	buf       []byte   // of the record being encoded
	secret    [32]byte // of the claim being made
	granule   int64
	seq       uint64
	// reclaimable is what the pool says unread models hold here.
	reclaimable int64
	// outside is the newest sample of what others use; absorbed is what of it the trees
	// of reservations are known to use; paired is true while both are of one moment.
	outside, absorbed int64
	paired            bool
	out               Effects
	taken             bool // out has been taken
}

// DeviceStats counts what happened since the node started.
type DeviceStats struct {
	Grants, Releases, Refusals, Evictions int64
	Peak                                  int64
	GrantNanos                            int64
}

// limits are the settings that set_limits changes; recorded.
type limits struct {
	set     int64 // 0: none
	reserve int64
	models  int64 // the most that models may hold; 0: none
	rec     store.RecID
}

// NewDevice starts an empty device on a freshly formatted region.
func NewDevice(cfg DeviceConfig, region *store.Region) *Device { return newDevice(cfg, region, nil) }

func newDevice(cfg DeviceConfig, region *store.Region, im *Image) *Device {
	cfg.defaults()
	d := &Device{
		cfg: cfg, region: region, heap: heap.New(cfg.Heap),
		segments: map[heap.SegmentID]*segment{}, shared: map[heap.SegmentID]bool{},
		grants: map[uuid.UUID]*Grant{}, claims: map[[32]byte]*Grant{},
		pending: map[Ticket]*Request{}, answers: map[string]*answerAt{}, sessions: map[SessionID]map[*Grant]bool{},
		ended: map[SessionID]bool{}, warming: map[int64]int{}, domains: map[trust]string{},
		nextSeg: FirstSegment, quotas: map[string]*quota{}, shares: map[string]*Share{}, held: map[string]*lane{},
		kept: keepable(cfg.Warm, cfg.PoolBytes), waning: waning{Wane: heap.Wane{HalfLife: cfg.PoolHalfLife}},
	}
	d.line = admission.NewLine[*Request](d.weight)
	d.limits.set = cfg.Limit
	d.books.limit = d.limit()
	d.granule = d.heap.Config().GranularityBytes
	if im == nil {
		d.ballast = NewBallast(region, kindBallast, 0)
	} else {
		d.ballast = NewBallast(region, kindBallast, im.ballast)
	}
	return d
}

// FirstSegment is the lowest segment id; smaller ids in the vault are ledgers.
const FirstSegment heap.SegmentID = 256

// Take returns what the calls since the last Take, Restore among them, want done: each
// effect once. The result is valid until the core is called again.
func (d *Device) Take() *Effects {
	d.begin()
	d.taken = true
	return &d.out
}

// begin clears the effects that have been taken; every entry point that has any calls it
// first. What nobody has taken yet stays: a job that is not done is waited for in vain.
func (d *Device) begin() {
	if d.taken {
		d.out.reset()
		d.taken = false
	}
}

// limit = min(physical − reserve, cgroup limits of all ancestors, set limit).
func (d *Device) limit() int64 {
	l := min(d.cfg.Physical-d.limits.reserve, d.cfg.Ceiling)
	if d.limits.set > 0 {
		l = min(l, d.limits.set)
	}
	return max(l, 0)
}

// SetLimits changes the limit and the reserve; nil leaves one as it is. A limit below
// what is used evicts nobody by itself: it raises the pressure, and grants wait.
func (d *Device) SetLimits(limit, models, reserve *int64, now Now) *schemas.Error {
	d.begin()
	next, err := d.nextLimits(limit, models, reserve)
	if err != nil {
		return err
	}
	if !d.ballast.Hold() {
		return d.ballast.Refusal()
	}
	tx := d.region.Begin()
	if next.rec == 0 {
		next.rec = tx.Insert(kindLimits, encodeLimits(next))
	} else {
		tx.Update(next.rec, encodeLimits(next))
	}
	if err := tx.Commit(); err != nil {
		return ledgerFull(err)
	}
	d.limits = next
	d.books.limit = d.limit()
	d.changed("limit_change", nil)
	d.expel()
	d.pump(now)
	return nil
}

// PlanLimits is the dry run of SetLimits: why it would be refused, or nil.
func (d *Device) PlanLimits(limit, models, reserve *int64) *schemas.Error {
	_, err := d.nextLimits(limit, models, reserve)
	return err
}

// nextLimits are the limits as they would be set, or why they may not.
func (d *Device) nextLimits(limit, models, reserve *int64) (limits, *schemas.Error) {
	next := d.limits
	if limit != nil {
		next.set = *limit
	}
	if models != nil {
		next.models = *models
	}
	if reserve != nil {
		next.reserve = *reserve
	}
	for _, v := range []struct {
		field string
		bytes int64
	}{{"limit_bytes", next.set}, {"model_limit_bytes", next.models}, {"reserve_bytes", next.reserve}} {
		if v.bytes < 0 || v.bytes > maxBytes {
			return next, schemas.Errorf(schemas.CodeInvalidRequest, "%s of %d", v.field, v.bytes).With("field", v.field)
		}
	}
	if next.reserve >= d.cfg.Physical {
		return next, schemas.Errorf(schemas.CodeInvalidRequest, "reserve_bytes %d leaves nothing of %d physical bytes", next.reserve, d.cfg.Physical).
			With("field", "reserve_bytes")
	}
	return next, nil
}

// Limits returns the set limit, the models' limit (0: none) and the reserve.
func (d *Device) Limits() (limit, models, reserve int64) {
	return d.limits.set, d.limits.models, d.limits.reserve
}

// SetOutside takes a new sample of what others use on the device (design.md, Bytes:
// outside) and the ceiling that machine and cgroup put on it.
func (d *Device) SetOutside(outside, ceiling int64, now Now) {
	d.begin()
	d.cfg.Ceiling = ceiling
	if l := d.limit(); l != d.books.limit {
		d.books.limit = l
		d.changed("limit_change", nil)
		d.expel()
	}
	d.outside = outside
	if d.weigh() {
		d.changed("foreign", nil)
	}
	d.paired = false
	d.pump(now)
}

// SetReclaimable takes the pool's figure of bytes that unread models hold here.
func (d *Device) SetReclaimable(bytes int64, now Now) {
	d.begin()
	grew := bytes > d.reclaimable
	d.reclaimable = bytes
	d.changed("", nil)
	if grew {
		d.askAnew()
	}
	d.pump(now)
}

// changed notes that the bytes moved, and why: for which request, if any.
func (d *Device) changed(cause string, r *Request) {
	d.out.Figures = true
	if cause != "" {
		d.out.Cause, d.out.RequestID, d.out.Model = cause, "", ""
		if r != nil {
			d.out.RequestID, d.out.Model = r.RequestID, r.Model
		}
	}
	if u := d.books.used(); u > d.stats.Peak {
		d.stats.Peak = u
	}
}

// Grant looks a grant up. The pointer is valid until the next call that changes the core.
func (d *Device) Grant(id uuid.UUID) (*Grant, bool) {
	g, ok := d.grants[id]
	return g, ok
}

// Grants calls f for each grant, in no order.
func (d *Device) Grants(f func(*Grant)) {
	for _, g := range d.grants {
		f(g)
	}
}

// Waiting calls f for each waiting request in the order in which they will be served, then
// for each that waits for its tenant's quota, whose position counts its tenant's alone.
func (d *Device) Waiting(f func(position int, r *Request)) {
	for i, s := range d.line.All() {
		f(i+1, s.Of)
	}
	for _, r := range d.heldBack() {
		f(d.turn(r), r)
	}
}

// Stats returns counters since the node started.
func (d *Device) Stats() DeviceStats { return d.stats }

// HeapStats returns the figures of the heap.
func (d *Device) HeapStats() heap.Stats { return d.heap.Stats() }

// Next returns when Tick is due.
func (d *Device) Next() (clock.Instant, bool) { return d.timers.next() }

func (d *Device) newSegment(bytes int64, weights bool) *segment {
	s := &segment{id: d.nextSeg, bytes: bytes, weights: weights}
	d.nextSeg++
	return s
}

// trust is a trust domain: memory moves inside it without being cleared.
type trust struct {
	tenant string
	uid    uint32
}

// domain is the heap's name for an owner's trust domain.
func (d *Device) domain(o Owner) string {
	k := trust{o.Tenant, o.UID}
	s, ok := d.domains[k]
	if !ok {
		s = domainKey(o)
		d.domains[k] = s
	}
	return s
}

func domainKey(o Owner) string { return fmt.Sprintf("%s/%d", o.Tenant, o.UID) }

func ledgerFull(err error) *schemas.Error {
	return schemas.Errorf(schemas.CodeBusy, "the ledger cannot take more records: %v", err).With("retry_after_ms", 1000)
}

// encodeSegment and encodeGrant use one buffer: a transaction copies what it is given.
func (d *Device) encodeSegment(s *segment) []byte {
	d.buf = encodeSegment(d.buf, s)
	return d.buf
}

func (d *Device) encodeGrant(g *Grant) []byte {
	d.buf = encodeGrant(d.buf, g)
	return d.buf
}

// tie notes that a session owns or maps a grant.
func (d *Device) tie(s SessionID, g *Grant) {
	if s == "" {
		return
	}
	m := d.sessions[s]
	if m == nil {
		m = map[*Grant]bool{}
		d.sessions[s] = m
	}
	m[g] = true
}

// untie forgets that, where it no longer is so.
func (d *Device) untie(s SessionID, g *Grant) {
	if m := d.sessions[s]; m != nil && (g.Status == StatusReleased || g.mapper(s) == nil && !(g.Bound && g.Owner.Session == s)) {
		delete(m, g)
		if len(m) == 0 {
			delete(d.sessions, s)
		}
	}
}

// of lists the grants of a session in the order of their making.
func (d *Device) of(s SessionID) []*Grant { return inOrder(d.sessions[s]) }

func inOrder[V any](m map[*Grant]V) []*Grant {
	out := make([]*Grant, 0, len(m))
	for g := range m {
		out = append(out, g)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].seq < out[j].seq })
	return out
}

// all lists every grant in the order of their making.
func (d *Device) all() []*Grant {
	out := make([]*Grant, 0, len(d.grants))
	for _, g := range d.grants {
		out = append(out, g)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].seq < out[j].seq })
	return out
}

func roundUp(n, to int64) int64 {
	if over := n % to; over != 0 {
		return n + to - over
	}
	return n
}
