package eviction

// sequence is the order of going of candidates.
type sequence struct{ of []Candidate }

// before reports whether a goes before b. It is a total order over distinct keys.
func (s sequence) before(a, b *ranked) bool {
	if a.class != b.class {
		return a.class < b.class
	}
	if a.value != b.value {
		return a.value < b.value
	}
	ca, cb := &s.of[a.index], &s.of[b.index]
	if ca.LastUsed != cb.LastUsed {
		return ca.LastUsed < cb.LastUsed
	}
	return ca.Key < cb.Key
}

// divide moves the first to go of items, which have so many bytes, to the front, in no order: at
// least so many, of at least need bytes, or all. As few are needed of many they are not sorted
// but divided about pivots, as by quickselect, with bytes counted beside items. A pivot lies, by a
// sample, a little behind what is needed: most of the others are looked at once.
//
// Floyd, Rivest, Expected time bounds for selection (1975).
func (s sequence) divide(all []ranked, bytes, need int64, least int) (n int, freed int64) {
	const few = 32
	if bytes < need || len(all) <= least {
		return len(all), bytes
	}
	lo, hi, between := 0, len(all), bytes // what is before lo goes, what is from hi on stays; bytes
	draw := draws(1)
	for hi-lo > few && (freed < need || lo < least) {
		items := all[lo:hi]
		share := max(float64(need-freed)/float64(between), float64(least-lo)/float64(hi-lo))
		at, sum := s.part(items, s.pivot(items, share, &draw))
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
		rest := all[lo:hi]
		s.sort(rest)
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
func (s sequence) pivot(items []ranked, share float64, draw *draws) int {
	const size = 31
	var sample [size]int
	for i := range sample {
		at, x := i, draw.below(len(items))
		for ; at > 0 && s.before(&items[x], &items[sample[at-1]]); at-- {
			sample[at] = sample[at-1]
		}
		sample[at] = x
	}
	return sample[int(min(size-1, max(0, share)*size+1))]
}

// part moves those that go before the one at pivot to the front; it returns how many they
// are, which is where that one is then, and their bytes.
func (s sequence) part(items []ranked, pivot int) (at int, bytes int64) {
	last := len(items) - 1
	items[pivot], items[last] = items[last], items[pivot]
	for i := range items[:last] {
		if x := &items[i]; s.before(x, &items[last]) {
			bytes += x.bytes
			items[at], items[i] = items[i], items[at]
			at++
		}
	}
	items[at], items[last] = items[last], items[at]
	return at, bytes
}
