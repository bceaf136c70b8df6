package eviction

import "math"

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
// chosen itself where there is none, or where classes forbid to compare. There are at most
// among/2 of them. Those that come next are taken as far as they are of one class with the chosen.
func cheapestSet(chosen, next []ranked, need int64) []ranked {
	if len(chosen) == 0 {
		return chosen
	}
	last := &chosen[len(chosen)-1]
	pool := make([]ranked, 0, among)
	pool = append(pool, chosen...)
	for i := 0; i < len(next) && next[i].class == last.class; i++ {
		pool = append(pool, next[i])
	}
	for i := range pool {
		if pool[i].class != chosen[0].class || math.IsInf(pool[i].value, 0) {
			return chosen
		}
	}
	s := search{pool: pool, need: need, price: beyond * last.value, cost: math.Inf(1)}
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
	s.try(i+1, set|1<<i, bytes+x.bytes, worth+x.value*float64(x.bytes))
	s.try(i+1, set, bytes, worth)
}
