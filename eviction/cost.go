package eviction

import (
	"container/list"

	"github.com/isobar-project/isobar/clock"
)

// Cost is the default policy. An object is worth what it saves: the seconds of its reload ×
// how often it is likely to be used, over its bytes. The likelihood is learned from the
// uses so far, each place (Object.Place) on its own:
//
//   - how likely a use is after so many requests without one, of all objects and of those of
//     about the same size (hazard.go);
//   - how much more or less often this object came back after such waits;
//   - how far ahead to look: about as long as objects stay.
//
// Nothing is set for a kind of workload. What an object did is remembered when it was
// evicted. A worth is looked at again when the object is loaded or used, and when its age
// has grown by about a fifth; so a plan only reads.
type Cost struct {
	worths // of the resident
	known  map[string]*entry
	books  map[string]*book // by place
	ghosts *list.List       // evicted *entry, the latest evicted in front
	bound  int
}

// entry is what is known of an object.
type entry struct {
	object  Object
	worth   *Worth
	book    *book
	class   int
	step    int   // of its age
	used    int64 // at which request of its book
	loaded  int64
	asked   bool // it was ever used
	returns [octaves]float32
	waited  [octaves]float32 // in waits that ended with a use
	ghost   *list.Element    // nil while resident

	older, younger *entry // in the queue of its step
}

var (
	_ Bookkeeper = (*Cost)(nil)
	_ Listener   = (*Cost)(nil)
)

// NewCost makes a policy that remembers that many evicted objects.
func NewCost(remembered int) *Cost {
	return &Cost{
		worths: worths{}, known: make(map[string]*entry), books: make(map[string]*book),
		ghosts: list.New(), bound: max(0, remembered),
	}
}

// Name implements Policy.
func (c *Cost) Name() string { return DefaultName }

// Loaded implements Policy.
func (c *Cost) Loaded(o Object, _ clock.Instant) {
	e := c.known[o.Key]
	if e != nil && e.object.Place != o.Place {
		c.Removed(o.Key)
		e = nil
	}
	if e == nil {
		b := c.books[o.Place]
		if b == nil {
			b = new(book)
			c.books[o.Place] = b
		}
		e = &entry{worth: new(Worth), book: b, class: sizeClass(o.Bytes), used: b.requests, loaded: b.requests}
		b.enter(e, 0)
		c.known[o.Key] = e
	}
	if e.ghost != nil {
		c.ghosts.Remove(e.ghost)
		e.ghost, e.loaded = nil, e.book.requests
	}
	e.object = o
	c.worths[o.Key] = e.worth
	c.appraise(e)
}

// Used implements Policy. Uses of one instant are one request. A use of what is not
// resident counts as well if it is remembered.
func (c *Cost) Used(key string, now clock.Instant) {
	e := c.known[key]
	if e == nil {
		return
	}
	b := e.book
	if now != b.now || b.requests == 0 {
		b.now = now
		b.tick(c.appraise)
	}
	if age := b.requests - e.used; e.asked && age > 0 {
		b.returned(e, age)
	}
	b.leave(e)
	e.used, e.asked, e.class = b.requests, true, sizeClass(e.object.Bytes)
	b.enter(e, 0)
	c.appraise(e)
}

// Evicted implements Policy.
func (c *Cost) Evicted(key string, _ clock.Instant) {
	e := c.known[key]
	if e == nil || e.ghost != nil {
		return
	}
	if stayed := e.book.requests - e.loaded; stayed > 0 {
		e.book.went(stayed)
	}
	c.gone(key)
	e.ghost = c.ghosts.PushFront(e)
	for c.ghosts.Len() > c.bound {
		c.forget(c.ghosts.Back().Value.(*entry))
	}
}

// Heard implements Listener.
func (c *Cost) Heard(o Object, now clock.Instant) {
	switch e := c.known[o.Key]; {
	case e == nil:
		c.Loaded(o, now)
		c.Evicted(o.Key, now)
	case e.ghost != nil:
		e.object = o
		c.ghosts.MoveToFront(e.ghost)
	}
	c.Used(o.Key, now)
}

// Removed implements Policy.
func (c *Cost) Removed(key string) {
	if e := c.known[key]; e != nil {
		c.forget(e)
	}
}

func (c *Cost) forget(e *entry) {
	if e.ghost != nil {
		c.ghosts.Remove(e.ghost)
	}
	e.book.leave(e)
	delete(c.known, e.object.Key)
	c.gone(e.object.Key)
}

// prospect implements foreseer.
func (c *Cost) prospect(key string) (worth float64, known bool) {
	e := c.known[key]
	if e == nil {
		return 0, false
	}
	then := *e
	if age := e.book.requests - e.used; e.asked && age > 0 {
		then.returned(age)
	}
	then.used = e.book.requests
	return then.value(), true
}

// recalled implements foreseer.
func (c *Cost) recalled(key string) (worth float64, known bool) {
	e := c.known[key]
	if e == nil {
		return 0, false
	}
	return e.value(), true
}

// appraise sets the worth of an entry as it is now.
func (c *Cost) appraise(e *entry) {
	if e.ghost == nil {
		e.worth.value = e.value()
	}
}

// value is the worth of an entry, whether it is there or not.
func (e *entry) value() float64 {
	const perBytes = 1 << 30 // only for figures that a person can read
	return e.book.rate(e) * e.object.Cost * perBytes / float64(max(1, e.object.Bytes))
}
