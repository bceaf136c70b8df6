package replay

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
)

// Tiers is a device with main memory behind it: what the device evicts is demoted there,
// and comes back at the speed of the bus.
type Tiers struct {
	Device, Main   int64   // bytes
	BytesPerSecond float64 // of the bus
}

// TierResult is what one run over two tiers cost.
type TierResult struct {
	Seconds float64 `json:"seconds"`     // of reloading, from disk and over the bus, first loads included
	Disk    float64 `json:"disk"`        // of these, from disk
	First   float64 `json:"first_loads"` // of these, first loads: no schedule is without them
}

// Scheme is how two tiers are run.
type Scheme string

// The schemes. Each is as good as its policy, and loads a model from disk by way of main
// memory.
const (
	// Apart runs each tier on its own: main memory keeps what it holds until its own policy
	// evicts it, whether the device has it too or not.
	Apart Scheme = "apart"
	// Exclusive has a model in one tier at a time, else as Apart: what goes up leaves main memory.
	Exclusive Scheme = "exclusive"
	// Together is Exclusive where both tiers are one decision: on the device a model is
	// weighed by what it takes to come back over the bus, in main memory by what it takes from disk, and both
	// know of every use.
	Together Scheme = "together"
	// Node is what a node does: main memory keeps what goes up, and lets that go first; it takes
	// what goes down where that is worth more than what would have to give way, else that is dropped. It knows of every
	// use. On the device a model is weighed by what the way was that it came by.
	Node Scheme = "node"
)

// Descent is what became of a model that went from the device: it is in main memory, where
// others gave way for it, or it was dropped.
type Descent struct {
	Request int
	Key     string
	Dropped bool
	GaveWay []string
}

// RunTiers replays the trace over two tiers, with policies of that name.
func (t *Trace) RunTiers(b Bound, tiers Tiers, policy string, scheme Scheme) (TierResult, error) {
	return t.FollowTiers(b, tiers, policy, scheme, func(Descent) {})
}

// FollowTiers is RunTiers that tells decided what becomes of what goes from the device.
func (t *Trace) FollowTiers(b Bound, tiers Tiers, policy string, scheme Scheme, decided func(Descent)) (TierResult, error) {
	objects := t.objects(b)
	if objects == nil {
		return TierResult{}, fmt.Errorf("no assignment %s with cost %s", b.Seed, b.Cost)
	}
	device, err := eviction.New(policy)
	if err != nil {
		return TierResult{}, err
	}
	mainMemory, err := eviction.New(policy)
	if err != nil {
		return TierResult{}, err
	}
	byKey := make(map[string]eviction.Object, len(objects))
	for _, o := range objects {
		byKey[o.Key] = o
	}
	r := tieredRun{
		objects: objects, byKey: byKey, tiers: tiers, scheme: scheme, seen: make(map[int]bool),
		device: tier{policy: device, free: tiers.Device, place: make(map[string]int)},
		main:   tier{policy: mainMemory, free: tiers.Main, place: make(map[string]int)},
	}
	for seq, needs := range t.Requests {
		r.decided = func(d Descent) {
			d.Request = seq
			decided(d)
		}
		if err := r.serve(needs, clock.Instant(seq)*clock.Instant(time.Second)); err != nil {
			return TierResult{}, fmt.Errorf("request %d: %w", seq, err)
		}
	}
	return r.result, nil
}

// tieredRun is a device and its main memory.
type tieredRun struct {
	objects      []eviction.Object
	byKey        map[string]eviction.Object // with the costs from disk
	tiers        Tiers
	scheme       Scheme
	device, main tier
	seen         map[int]bool
	result       TierResult
	decided      func(Descent)
}

func (r *tieredRun) serve(needs []int, now clock.Instant) error {
	var missing, together int64
	busy := make(map[string]bool, len(needs))
	for _, i := range needs {
		o := &r.objects[i]
		busy[o.Key] = true
		together += o.Bytes
		if !r.device.has(o.Key) {
			missing += o.Bytes
		}
	}
	if together > r.tiers.Device {
		return nil // it cannot be served
	}
	from := make(map[string]bool, len(needs)) // what comes out of main memory
	for key := range busy {
		if r.main.has(key) {
			from[key] = true
			switch at := r.main.place[key]; {
			case r.device.has(key) || r.scheme == Apart:
			case r.scheme == Node:
				r.main.resident[at].Readers = 1 // until it is up
			default:
				r.main.drop(key)
			}
		}
	}
	victims, err := r.device.room(missing, busy, now)
	if err != nil {
		return err
	}
	for _, o := range victims { // what they have in main memory stays
		if at, ok := r.main.place[o.Key]; ok && r.scheme == Node {
			r.main.resident[at].Readers = 1
		}
	}
	for _, o := range victims {
		gave, err := r.down(o.Key, now)
		if err != nil {
			return err
		}
		r.decided(Descent{Key: o.Key, Dropped: !r.main.has(o.Key), GaveWay: gave})
	}
	for _, o := range victims {
		if at, ok := r.main.place[o.Key]; ok && r.scheme == Node {
			r.main.resident[at].Readers = 0
		}
	}
	for _, i := range needs {
		if o := r.objects[i]; !r.device.has(o.Key) {
			if err := r.up(i, from[o.Key], now); err != nil {
				return err
			}
		}
		o := &r.objects[i]
		r.device.used(o.Key, now)
		switch r.scheme {
		case Together:
			r.main.used(o.Key, now)
		case Node:
			r.hear(o, now)
		}
	}
	return nil
}

// up loads a model to the device, from disk unless it was in main memory.
func (r *tieredRun) up(i int, warm bool, now clock.Instant) error {
	o := r.objects[i]
	if !warm {
		r.result.Disk += o.Cost
		if !r.seen[i] {
			r.result.First += o.Cost
		}
		if r.scheme == Apart {
			if _, err := r.down(o.Key, now); err != nil {
				return err
			}
		}
	}
	if r.scheme == Together && !r.seen[i] {
		// Main memory's policy knows it from now on, though it is not there.
		r.main.policy.Loaded(o, now)
		r.main.policy.Evicted(o.Key, now)
	}
	r.seen[i] = true
	bus := float64(o.Bytes) / r.tiers.BytesPerSecond
	r.result.Seconds += bus
	if !warm {
		r.result.Seconds += o.Cost
	}
	switch {
	case r.scheme == Together, r.scheme == Node && warm:
		o.Cost = bus
	case r.scheme != Node:
		r.main.used(o.Key, now)
	}
	r.device.put(o, now)
	return nil
}

// hear has main memory know of a use.
func (r *tieredRun) hear(o *eviction.Object, now clock.Instant) {
	if p, ok := r.main.policy.(eviction.Listener); ok {
		p.Heard(*o, now)
	}
	if at, ok := r.main.place[o.Key]; ok {
		c := &r.main.resident[at]
		c.Readers, c.Doubled = 0, true
	}
}

// down puts a model into main memory that the device evicted, or that is on its way up, and
// returns what gave way to it. As a Node does it may leave it.
func (r *tieredRun) down(key string, now clock.Instant) (gave []string, err error) {
	o := r.byKey[key]
	if at, ok := r.main.place[key]; ok {
		r.main.resident[at].Doubled = false
		return nil, nil
	}
	if o.Bytes > r.tiers.Main {
		return nil, nil
	}
	if r.scheme == Node {
		return r.giveWay(o, now), nil
	}
	gone, err := r.main.room(o.Bytes, nil, now)
	if err != nil {
		return nil, err
	}
	for _, o := range gone {
		gave = append(gave, o.Key)
	}
	r.main.put(o, now)
	return gave, nil
}

// giveWay puts a model into main memory where that has room, or something that is worth less.
func (r *tieredRun) giveWay(o eviction.Object, now clock.Instant) (gave []string) {
	if lacks := o.Bytes - r.main.free; lacks > 0 {
		plan := eviction.MakePlan(r.main.policy, eviction.Request{Need: lacks, Candidates: r.main.resident}, now)
		if !plan.Yields(eviction.Returning(r.main.policy, o.Key, 0, 0), o.Bytes) {
			return nil
		}
		for _, v := range plan.Victims {
			gave = append(gave, v.Key)
			r.main.drop(v.Key)
			r.main.policy.Evicted(v.Key, now)
		}
	}
	r.main.put(o, now)
	return gave
}

// tier is the memory of one kind.
type tier struct {
	policy   eviction.Policy
	free     int64
	resident []eviction.Candidate
	place    map[string]int // key → index in resident
}

func (t *tier) has(key string) bool {
	_, ok := t.place[key]
	return ok
}

// used notes a use, of what is not there any more too.
func (t *tier) used(key string, now clock.Instant) {
	t.policy.Used(key, now)
	if at, ok := t.place[key]; ok {
		t.resident[at].LastUsed = now
	}
}

// room makes room for that many bytes and returns what went.
func (t *tier) room(bytes int64, busy map[string]bool, now clock.Instant) (gone []eviction.Object, err error) {
	if bytes <= t.free {
		return nil, nil
	}
	for key := range busy {
		if at, ok := t.place[key]; ok {
			t.resident[at].Readers = 1
		}
	}
	plan := eviction.MakePlan(t.policy, eviction.Request{Need: bytes - t.free, Candidates: t.resident}, now)
	for key := range busy {
		if at, ok := t.place[key]; ok {
			t.resident[at].Readers = 0
		}
	}
	if plan.Shortfall > 0 {
		return nil, fmt.Errorf("short of %d bytes although all fits", plan.Shortfall)
	}
	for _, v := range plan.Victims {
		gone = append(gone, t.resident[t.place[v.Key]].Object)
		t.drop(v.Key)
		t.policy.Evicted(v.Key, now)
	}
	return gone, nil
}

func (t *tier) put(o eviction.Object, now clock.Instant) {
	t.place[o.Key] = len(t.resident)
	t.resident = append(t.resident, eviction.Candidate{Object: o, LastUsed: now})
	t.free -= o.Bytes
	t.policy.Loaded(o, now)
}

// drop takes an object out, without a word to the policy.
func (t *tier) drop(key string) {
	at, last := t.place[key], len(t.resident)-1
	t.free += t.resident[at].Bytes
	t.resident[at] = t.resident[last]
	t.place[t.resident[at].Key] = at
	t.resident = t.resident[:last]
	delete(t.place, key)
}
