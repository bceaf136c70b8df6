package eviction

import (
	"math"
	"slices"

	"github.com/isobar-project/isobar/clock"
)

// ranked is a candidate with its place in the order of going. It holds no pointer,
// so that ten thousand of them are nothing for the garbage collector to walk.
type ranked struct {
	value float64
	class int64 // priority, below all what is doubled, below that what goes first, above all priorities what is read, above that the last victim
	bytes int64
	index int32 // among the candidates
	rank  int32 // 1 is the first to go; set when it is chosen
}

// ranking is the evictable candidates of one plan, or the first to go of them.
type ranking struct {
	sequence
	request *Request
	none    Terms // those of a group for which the request has none
	items   []ranked
	count   int // of the evictable, with those that were dropped
	floors  []floor
	spared  []bool  // of the candidates; nil: nobody asks
	sizes   []int64 // see fewest

	// A plan takes a few of many. Where need is set, those that are not needed are dropped
	// while candidates come in: whatever the first to go of them leave for later.
	need    int64
	bytes   int64  // of the items
	full    int    // at how many items to drop some
	last    ranked // of those that are needed so far, if something was dropped yet
	dropped bool
}

// fullAt is at how many items a ranking first drops some: enough to make it worth while,
// few enough to stay in the nearest cache.
const fullAt = 512

// begin starts a ranking of a request's candidates. need is 0 if all of them are to stay in it.
func (r *ranking) begin(of *Request, need int64) {
	r.sequence, r.request = sequence{of.Candidates}, of
	r.items, r.count, r.bytes = r.items[:0], 0, 0
	r.need, r.full, r.dropped = need, fullAt, false
	room := len(of.Candidates)
	if need > 0 {
		room = min(room, 2*fullAt)
	}
	r.items = slices.Grow(r.items, room)
	r.beginFloors()
	if of.Explain {
		r.spared = make([]bool, len(of.Candidates))
	}
}

// end lets go of what is the caller's.
func (r *ranking) end() { r.sequence, r.request, r.spared = sequence{}, nil, nil }

// terms are those of a candidate's group.
func (r *ranking) terms(c *Candidate) *Terms {
	if c.Group < len(r.request.Terms) {
		return &r.request.Terms[c.Group]
	}
	return &r.none
}

// gather takes in all candidates that may go, with what the policy that decides holds them worth.
func (r *ranking) gather(policy Policy, now clock.Instant) {
	shown, force := r.request.Worths, r.request.Force
	for i := range r.of {
		c := &r.of[i]
		t := r.terms(c)
		if c.Excluded != "" || c.Pinned || c.Bytes <= 0 || c.Readers > 0 && !force || t.Excluded != "" {
			continue // unevictable says why
		}
		x := r.next()
		*x = ranked{class: int64(min(max(c.Priority, -1<<31), 1<<31)), bytes: c.Bytes, index: int32(i)}
		if c.Readers > 0 {
			x.class += 1 << 36 // only by force, and after everything that nobody reads
		}
		if t.First {
			x.class -= 1 << 35
		}
		if c.Doubled {
			x.class -= 1 << 34
		}
		if c.LastVictim {
			x.class += 1 << 40
		}
		switch {
		case shown == nil:
			x.value = policy.Value(c.Key, now)
		case shown[i] == nil:
			x.value = math.Inf(-1)
		default:
			x.value = shown[i].value
		}
		if t.Weight > 0 {
			x.value *= t.Weight
		}
		if t.Bounded {
			r.floors[c.Group].add(x)
		} else {
			r.take(x)
		}
	}
	r.addFloored()
}

// next is where the next item would be: whoever fills it has it taken, or leaves it.
func (r *ranking) next() *ranked {
	if len(r.items) == cap(r.items) {
		r.items = slices.Grow(r.items, 1)
	}
	return &r.items[:len(r.items)+1][len(r.items)]
}

// take puts in the next item, unless it is not needed.
func (r *ranking) take(next *ranked) {
	r.count++
	if r.dropped && r.before(&r.last, next) {
		return
	}
	r.items = r.items[:len(r.items)+1]
	r.bytes += next.bytes
	if r.need > 0 && len(r.items) >= r.full {
		r.drop()
	}
}

// drop leaves out what goes after those that are needed, or most of it: a pivot a good way
// behind them, by a sample, and those before it are enough.
func (r *ranking) drop() {
	const behind = .1
	if r.bytes < r.need {
		r.full *= 2
		return
	}
	draw := draws(1)
	share := max(float64(r.need)/float64(r.bytes), among/float64(len(r.items)))
	at, bytes := r.part(r.items, r.pivot(r.items, share+behind, &draw))
	if bytes >= r.need && at >= among {
		r.last, r.dropped = r.items[at], true
		r.items, r.bytes = r.items[:at], bytes
	}
	r.full = 2 * len(r.items)
}

// cheapest takes the first to go until they free need bytes or none is left. They come in
// order, and so do those that follow, until both are as many as a set is looked for in.
func (r *ranking) cheapest(need int64) (chosen, next []ranked, freed int64) {
	n, _ := r.divide(r.items, r.bytes, need, among)
	first := r.items[:n]
	r.sort(first)
	for i := range first {
		first[i].rank = int32(i + 1)
	}
	k := 0
	for ; k < n && freed < need; k++ {
		freed += first[k].bytes
	}
	return first[:k:k], first[k:max(k, min(n, among))], freed
}

// needed is how many of the first to go free need bytes; all, if they don't.
func (r *ranking) needed(need int64) int {
	n, _ := r.divide(r.items, r.bytes, need, 0)
	return n
}
