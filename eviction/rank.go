package eviction

import (
	"cmp"
	"slices"
)

// ranked is a candidate with its place in the order of going. It holds no pointer,
// so that ten thousand of them are nothing for the garbage collector to walk.
type ranked struct {
	value float64
	class int64 // priority, below all what goes first, above all priorities what is read, above that the last victim
	bytes int64
	index int32 // among the candidates
	rank  int32 // 1 is the first to go; set when it is chosen
}

// ranking is the evictable candidates of one plan, or the first to go of them.
type ranking struct {
	of    []Candidate
	items []ranked
	count int // of the evictable, with those that were dropped

	// A plan takes a few of many. Where need is set, those that are not needed are dropped
	// while candidates come in: whatever the first to go of them leave for later.
	need  int64
	bytes int64   // of the items
	full  int     // at how many items to drop some
	last  *ranked // of those that are needed so far; nil: nothing was dropped yet
}

// fullAt is at how many items a ranking first drops some: enough to make it worth while,
// few enough to stay in the nearest cache.
const fullAt = 512

// rankingOf starts one of candidates. need is 0 if all of them are to stay in it.
func rankingOf(of []Candidate, need int64) ranking {
	room := len(of)
	if need > 0 {
		room = min(room, 2*fullAt)
	}
	return ranking{of: of, need: need, full: fullAt, items: make([]ranked, 0, room)}
}

// add appends the candidate at index i with what the policy holds it worth.
func (r *ranking) add(i int, value float64) {
	c := &r.of[i]
	class := int64(min(max(c.Priority, -1<<31), 1<<31))
	if c.Readers > 0 {
		class += 1 << 36 // only by force, and after everything that nobody reads
	}
	if c.First {
		class -= 1 << 35
	}
	if c.LastVictim {
		class += 1 << 40
	}
	r.count++
	x := ranked{value: value, class: class, bytes: c.Bytes, index: int32(i)}
	if r.last != nil && r.before(r.last, &x) {
		return
	}
	r.items = append(r.items, x)
	r.bytes += x.bytes
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
		last := r.items[at]
		r.items, r.bytes, r.last = r.items[:at], bytes, &last
	}
	r.full = 2 * len(r.items)
}

// before reports whether a goes before b. It is a total order over distinct keys.
func (r *ranking) before(a, b *ranked) bool {
	if a.class != b.class {
		return a.class < b.class
	}
	if a.value != b.value {
		return a.value < b.value
	}
	ca, cb := &r.of[a.index], &r.of[b.index]
	if ca.LastUsed != cb.LastUsed {
		return ca.LastUsed < cb.LastUsed
	}
	return ca.Key < cb.Key
}

// cheapest takes the first to go until they free need bytes or none is left. They come in
// order, and so do those that follow, until both are as many as a set is looked for in.
func (r *ranking) cheapest(need int64) (chosen, next []ranked, freed int64) {
	n, _ := r.divide(need, among)
	first := r.items[:n]
	r.sort(first)
	k := 0
	for ; k < n && freed < need; k++ {
		freed += first[k].bytes
	}
	for i := range first {
		first[i].rank = int32(i + 1)
	}
	return first[:k:k], first[k:max(k, min(n, among))], freed
}

// divide moves the first to go to the front, in no order: at least so many, of at least
// need bytes, or all. As few are needed of many they are not sorted but divided about pivots, as by
// quickselect, with bytes counted beside items. A pivot lies, by a sample, a little behind what
// is needed: most of the others are looked at once.
//
// Floyd, Rivest, Expected time bounds for selection (1975).
func (r *ranking) divide(need int64, least int) (n int, freed int64) {
	const few = 32
	if r.bytes < need || len(r.items) <= least {
		return len(r.items), r.bytes
	}
	lo, hi, between := 0, len(r.items), r.bytes // what is before lo goes, what is from hi on stays; bytes
	draw := draws(1)
	for hi-lo > few && (freed < need || lo < least) {
		items := r.items[lo:hi]
		share := max(float64(need-freed)/float64(between), float64(least-lo)/float64(hi-lo))
		at, sum := r.part(items, r.pivot(items, share, &draw))
		if freed+sum >= need && lo+at >= least {
			hi, between = lo+at, sum
			continue
		}
		sum += items[at].bytes
		freed += sum
		between -= sum
		lo += at + 1
	}
	if freed < need || lo < least {
		rest := r.items[lo:hi]
		r.sort(rest)
		for i := 0; freed < need || lo < least; i++ {
			freed += rest[i].bytes
			lo++
		}
	}
	return lo, freed
}

// draws are numbers that no order of the candidates is made for.
type draws uint32

// below is the next one, below n.
func (d *draws) below(n int) int {
	*d = *d*1664525 + 1013904223 // Numerical Recipes
	return int(uint64(*d) * uint64(n) >> 32)
}

// pivot is an item with somewhat more than share of all before it, if the sample is a good one.
func (r *ranking) pivot(items []ranked, share float64, draw *draws) int {
	const size = 31
	var sample [size]int
	for i := range sample {
		at, x := i, draw.below(len(items))
		for ; at > 0 && r.before(&items[x], &items[sample[at-1]]); at-- {
			sample[at] = sample[at-1]
		}
		sample[at] = x
	}
	return sample[int(min(size-1, max(0, share)*size+1))]
}

// part moves those that go before the one at pivot to the front; it returns how many they
// are, which is where that one is then, and their bytes.
func (r *ranking) part(items []ranked, pivot int) (at int, bytes int64) {
	last := len(items) - 1
	items[pivot], items[last] = items[last], items[pivot]
	for i := range items[:last] {
		if x := &items[i]; r.before(x, &items[last]) {
			bytes += x.bytes
			items[at], items[i] = items[i], items[at]
			at++
		}
	}
	items[at], items[last] = items[last], items[at]
	return at, bytes
}

// sort puts candidates into the order of going.
func (r *ranking) sort(items []ranked) {
	slices.SortFunc(items, func(a, b ranked) int {
		if r.before(&a, &b) {
			return -1
		}
		return 1
	})
}

// fewest takes at most limit of all: the first to go with which need can still
// be met by those that follow; the largest if need cannot be met at all.
func (r *ranking) fewest(need int64, limit int) (chosen []ranked, freed int64) {
	inOrder := slices.Clone(r.items)
	r.sort(inOrder)
	for i := range inOrder {
		inOrder[i].rank = int32(i + 1)
	}
	bySize := slices.Clone(inOrder)
	slices.SortStableFunc(bySize, func(a, b ranked) int { return cmp.Compare(b.bytes, a.bytes) })

	largest := bySize[:min(limit, len(bySize))]
	for _, c := range largest {
		freed += c.bytes
	}
	if freed < need {
		chosen = slices.Clone(largest)
	} else {
		chosen, freed = r.fitting(inOrder, bySize, need, limit)
	}
	slices.SortFunc(chosen, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	return chosen, freed
}

// fitting is fewest where the limit largest suffice. Each slot takes the first in
// order that leaves a need which the largest others can meet in the slots left.
func (r *ranking) fitting(inOrder, bySize []ranked, need int64, limit int) (chosen []ranked, freed int64) {
	taken := make(map[int32]bool, limit)
	for slots := limit; slots > 0 && freed < need; slots-- {
		var (
			others  int64                         // the largest slots−1 not taken, together
			reserve int64                         // the largest after those
			among   = make(map[int32]bool, slots) // the largest slots−1
		)
		for _, c := range bySize {
			if taken[c.index] {
				continue
			}
			if len(among) == slots-1 {
				reserve = c.bytes
				break
			}
			others += c.bytes
			among[c.index] = true
		}
		for _, c := range inOrder {
			if taken[c.index] {
				continue
			}
			rest := others
			if among[c.index] {
				rest += reserve - c.bytes
			}
			if freed+c.bytes+rest >= need {
				taken[c.index] = true
				chosen = append(chosen, c)
				freed += c.bytes
				break
			}
		}
	}
	return chosen, freed
}
