package admission

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"sort"
)

// Weights are kept within these bounds; 0 is 1.
const (
	MinWeight = 0.001
	MaxWeight = 1000
)

// Line is everybody who waits for one device.
type Line[W any] struct {
	weight   func(tenant string) float64
	flows    map[string]*flow[W]
	returned []*Spot[W] // by age
	order    []*Spot[W] // all others, as far as it is not stale
	stale    bool
	now      float64 // virtual time: the tag of the one that was served last
	n        int
}

// flow is one tenant's part of a line.
type flow[W any] struct {
	lane   Lane[W]
	weight float64
	finish float64 // its account: virtual time up to which it was served
	trail  int64   // bytes of those that passed from the end of the lane
}

// NewLine makes an empty line. weight says what a tenant counts; it is asked when the
// tenant begins to wait, and again after Reweigh.
func NewLine[W any](weight func(tenant string) float64) *Line[W] {
	return &Line[W]{weight: weight, flows: map[string]*flow[W]{}}
}

// Len is how many wait.
func (l *Line[W]) Len() int { return l.n }

// Head is the next to be served, nil where nobody waits.
func (l *Line[W]) Head() *Spot[W] {
	if len(l.returned) > 0 {
		return l.returned[0]
	}
	l.refresh()
	if len(l.order) > 0 {
		return l.order[0]
	}
	return nil
}

// All calls for everybody with the number of those before. The line must not change
// meanwhile.
func (l *Line[W]) All() iter.Seq2[int, *Spot[W]] {
	return func(yield func(int, *Spot[W]) bool) {
		for i, s := range l.returned {
			if !yield(i, s) {
				return
			}
		}
		l.refresh()
		for i, s := range l.order {
			if !yield(len(l.returned)+i, s) {
				return
			}
		}
	}
}

// List is everybody, in order: a copy, which the line may outlive.
func (l *Line[W]) List() []*Spot[W] {
	l.refresh()
	return append(slices.Clone(l.returned), l.order...)
}

// Where is how many would be before one who came now.
func (l *Line[W]) Where(tenant string, priority int, age uint64) int {
	if l.n == 0 {
		return 0
	}
	l.refresh()
	return len(l.returned) + l.search(l.turn(tenant, priority, age))
}

// Ahead calls for those who would be before one who came now. The line must not change
// meanwhile.
func (l *Line[W]) Ahead(tenant string, priority int, age uint64) iter.Seq[*Spot[W]] {
	return func(yield func(*Spot[W]) bool) {
		n := l.Where(tenant, priority, age)
		for i, s := range l.All() {
			if i == n || !yield(s) {
				return
			}
		}
	}
}

// turn is when the turn of one who came now would come.
func (l *Line[W]) turn(tenant string, priority int, age uint64) (tag float64, key uint64) {
	f := l.flows[tenant]
	if f == nil {
		return l.now, age
	}
	return f.tagAt(f.lane.Where(priority, age), l.now), f.key(age)
}

// search is how many of the order have an earlier turn.
func (l *Line[W]) search(tag float64, key uint64) int {
	return sort.Search(len(l.order), func(i int) bool { return !earlier(l.order[i].tag, l.order[i].key, tag, key) })
}

func earlier(tag float64, key uint64, than float64, thanKey uint64) bool {
	return tag < than || tag == than && key < thanKey
}

// key decides for a tenant whose turn comes at the same time as another's: the lower goes
// first. It is the age of who has waited for longest, of those who wait and of those who were
// served while they did: so the order of the others stays when that one is served, and who
// leaves unserved has no part in it.
func (f *flow[W]) key(newcomer uint64) uint64 {
	key := newcomer
	for _, s := range f.lane.spots {
		key = min(key, s.eldest)
	}
	return key
}

// Add gives a spot its place and returns how many are before it.
func (l *Line[W]) Add(s *Spot[W]) int {
	f := l.flows[s.Tenant]
	if f == nil {
		f = &flow[W]{weight: l.weigh(s.Tenant)}
		l.flows[s.Tenant] = f
	}
	s.flow, s.since, s.eldest, s.lead, s.returned = f, l.now, s.Age, 0, false
	l.n++
	if f.lane.Add(s) == f.lane.Len()-1 {
		s.lead, f.trail = f.trail, 0
	}
	if f.retag(s) || l.stale {
		l.stale = true
		l.refresh()
		return len(l.returned) + l.search(s.tag, s.key)
	}
	at := l.search(s.tag, s.key)
	l.order = slices.Insert(l.order, at, s)
	return len(l.returned) + at
}

// Return puts somebody who was served before everybody else: what he was given could not
// be had after all, or was not enough. He is not served at his tenant's cost again.
func (l *Line[W]) Return(s *Spot[W]) int {
	i := sort.Search(len(l.returned), func(i int) bool { return l.returned[i].Age > s.Age })
	l.returned = slices.Insert(l.returned, i, s)
	s.flow, s.returned = nil, true
	l.n++
	return i
}

// Remove takes out who will not be served, as if he had never come.
func (l *Line[W]) Remove(s *Spot[W]) {
	if s.returned {
		l.returned = slices.DeleteFunc(l.returned, func(x *Spot[W]) bool { return x == s })
		s.returned = false
		l.left()
		return
	}
	f := s.flow
	f.passOn(s, f.lane.Index(s), s.lead)
	f.lane.Remove(s)
	l.leave(s, f)
}

// Serve takes out who is served, in its turn, at its tenant's cost.
func (l *Line[W]) Serve(s *Spot[W]) {
	if s.returned {
		l.Remove(s)
		return
	}
	f := s.flow
	l.now = max(l.now, s.tag)
	f.finish = f.after(s)
	l.served(s, f)
}

// served takes out one whose tenant has been charged.
func (l *Line[W]) served(s *Spot[W], f *flow[W]) {
	f.lane.serve(s)
	for _, other := range f.lane.spots {
		other.eldest = min(other.eldest, s.eldest)
	}
	l.leave(s, f)
}

// Pass takes out who is served before its turn. Its tenant is charged at the place that
// it leaves, so that everybody else keeps his.
func (l *Line[W]) Pass(s *Spot[W]) {
	if s.returned {
		l.Remove(s)
		return
	}
	f := s.flow
	if i := f.lane.Index(s); i == 0 {
		f.finish = f.after(s)
	} else {
		f.passOn(s, i, s.lead+s.Bytes)
	}
	l.served(s, f)
}

// Resize corrects what somebody who waits counts for. He keeps his place in his lane.
func (l *Line[W]) Resize(s *Spot[W], bytes int64) {
	s.Bytes = bytes
	if s.flow != nil && s.flow.retag(nil) {
		l.stale = true
	}
}

// Charge corrects what a tenant was served: it took so many bytes more, or less, than it was
// served for.
func (l *Line[W]) Charge(tenant string, bytes int64) {
	if l.n == 0 {
		return
	}
	f := l.flows[tenant]
	switch {
	case f == nil && bytes <= 0:
		return
	case f == nil:
		f = &flow[W]{weight: l.weigh(tenant), finish: l.now}
		l.flows[tenant] = f
	}
	f.finish += float64(bytes) / f.weight
	if f.retag(nil) {
		l.stale = true
	}
}

// leave ends the stay of a spot that its lane has let go.
func (l *Line[W]) leave(s *Spot[W], f *flow[W]) {
	s.flow = nil
	if f.lane.Len() == 0 && f.trail > 0 {
		f.finish = advance(f.finish, f.trail, f.weight)
		f.trail = 0
	}
	if at := slices.Index(l.order, s); at >= 0 && !l.stale {
		l.order = slices.Delete(l.order, at, at+1)
	} else {
		l.stale = true
	}
	if f.retag(nil) {
		l.stale = true
	}
	if f.lane.Len() == 0 && f.finish <= l.now {
		delete(l.flows, s.Tenant)
	}
	l.left()
}

// left ends the accounts where nobody waits any more, and those that say nothing.
func (l *Line[W]) left() {
	if l.n--; l.n == 0 {
		clear(l.flows)
		l.now, l.order, l.stale = 0, l.order[:0], false
		return
	}
	const many = 64
	if len(l.flows) < many+2*l.n {
		return
	}
	for t, f := range l.flows {
		if f.lane.Len() == 0 && f.finish <= l.now {
			delete(l.flows, t)
		}
	}
}

// Reweigh asks for everybody's weight anew.
func (l *Line[W]) Reweigh() {
	for t, f := range l.flows {
		f.weight = l.weigh(t)
		f.retag(nil)
	}
	l.stale = true
}

func (l *Line[W]) weigh(tenant string) float64 {
	w := l.weight(tenant)
	if !(w > 0) { // NaN too
		return 1
	}
	return min(max(w, MinWeight), MaxWeight)
}

// refresh builds the order where it is stale.
func (l *Line[W]) refresh() {
	if !l.stale {
		return
	}
	clear(l.order)
	l.order, l.stale = l.order[:0], false
	for _, f := range l.flows {
		l.order = append(l.order, f.lane.spots...)
	}
	slices.SortFunc(l.order, func(a, b *Spot[W]) int {
		if earlier(a.tag, a.key, b.tag, b.key) {
			return -1
		}
		return 1
	})
}

// start is the virtual time at which the first of a lane has its turn. Who came first
// says since when the tenant waits.
func (f *flow[W]) start() float64 {
	since := math.Inf(1)
	for _, s := range f.lane.spots {
		since = min(since, s.since)
	}
	return max(f.finish, since)
}

// retag computes the turns of a lane, and reports whether that of another than the newcomer
// has changed.
func (f *flow[W]) retag(newcomer *Spot[W]) (changed bool) {
	if f.lane.Len() == 0 {
		return false
	}
	at, key := f.start(), f.key(math.MaxUint64)
	for _, s := range f.lane.spots {
		tag := at
		if s.lead > 0 {
			tag = advance(at, s.lead, f.weight)
		}
		changed = changed || s != newcomer && (tag != s.tag || key != s.key)
		s.tag, s.key = tag, key
		at = advance(tag, s.Bytes, f.weight)
	}
	return changed
}

// tagAt is the turn of one who would have i of the lane before it.
func (f *flow[W]) tagAt(i int, now float64) float64 {
	var tag float64
	switch {
	case f.lane.Len() == 0:
		tag = max(f.finish, now)
	case i == 0:
		tag = f.start()
	default:
		tag = f.after(f.lane.spots[i-1])
	}
	if i == f.lane.Len() && f.trail > 0 {
		tag = advance(tag, f.trail, f.weight)
	}
	return tag
}

// after is the account when a spot has been served.
func (f *flow[W]) after(s *Spot[W]) float64 { return advance(s.tag, s.Bytes, f.weight) }

// passOn leaves bytes to be counted before whoever comes after the one at i.
func (f *flow[W]) passOn(s *Spot[W], i int, bytes int64) {
	if i+1 < f.lane.Len() {
		f.lane.spots[i+1].lead += bytes
	} else {
		f.trail += bytes
	}
	s.lead = 0
}

// advance is an account after so many bytes more; it always moves, so that a lane's turns
// are in its order.
func advance(from float64, bytes int64, weight float64) float64 {
	to := from + float64(bytes)/weight
	if to <= from {
		to = math.Nextafter(from, math.Inf(1))
	}
	return to
}

// Check recomputes what is kept twice. It is for tests.
func (l *Line[W]) Check() error {
	l.refresh()
	n := len(l.returned)
	for t, f := range l.flows {
		n += f.lane.Len()
		if f.retag(nil) {
			return fmt.Errorf("the turns of tenant %q were not up to date", t)
		}
		for i, s := range f.lane.spots {
			younger := s.served
			for _, x := range f.lane.spots[:i] {
				if x.Age > s.Age {
					younger++
				}
			}
			switch {
			case s.flow != f || s.returned || s.Tenant != t:
				return fmt.Errorf("request %d stands in the lane of %q and says otherwise", s.Age, t)
			case s.overtaken != younger || younger > Overtakings:
				return fmt.Errorf("request %d was overtaken by %d, it says %d, at most %d may be", s.Age, younger, s.overtaken, Overtakings)
			}
		}
	}
	if n != l.n || len(l.order) != n-len(l.returned) {
		return fmt.Errorf("%d wait, %d are counted, %d in order", n, l.n, len(l.order))
	}
	for i := range l.order {
		if i > 0 && !earlier(l.order[i-1].tag, l.order[i-1].key, l.order[i].tag, l.order[i].key) {
			return fmt.Errorf("request %d stands before request %d, whose turn is earlier", l.order[i-1].Age, l.order[i].Age)
		}
	}
	return nil
}
