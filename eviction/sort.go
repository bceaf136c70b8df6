package eviction

import (
	"math"
	"math/bits"
	"slices"
)

// sort puts candidates into the order of going. Many of them are first strewn into buckets by
// their values, as letters are by their streets: values are spread well enough for most buckets to
// get a few, and a bucket that gets many is strewn again.
func (s sequence) sort(items []ranked) {
	const many = 24
	if len(items) <= many {
		s.sortFew(items)
		return
	}
	class := items[len(items)/2].class
	least, most := uint64(math.MaxUint64), uint64(0)
	for i := range items {
		if items[i].class != class {
			before, upTo := byClass(items, class)
			s.sort(items[:before])
			s.sort(items[before:upTo])
			s.sort(items[upTo:])
			return
		}
		key := keyOf(items[i].value)
		least, most = min(least, key), max(most, key)
	}
	if least == most {
		s.sortFew(items)
		return
	}
	s.strew(items, least, most)
}

// strew sorts items of one class, whose keys lie between least and most.
func (s sequence) strew(items []ranked, least, most uint64) {
	const atMost = 10 // bits of a bucket's number
	number := min(atMost, bits.Len(uint(len(items))))
	shift := max(0, bits.Len64(most-least)-number)
	var all [2][1 << atMost]int32
	ends, next := all[0][:1<<number], all[1][:1<<number]
	for i := range items {
		ends[(keyOf(items[i].value)-least)>>shift]++
	}
	sum := int32(0)
	for i, n := range ends {
		next[i] = sum
		sum += n
		ends[i] = sum
	}
	begin := int32(0)
	for i, end := range ends {
		for next[i] < end {
			x := &items[next[i]]
			if to := (keyOf(x.value) - least) >> shift; int(to) == i {
				next[i]++
			} else {
				items[next[to]], *x = *x, items[next[to]]
				next[to]++
			}
		}
		s.sort(items[begin:end])
		begin = end
	}
}

// sortFew sorts items by comparing them.
func (s sequence) sortFew(items []ranked) {
	const few = 24
	if len(items) > few {
		slices.SortFunc(items, func(a, b ranked) int {
			if s.before(&a, &b) {
				return -1
			}
			return 1
		})
		return
	}
	for i := 1; i < len(items); i++ {
		x, j := items[i], i
		for ; j > 0 && s.before(&x, &items[j-1]); j-- {
			items[j] = items[j-1]
		}
		items[j] = x
	}
}

// byClass moves those of lower classes to the front, and those of higher ones to the end.
func byClass(items []ranked, class int64) (before, upTo int) {
	upTo = len(items)
	for i := 0; i < upTo; {
		switch c := items[i].class; {
		case c < class:
			items[before], items[i] = items[i], items[before]
			before++
			i++
		case c > class:
			upTo--
			items[upTo], items[i] = items[i], items[upTo]
		default:
			i++
		}
	}
	return before, upTo
}

// keyOf is a number for each value, in their order.
func keyOf(value float64) uint64 {
	key := math.Float64bits(value + 0) // −0 is 0
	if key>>63 != 0 {
		return ^key
	}
	return key | 1<<63
}
