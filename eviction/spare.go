package eviction

import "slices"

// floor is what a group that may not lose all has to choose from.
type floor struct {
	left  int64 // bytes that it can spare yet
	bytes int64 // of the items
	items []ranked
}

func (f *floor) add(x *ranked) {
	f.items = append(f.items, *x)
	f.bytes += x.bytes
}

// beginFloors makes the floors of a request's groups.
func (r *ranking) beginFloors() {
	terms := r.request.Terms
	r.floors = slices.Grow(r.floors[:0], len(terms))[:len(terms)]
	for i := range terms {
		f := &r.floors[i]
		f.left, f.bytes, f.items = terms[i].Spare, 0, f.items[:0]
	}
}

// addFloored puts in what the groups with floors can spare: of each the first to go, as far as they fit.
func (r *ranking) addFloored() {
	for i := range r.floors {
		if f := &r.floors[i]; len(f.items) > 0 {
			r.fit(f)
		}
	}
}

// fit puts in the first to go of a group, as far as they fit what it can spare. What
// does not fit is passed over. Most of them are found by selection; should sizes be such
// that each time little is left for many, they are put in order.
func (r *ranking) fit(f *floor) {
	for range 16 {
		if f.bytes <= f.left {
			r.spare(f.items...)
			return
		}
		n, freed := r.divide(f.items, f.bytes, f.left+1, 0)
		last := 0 // in order of the n: all before it fit, and it does not
		for i := range n {
			if r.before(&f.items[last], &f.items[i]) {
				last = i
			}
		}
		f.left -= freed - f.items[last].bytes
		r.spare(f.items[:last]...)
		r.spare(f.items[last+1 : n]...)
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
			r.spare(x)
		}
	}
}

// spare puts in what its group can spare.
func (r *ranking) spare(items ...ranked) {
	for i := range items {
		if r.spared != nil {
			r.spared[items[i].index] = true
		}
		x := r.next()
		*x = items[i]
		r.take(x)
	}
}
