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
)

// RunTiers replays the trace over two tiers, with policies of that name.
func (t *Trace) RunTiers(b Bound, tiers Tiers, policy string, scheme Scheme) (TierResult, error) {
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
			if r.scheme != Apart && !r.device.has(key) {
				r.main.drop(key)
			}
		}
	}
	victims, err := r.device.room(missing, busy, now)
	if err != nil {
		return err
	}
	for _, o := range victims {
		if err := r.down(o.Key, now); err != nil {
			return err
		}
	}
	for _, i := range needs {
		if o := r.objects[i]; !r.device.has(o.Key) {
			if err := r.up(i, from[o.Key], now); err != nil {
				return err
			}
		}
		r.device.used(r.objects[i].Key, now)
		if r.scheme == Together {
			r.main.used(r.objects[i].Key, now)
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
			if err := r.down(o.Key, now); err != nil {
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
	if r.scheme == Together {
		o.Cost = bus
	} else {
		r.main.used(o.Key, now)
	}
	r.device.put(o, now)
	return nil
}

// down puts a model into main memory that the device evicted, or that is on its way up.
func (r *tieredRun) down(key string, now clock.Instant) error {
	o := r.byKey[key]
	if r.main.has(key) || o.Bytes > r.tiers.Main {
		return nil
	}
	if _, err := r.main.room(o.Bytes, nil, now); err != nil {
		return err
	}
	r.main.put(o, now)
	return nil
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
