package eviction

import (
	"math/bits"
	"slices"
)

// fewest takes at most limit of all, which are more: the first to go with which need can still
// be met by those that follow; the largest if need cannot be met at all.
func (r *ranking) fewest(need int64, limit int) (chosen []ranked, freed int64) {
	r.sizes = slices.Grow(r.sizes[:0], len(r.items))
	for i := range r.items {
		r.sizes = append(r.sizes, r.items[i].bytes)
	}
	selectLargest(r.sizes, limit)
	largest := r.sizes[:limit]
	slices.Sort(largest)
	var most int64
	for _, bytes := range largest {
		most += bytes
	}
	if most < need {
		chosen, freed = r.largest(largest[0], limit), most
	} else {
		f := fitting{sequence: r.sequence, need: need, least: need - most + largest[0], largest: largest, chosen: make([]ranked, 0, limit), draw: 1}
		f.take(r.items)
		chosen, freed = f.chosen, need-f.need
	}
	r.sort(chosen)
	r.number(chosen)
	return chosen, freed
}

// largest are the limit largest of all, of which the smallest has so many bytes: of those of
// its size the first to go.
func (r *ranking) largest(smallest int64, limit int) []ranked {
	chosen, same := make([]ranked, 0, limit), []ranked(nil)
	for i := range r.items {
		switch x := &r.items[i]; {
		case x.bytes > smallest:
			chosen = append(chosen, *x)
		case x.bytes == smallest:
			same = append(same, *x)
		}
	}
	left := limit - len(chosen)
	r.divide(same, smallest*int64(len(same)), 0, left)
	return append(chosen, same[:left]...)
}

// number gives the chosen, which are in order, their ranks among all.
func (r *ranking) number(chosen []ranked) {
	keys := make([]uint64, len(chosen))
	for i := range chosen {
		keys[i], chosen[i].rank = keyOf(chosen[i].value), 0
	}
	begin, end := 0, 0 // those of a class
	class := int64(0)
	for i := range r.items {
		x := &r.items[i]
		if i == 0 || x.class != class {
			class = x.class
			begin, _ = slices.BinarySearchFunc(chosen, class, func(y ranked, class int64) int { return int(min(max(y.class-class, -1), 1)) })
			for end = begin; end < len(chosen) && chosen[end].class == class; end++ {
			}
		}
		at, key := begin, keyOf(x.value) // the first that does not go before x
		for n := end - begin; n > 0; {
			half := (n + 1) / 2
			_, less := bits.Sub64(keys[at+half-1], key, 0) // a branch would be foreseen wrongly every other time
			at += half & -int(less)
			n -= half
		}
		for ; at < end && keys[at] == key && r.before(&chosen[at], x); at++ {
		}
		if at < len(chosen) {
			chosen[at].rank++
		}
	}
	for i := 1; i < len(chosen); i++ {
		chosen[i].rank += chosen[i-1].rank
	}
}

// fitting takes candidates in the order of going, each that leaves a need which the largest of the
// others can meet in the slots that are left: it has at least the bytes that those lack. As that
// never becomes less, what was passed over once is so for good.
type fitting struct {
	sequence
	need    int64   // that the chosen leave
	least   int64   // what the next one must have at least
	largest []int64 // of what was not chosen, as many as there are slots left; ascending
	chosen  []ranked
	draw    draws
}

func (f *fitting) done() bool { return len(f.largest) == 0 || f.need <= 0 }

// take looks at items, which go after all that it has seen and before all that it will: as far
// as must be, they are divided about pivots.
func (f *fitting) take(items []ranked) {
	const few = 24
	live := 0
	for i := range items {
		if items[i].bytes >= f.least {
			items[live], items[i] = items[i], items[live]
			live++
		}
	}
	items = items[:live]
	if len(items) <= few {
		f.sort(items)
		for i := range items {
			f.see(&items[i])
		}
		return
	}
	at, _ := f.part(items, f.pivot(items, min(.5, float64(len(f.largest))/float64(live)), &f.draw))
	f.take(items[:at])
	f.see(&items[at])
	if !f.done() {
		f.take(items[at+1:])
	}
}

// see takes the next in order if it is large enough.
func (f *fitting) see(x *ranked) {
	if f.done() || x.bytes < f.least {
		return
	}
	f.chosen = append(f.chosen, *x)
	f.need -= x.bytes
	switch {
	case len(f.largest) == 1:
		f.largest = nil
	case x.bytes < f.largest[1]:
		f.least += f.largest[1] - x.bytes
		f.largest = f.largest[1:]
	default: // it is one of them
		at, _ := slices.BinarySearch(f.largest[1:], x.bytes)
		f.largest = slices.Delete(f.largest, at+1, at+2)
	}
}

// selectLargest moves the n largest to the front, in no order.
func selectLargest(sizes []int64, n int) {
	draw := draws(1)
	for lo, hi := 0, len(sizes); hi-lo > 1 && n > lo && n < hi; {
		pivot := sizes[lo+draw.below(hi-lo)]
		larger, equal := lo, lo // what is larger ends there, what is equal there
		for i := lo; i < hi; i++ {
			switch x := sizes[i]; {
			case x > pivot:
				sizes[i], sizes[equal] = sizes[equal], sizes[i]
				sizes[equal], sizes[larger] = sizes[larger], sizes[equal]
				larger++
				equal++
			case x == pivot:
				sizes[i], sizes[equal] = sizes[equal], sizes[i]
				equal++
			}
		}
		switch {
		case n <= larger:
			hi = larger
		case n < equal:
			return
		default:
			lo = equal
		}
	}
}
