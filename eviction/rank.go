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
	index int32 // among the candidates
	rank  int32 // 1 is the first to go; set when it is chosen
}

// ranking is the evictable candidates of one plan.
type ranking struct {
	of    []Candidate
	items []ranked
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
	r.items = append(r.items, ranked{value: value, class: class, index: int32(i)})
}

func (r *ranking) bytes(x ranked) int64 { return r.of[x.index].Bytes }

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

// cheapest takes the first to go until they free need bytes or none is left. A plan takes
// a few of many, so they are not sorted but divided about pivots, as by quickselect, with
// bytes counted in place of items. A pivot lies, by a sample, a little behind what is needed:
// most of the others are looked at once.
//
// Floyd, Rivest, Expected time bounds for selection (1975).
func (r *ranking) cheapest(need int64) (chosen []ranked, freed int64) {
	const few = 32
	lo, hi := 0, len(r.items) // what is before lo goes, what is from hi on stays
	var between int64         // bytes
	for i := range r.items {
		between += r.bytes(r.items[i])
	}
	draw := draws(1)
	for hi-lo > few && freed < need {
		items := r.items[lo:hi]
		at, sum := r.part(items, r.pivot(items, float64(need-freed)/float64(between), &draw))
		if freed+sum >= need {
			hi, between = lo+at, sum
			continue
		}
		sum += r.bytes(items[at])
		freed += sum
		between -= sum
		lo += at + 1
	}
	if freed < need {
		rest := r.items[lo:hi]
		r.sort(rest)
		for ; len(rest) > 0 && freed < need; rest = rest[1:] {
			freed += r.bytes(rest[0])
			lo++
		}
	}
	chosen = slices.Clone(r.items[:lo])
	r.sort(chosen)
	for i := range chosen {
		chosen[i].rank = int32(i + 1)
	}
	return chosen, freed
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
			bytes += r.bytes(*x)
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
	slices.SortStableFunc(bySize, func(a, b ranked) int { return cmp.Compare(r.bytes(b), r.bytes(a)) })

	largest := bySize[:min(limit, len(bySize))]
	for _, c := range largest {
		freed += r.bytes(c)
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
				reserve = r.bytes(c)
				break
			}
			others += r.bytes(c)
			among[c.index] = true
		}
		for _, c := range inOrder {
			if taken[c.index] {
				continue
			}
			rest := others
			if among[c.index] {
				rest += reserve - r.bytes(c)
			}
			if freed+r.bytes(c)+rest >= need {
				taken[c.index] = true
				chosen = append(chosen, c)
				freed += r.bytes(c)
				break
			}
		}
	}
	return chosen, freed
}
