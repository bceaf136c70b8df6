package eviction

import (
	"math"
	"slices"
)

// perByte is implemented by policies whose values are worth per byte: of those a set is
// worth the sum of value × bytes, and sets can be compared.
type perByte interface{ worthPerByte() }

func (*Cost) worthPerByte() {}

const (
	// among is of how many, the first to go, the cheapest set is looked for: 2¹² sets.
	among = 12
	// beyond is what a byte that goes beyond the need counts for: part of what the last byte
	// that is needed is worth, since the next load will need it, though perhaps not now.
	beyond = .9
)

// cheapestSet looks for a set that is worth less than the first to go: where objects
// are as large as the need, one of the right size beats two that come first. It returns
// chosen itself where there is none, where classes forbid to compare, or where there are
// too many to try.
func (r *ranking) cheapestSet(chosen []ranked, need int64) []ranked {
	if len(chosen) == 0 || len(chosen) > among/2 {
		return chosen
	}
	pool := r.next(chosen, among)
	for i := range pool {
		if pool[i].class != chosen[0].class || math.IsInf(pool[i].value, 0) {
			return chosen
		}
	}
	s := search{r: r, pool: pool, need: need, price: beyond * chosen[len(chosen)-1].value, cost: math.Inf(1)}
	s.try(0, 0, 0, 0)
	out := make([]ranked, 0, among)
	for i, x := range pool {
		if s.best>>i&1 == 1 {
			out = append(out, x)
		}
	}
	return out
}

// search is the search for the cheapest set.
type search struct {
	r     *ranking
	pool  []ranked
	need  int64
	price float64 // of a byte beyond the need
	best  uint
	cost  float64 // of the best
}

// try decides about the objects of the pool from i on, where set is taken of those before:
// so many bytes, worth so much.
func (s *search) try(i int, set uint, bytes int64, worth float64) {
	if bytes >= s.need {
		if cost := worth - s.price*float64(bytes-s.need); cost < s.cost {
			s.best, s.cost = set, cost
		}
	}
	if i == len(s.pool) || bytes >= s.need && s.pool[i].value >= s.price {
		return // nothing that follows makes it cheaper: the pool is in order of values
	}
	x := &s.pool[i]
	n := s.r.bytes(*x)
	s.try(i+1, set|1<<i, bytes+n, worth+x.value*float64(n))
	s.try(i+1, set, bytes, worth)
}

// next returns the first n to go, of which chosen, in order and ranked, are known. Of
// another class than theirs there are none.
func (r *ranking) next(chosen []ranked, n int) []ranked {
	last := &chosen[len(chosen)-1]
	more := make([]ranked, 0, n) // in order
	for i := range r.items {
		x := &r.items[i]
		full := len(more) == n-len(chosen)
		if full && r.before(&more[len(more)-1], x) || x.class != last.class || !r.before(last, x) {
			continue
		}
		if full {
			more = more[:len(more)-1]
		}
		at := len(more)
		for at > 0 && r.before(x, &more[at-1]) {
			at--
		}
		more = slices.Insert(more, at, *x)
	}
	pool := make([]ranked, 0, n)
	pool = append(append(pool, chosen...), more...)
	for i := range pool {
		pool[i].rank = int32(i + 1)
	}
	return pool
}
