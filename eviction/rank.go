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

// cheapest takes the first to go until they free need bytes or none is left. A
// plan takes a few of many, so they are not sorted: of those looked at so far a heap holds
// the first that suffice, and most of the others are behind its last.
func (r *ranking) cheapest(need int64) (chosen []ranked, freed int64) {
	for i := range r.items {
		x := &r.items[i]
		if freed >= need && r.before(&chosen[0], x) {
			continue
		}
		chosen = append(chosen, *x)
		r.rise(chosen)
		freed += r.bytes(*x)
		for n := len(chosen) - 1; freed-r.bytes(chosen[0]) >= need; n-- {
			freed -= r.bytes(chosen[0])
			chosen[0] = chosen[n]
			chosen = chosen[:n]
			r.sink(chosen)
		}
	}
	r.sort(chosen)
	for i := range chosen {
		chosen[i].rank = int32(i + 1)
	}
	return chosen, freed
}

// rise restores a heap with the last to go on top, of which only the last item may be out
// of place.
func (r *ranking) rise(h []ranked) {
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !r.before(&h[parent], &h[i]) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

// sink is rise where only the top may be out of place.
func (r *ranking) sink(h []ranked) {
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && r.before(&h[child], &h[child+1]) {
			child++
		}
		if !r.before(&h[i], &h[child]) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
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
