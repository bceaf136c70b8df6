package eviction

import (
	"cmp"
	"slices"
)

// ranked is a candidate with its place in the order of going.
type ranked struct {
	value float64
	rank  int // 1 is the first to go; set when it is chosen
	of    *Candidate
}

// before reports whether a goes before b. It is a total order over distinct keys.
func before(a, b *ranked) bool {
	switch {
	case a.of.LastVictim != b.of.LastVictim:
		return b.of.LastVictim
	case a.of.Priority != b.of.Priority:
		return a.of.Priority < b.of.Priority
	case a.value != b.value:
		return a.value < b.value
	case a.of.LastUsed != b.of.LastUsed:
		return a.of.LastUsed < b.of.LastUsed
	}
	return a.of.Key < b.of.Key
}

// ranking is a binary heap, the first to go on top. Plans take a few of many, so
// sorting all of them would be most of the work.
type ranking []ranked

func (h ranking) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if before(&h[child], &h[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

// cheapest takes the first to go until they free need bytes or none is left. It
// reorders h and leaves all elements in its array.
func (h ranking) cheapest(need int64) (chosen []ranked, freed int64) {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
	rest := h
	for len(rest) > 0 && freed < need {
		rest[0].rank = len(chosen) + 1
		chosen = append(chosen, rest[0])
		freed += rest[0].of.Bytes
		last := len(rest) - 1
		rest[0], rest[last] = rest[last], rest[0]
		rest = rest[:last]
		rest.down(0)
	}
	return chosen, freed
}

// fewest takes at most limit of all: the first to go with which need can still
// be met by those that follow; the largest if need cannot be met at all.
func fewest(all ranking, need int64, limit int) (chosen []ranked, freed int64) {
	inOrder := slices.Clone(all)
	slices.SortFunc(inOrder, func(a, b ranked) int {
		if before(&a, &b) {
			return -1
		}
		return 1
	})
	for i := range inOrder {
		inOrder[i].rank = i + 1
	}
	bySize := slices.Clone(inOrder)
	slices.SortStableFunc(bySize, func(a, b ranked) int { return cmp.Compare(b.of.Bytes, a.of.Bytes) })

	largest := bySize[:min(limit, len(bySize))]
	for _, c := range largest {
		freed += c.of.Bytes
	}
	if freed < need {
		chosen = slices.Clone(largest)
	} else {
		chosen, freed = fitting(inOrder, bySize, need, limit)
	}
	slices.SortFunc(chosen, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	return chosen, freed
}

// fitting is fewest where the limit largest suffice. Each slot takes the first in
// order that leaves a need which the largest others can meet in the slots left.
func fitting(inOrder, bySize []ranked, need int64, limit int) (chosen []ranked, freed int64) {
	taken := make(map[*Candidate]bool, limit)
	for slots := limit; slots > 0 && freed < need; slots-- {
		var (
			others  int64                              // the largest slots−1 not taken, together
			reserve int64                              // the largest after those
			among   = make(map[*Candidate]bool, slots) // the largest slots−1
		)
		for _, c := range bySize {
			if taken[c.of] {
				continue
			}
			if len(among) == slots-1 {
				reserve = c.of.Bytes
				break
			}
			others += c.of.Bytes
			among[c.of] = true
		}
		for _, c := range inOrder {
			if taken[c.of] {
				continue
			}
			rest := others
			if among[c.of] {
				rest += reserve - c.of.Bytes
			}
			if freed+c.of.Bytes+rest >= need {
				taken[c.of] = true
				chosen = append(chosen, c)
				freed += c.of.Bytes
				break
			}
		}
	}
	return chosen, freed
}
