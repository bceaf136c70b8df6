package eviction

// floor is what a group that may not lose all has to choose from.
type floor struct {
	left  int64 // bytes that it can spare yet
	bytes int64 // of the items
	count int
	items []ranked
}

// keepFloors drops from the choice what a group may not lose: of each group that spare
// names, the first to go stay in it as far as they fit the bytes that it can spare. It
// returns those that are dropped, in the order of the candidates.
func (r *ranking) keepFloors(spare map[string]int64) (kept []int32) {
	if len(spare) == 0 {
		return nil
	}
	floors := make(map[string]*floor, len(spare))
	for group, bytes := range spare {
		floors[group] = &floor{left: bytes}
	}
	var (
		f  *floor
		of = "\x00" // nobody; the floor is that of the last one looked at
	)
	under := func(x *ranked) *floor {
		if group := r.of[x.index].Group; group != of {
			f, of = floors[group], group
		}
		return f
	}
	for i := range r.items {
		if f := under(&r.items[i]); f != nil {
			f.count++
			f.bytes += r.items[i].bytes
		}
	}
	free := r.items[:0]
	for _, x := range r.items {
		f := under(&x)
		if f == nil || f.bytes <= f.left {
			free = append(free, x)
			continue
		}
		if f.items == nil {
			f.items = make([]ranked, 0, f.count)
		}
		f.items = append(f.items, x)
	}
	stays := make([]bool, len(r.of))
	for _, f := range floors {
		if f.items == nil {
			continue // it can spare all
		}
		for _, x := range f.items {
			stays[x.index] = true
		}
		begin := len(free)
		free = r.fit(free, f)
		for _, x := range free[begin:] {
			stays[x.index] = false
		}
	}
	for i, stay := range stays {
		if stay {
			kept = append(kept, int32(i))
			r.bytes -= r.of[i].Bytes
		}
	}
	r.items, r.count = free, len(free)
	return kept
}

// fit appends to free the first to go of a group, as far as they fit what it can spare. What
// does not fit is passed over. Most of them are found by selection; should sizes be such
// that each time little is left for many, they are put in order.
func (r *ranking) fit(free []ranked, f *floor) []ranked {
	for range 16 {
		if f.bytes <= f.left {
			return append(free, f.items...)
		}
		group := ranking{of: r.of, items: f.items, bytes: f.bytes}
		n, freed := group.divide(f.left+1, 0)
		last := 0 // in order of the n: all before it fit, and it does not
		for i := range n {
			if r.before(&f.items[last], &f.items[i]) {
				last = i
			}
		}
		f.left -= freed - f.items[last].bytes
		free = append(append(free, f.items[:last]...), f.items[last+1:n]...)
		rest := f.items[:0]
		f.bytes = 0
		for _, x := range f.items[n:] {
			if x.bytes <= f.left {
				rest = append(rest, x)
				f.bytes += x.bytes
			}
		}
		f.items = rest
	}
	r.sort(f.items)
	for _, x := range f.items {
		if x.bytes <= f.left {
			f.left -= x.bytes
			free = append(free, x)
		}
	}
	return free
}
