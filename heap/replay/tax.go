package replay

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	models "github.com/isobar-project/isobar/eviction/replay"
	"github.com/isobar-project/isobar/heap"
)

// Memory is how a device that holds models is managed, for the comparison of Tax.
type Memory string

// The kinds of memory.
const (
	// Counted memory is a number of bytes: what no real memory can be.
	Counted Memory = "bytes counted"
	// Segmented memory is the node's: a model is one or several segments of up to 1 GiB, in
	// multiples of the driver's granularity, wherever there is room.
	Segmented Memory = "segments"
	// Contiguous memory is one arena in which a model lies in one piece.
	Contiguous Memory = "one plain arena"
)

const (
	granularity  = 2 << 20 // of a GPU's driver
	modelSegment = 1 << 30 // what weights.Layout begins with
)

// Tax is how much longer models reload than with counted bytes.
type Tax struct {
	Memory   Memory  `json:"memory"`
	Cost     string  `json:"cost"`
	Fraction float64 `json:"capacity"`
	Seconds  float64 `json:"seconds"` // the mean over the assignments
	Percent  float64 `json:"percent"` // the mean over the assignments of the excess over counted bytes
	Worst    float64 `json:"worst"`   // of the assignments
}

// Taxes replays the model requests with every kind of memory, the default policy and the
// trace's capacities.
func Taxes(t *models.Trace) ([]Tax, error) {
	type key struct {
		m        Memory
		cost     string
		fraction float64
	}
	at := map[key]int{}
	var out []Tax
	n := map[key]float64{}
	for _, b := range t.Bounds {
		base := 0.
		for _, m := range []Memory{Counted, Segmented, Contiguous} {
			seconds, err := reload(t, b, m)
			if err != nil {
				return nil, fmt.Errorf("%s, seed %s, capacity %.2f, %s: %w", b.Cost, b.Seed, b.Fraction, m, err)
			}
			if m == Counted {
				base = seconds
			}
			k := key{m, b.Cost, b.Fraction}
			i, ok := at[k]
			if !ok {
				i = len(out)
				at[k] = i
				out = append(out, Tax{Memory: m, Cost: b.Cost, Fraction: b.Fraction})
			}
			excess := 100 * (seconds/base - 1)
			n[k]++
			out[i].Seconds += (seconds - out[i].Seconds) / n[k]
			out[i].Percent += (excess - out[i].Percent) / n[k]
			out[i].Worst = max(out[i].Worst, excess)
		}
	}
	return out, nil
}

// reload is the seconds of reloading with one kind of memory.
func reload(t *models.Trace, b models.Bound, m Memory) (float64, error) {
	var objects []eviction.Object
	for _, a := range t.Assignments {
		if a.Seed == b.Seed {
			objects = a.Costs[b.Cost]
		}
	}
	if objects == nil {
		return 0, fmt.Errorf("no assignment %s with cost %s", b.Seed, b.Cost)
	}
	p, err := eviction.New(eviction.DefaultName)
	if err != nil {
		return 0, err
	}
	r := &residents{memory: m, capacity: b.Capacity, policy: p, objects: objects, place: map[string]int{}, held: map[string][]heap.Block{}}
	if m == Contiguous {
		r.arena = newArena(b.Capacity, 0)
	} else {
		r.segments = heap.New(heap.Config{GranularityBytes: granularity})
	}
	for seq, needs := range t.Requests {
		if err := r.serve(needs, clock.Instant(seq)*clock.Instant(time.Second)); err != nil {
			return 0, fmt.Errorf("request %d: %w", seq, err)
		}
	}
	return r.seconds, nil
}

// residents are the models of a device.
type residents struct {
	memory   Memory
	capacity int64
	used     int64
	policy   eviction.Policy
	objects  []eviction.Object
	there    []eviction.Candidate
	place    map[string]int
	held     map[string][]heap.Block
	arena    *arena
	segments *heap.Heap
	next     heap.SegmentID
	seconds  float64
}

// takes is how many bytes of the device an object takes.
func (r *residents) takes(bytes int64) int64 {
	if r.memory == Segmented {
		return (bytes + granularity - 1) / granularity * granularity
	}
	return bytes
}

func (r *residents) serve(needs []int, now clock.Instant) error {
	var together, missing int64
	for _, i := range needs {
		o := &r.objects[i]
		together += r.takes(o.Bytes)
		if at, ok := r.place[o.Key]; ok {
			r.there[at].Readers = 1
		} else {
			missing += r.takes(o.Bytes)
		}
	}
	if together > r.capacity {
		for _, i := range needs {
			if at, ok := r.place[r.objects[i].Key]; ok {
				r.there[at].Readers = 0
			}
		}
		return nil
	}
	if err := r.evict(missing-(r.capacity-r.used), now); err != nil {
		return err
	}
	for _, i := range needs {
		o := r.objects[i]
		if _, ok := r.place[o.Key]; !ok {
			for !r.put(o) { // a hole in one piece: more must go
				if err := r.evict(1, now); err != nil {
					return r.anew(needs, now)
				}
			}
			r.place[o.Key] = len(r.there)
			r.there = append(r.there, eviction.Candidate{Object: o})
			r.seconds += o.Cost
			r.policy.Loaded(o, now)
		}
		r.policy.Used(o.Key, now)
		c := &r.there[r.place[o.Key]]
		c.Readers, c.LastUsed = 1, now
	}
	for _, i := range needs {
		r.there[r.place[r.objects[i].Key]].Readers = 0
	}
	return nil
}

// anew gives all up that the request needs itself: what it has lies in the way of the rest.
func (r *residents) anew(needs []int, now clock.Instant) error {
	for at := range r.there {
		r.there[at].Readers = 0
	}
	if len(r.there) == 0 {
		return fmt.Errorf("%d models do not fit an empty arena", len(needs))
	}
	if err := r.evict(r.used, now); err != nil {
		return err
	}
	return r.serve(needs, now)
}

func (r *residents) evict(need int64, now clock.Instant) error {
	if need <= 0 {
		return nil
	}
	scaled := r.there
	if r.memory == Segmented { // what an object frees is whole segments
		scaled = make([]eviction.Candidate, len(r.there))
		copy(scaled, r.there)
		for i := range scaled {
			scaled[i].Bytes = r.takes(scaled[i].Bytes)
		}
	}
	plan := eviction.MakePlan(r.policy, eviction.Request{Need: need, Candidates: scaled}, now)
	if plan.Shortfall > 0 {
		return fmt.Errorf("short of %d bytes of %d", plan.Shortfall, need)
	}
	for _, v := range plan.Victims {
		r.drop(v.Key)
		r.policy.Evicted(v.Key, now)
	}
	return nil
}

// put finds memory for an object, as the device actor does for a model's weights.
func (r *residents) put(o eviction.Object) bool {
	switch r.memory {
	case Contiguous:
		b, err := r.arena.h.Alloc(1, o.Bytes, 0)
		if err != nil {
			return false
		}
		r.held[o.Key] = []heap.Block{b}
	case Segmented:
		for left := o.Bytes; left > 0; left -= modelSegment {
			bytes := min(left, modelSegment)
			r.next++
			r.segments.Add(r.next, r.takes(bytes), arenaOwner, true)
			b, err := r.segments.AllocWhole(r.next, bytes)
			if err != nil {
				return false
			}
			r.held[o.Key] = append(r.held[o.Key], b)
		}
		if r.segments.Stats().SegmentBytes > r.capacity {
			return false
		}
	}
	r.used += r.takes(o.Bytes)
	return true
}

func (r *residents) drop(key string) {
	at, last := r.place[key], len(r.there)-1
	r.used -= r.takes(r.there[at].Bytes)
	for _, b := range r.held[key] {
		if r.memory == Contiguous {
			r.arena.h.Free(b)
		} else if r.segments.Free(b) {
			r.segments.Remove(b.Segment)
		}
	}
	delete(r.held, key)
	r.there[at] = r.there[last]
	r.place[r.there[at].Key] = at
	r.there = r.there[:last]
	delete(r.place, key)
}
