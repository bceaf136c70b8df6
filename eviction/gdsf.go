package eviction

import (
	"container/list"

	"github.com/isobar-project/isobar/clock"
)

// GDSF is GreedyDual-Size-Frequency (Cherkasova, 1998) with reload seconds as
// cost, and with use counts that outlive eviction: an object is worth its uses ×
// seconds ÷ bytes on top of the age at its last use. The age is the worth of the
// most valuable object evicted so far; so what was once popular sinks, relative
// to what is used now, as fast as memory is fought over, and not at all while
// there is room.
type GDSF struct {
	worths // of the resident
	age    float64
	known  map[string]*gdsfEntry
	ghosts *list.List // evicted *gdsfEntry, the latest evicted in front
	bound  int
}

type gdsfEntry struct {
	object Object
	uses   float64
	ghost  *list.Element // nil while resident
}

var _ Bookkeeper = (*GDSF)(nil)

// NewGDSF makes a policy that remembers that many evicted objects.
func NewGDSF(remembered int) *GDSF {
	return &GDSF{
		worths: worths{}, known: make(map[string]*gdsfEntry),
		ghosts: list.New(), bound: max(0, remembered),
	}
}

// Name implements Policy.
func (g *GDSF) Name() string { return "gdsf" }

// Loaded implements Policy.
func (g *GDSF) Loaded(o Object, _ clock.Instant) {
	e := g.known[o.Key]
	if e == nil {
		e = &gdsfEntry{}
		g.known[o.Key] = e
	}
	if e.ghost != nil {
		g.ghosts.Remove(e.ghost)
		e.ghost = nil
	}
	e.object = o
	g.appraise(e)
}

// Used implements Policy. A use of what is not resident counts as well if it is
// remembered.
func (g *GDSF) Used(key string, _ clock.Instant) {
	if e := g.known[key]; e != nil {
		e.uses++
		if e.ghost == nil {
			g.appraise(e)
		}
	}
}

// Evicted implements Policy.
func (g *GDSF) Evicted(key string, _ clock.Instant) {
	e := g.known[key]
	if e == nil || e.ghost != nil {
		return
	}
	g.age = max(g.age, g.worths[key].value)
	g.gone(key)
	e.ghost = g.ghosts.PushFront(e)
	for g.ghosts.Len() > g.bound {
		oldest := g.ghosts.Remove(g.ghosts.Back()).(*gdsfEntry)
		delete(g.known, oldest.object.Key)
	}
}

// Removed implements Policy.
func (g *GDSF) Removed(key string) {
	if e := g.known[key]; e != nil {
		if e.ghost != nil {
			g.ghosts.Remove(e.ghost)
		}
		delete(g.known, key)
		g.gone(key)
	}
}

// appraise sets the worth of an object that is loaded or used now. What was never
// used counts as one use: it was loaded for somebody.
func (g *GDSF) appraise(e *gdsfEntry) {
	const perBytes = 1 << 30 // only for figures that a person can read
	g.set(e.object.Key, g.age+max(1, e.uses)*e.object.Cost*perBytes/float64(max(1, e.object.Bytes)))
}
