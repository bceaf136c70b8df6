package eviction

import (
	"math"
	"math/bits"

	"github.com/isobar-project/isobar/clock"
)

// hazards is how likely it is that what was unused for an age is used by the next
// request: returns over waiting, per octave of ages.
type hazards struct {
	returns [octaves]float64 // uses at such an age
	waited  [octaves]float64 // requests that objects saw at such an age
	waiting [octaves]int     // objects of that age now
}

// Priors, in events: how much must be seen before it counts more than what is believed
// without it. The scores on traces hardly depend on them.
const (
	priorOfAll    = 1.  // that the longer a wait has been the longer it will be
	priorOfClass  = 1.  // that objects of one size behave as all do
	priorOfObject = 0.2 // that an object behaves as those of its size: objects differ a lot
)

// sizeClass groups objects by size, by factors of four: large ones are bases, small ones
// what is put on top of them, and they don't come back in the same way.
func sizeClass(bytes int64) int { return bits.Len64(uint64(max(0, bytes))) / 2 }

const sizeClasses = 33

// book is what is learned of one place: objects there compete for the same bytes.
type book struct {
	requests int64         // so far: the time by which ages are counted
	now      clock.Instant // of the last one
	all      hazards
	classes  [sizeClasses]*hazards // nil while there was none of that size
	queues   [steps]ageQueue
	// stays is the sum of how long evicted objects had been there, in requests, and of how
	// many they were; both fade.
	stays, stayed float64
}

// class returns the hazards of a size.
func (b *book) class(size int) *hazards {
	if b.classes[size] == nil {
		b.classes[size] = new(hazards)
	}
	return b.classes[size]
}

// tick counts one request: everything grows older by it. Entries that enter another step
// are handed to changed.
func (b *book) tick(changed func(*entry)) {
	b.requests++
	for i := range steps - 1 {
		q := &b.queues[i]
		if q.head == nil {
			continue
		}
		for e, end := q.head, stepEnd(i); e != nil && b.requests-e.used >= end; e = q.head {
			b.leave(e)
			b.enter(e, stepOf(b.requests-e.used))
			changed(e)
		}
	}
	b.all.wait()
	for _, c := range b.classes {
		if c != nil {
			c.wait()
		}
	}
}

func (h *hazards) wait() {
	for o, n := range h.waiting {
		h.waited[o] += float64(n)
	}
}

// enter puts an entry into a step.
func (b *book) enter(e *entry, step int) {
	e.step = step
	b.queues[step].push(e)
	b.all.waiting[step/quarter]++
	b.class(e.class).waiting[step/quarter]++
}

// leave takes an entry out of its step.
func (b *book) leave(e *entry) {
	b.queues[e.step].remove(e)
	b.all.waiting[e.step/quarter]--
	b.class(e.class).waiting[e.step/quarter]--
}

// returned notes that an entry was used at an age of at least 1.
func (b *book) returned(e *entry, age int64) {
	o := octave(age)
	b.all.returns[o]++
	b.class(e.class).returns[o]++
	e.returned(age)
}

// returned notes a use at an age of at least 1 in the entry's own history.
func (e *entry) returned(age int64) {
	o := octave(age)
	e.returns[o]++
	for i := range o {
		e.waited[i] += float32(int64(1) << i)
	}
	e.waited[o] += float32(age - int64(1)<<o + 1)
}

// went notes how long an object was there when it was evicted.
func (b *book) went(requests int64) {
	const fade = .99
	b.stays = b.stays*fade + float64(requests)
	b.stayed = b.stayed*fade + 1
}

// horizon is how far ahead a use still counts: twice as long as objects stay. What is kept
// without being used is then likely to have gone anyway.
func (b *book) horizon() float64 {
	if b.stayed == 0 {
		return float64(max(1, b.requests))
	}
	return 2 * b.stays / b.stayed
}

// hazard is the chance that the next request uses what is of a size and an octave of ages:
// of that size if there was enough, else of all, else as if the chance fell with the age.
func (b *book) hazard(class *hazards, o int) float64 {
	lifetime := 2 * math.Sqrt2 * float64(int64(1)<<o) // the age in the octave's middle, twice
	all := (b.all.returns[o] + priorOfAll) / (b.all.waited[o] + priorOfAll*lifetime)
	return all * (class.returns[o] + priorOfClass) / (class.waited[o]*all + priorOfClass)
}

// rate is how often an entry will be used per request on which it is kept, from now to
// its next use or to the horizon, whichever is first.
//
// The object's own history corrects the hazards of its size, octave by octave: by how often
// it came back at such an age or a greater one, over how often that was to be expected.
// Shorter waits say nothing of longer ones: within a burst of work everything comes back
// at once, and what matters is whether the next burst comes.
func (b *book) rate(e *entry) float64 {
	age := b.requests - e.used + 1
	now := octave(age)
	class := b.class(e.class)
	const below = 2 // octaves below that still count
	var hazard, seen, expected [octaves + 1]float64
	for o := octaves - 1; o >= max(0, now-below); o-- {
		hazard[o] = b.hazard(class, o)
		waited := float64(e.waited[o])
		switch {
		case o < now:
			waited += float64(int64(1) << o)
		case o == now:
			waited += float64(age - int64(1)<<o + 1)
		}
		seen[o] = seen[o+1] + float64(e.returns[o])
		expected[o] = expected[o+1] + waited*hazard[o]
	}
	var (
		alone = 1. // the chance that it is still unused
		kept  = 0. // requests for which it is kept, by expectation
		left  = b.horizon()
		from  = age
	)
	for o := now; o < octaves && left > 0; o++ {
		length := left
		if o < octaves-1 {
			length = min(left, float64(int64(2)<<o-from))
		}
		from, left = int64(2)<<o, left-length
		since := max(0, o-below)
		h := hazard[o] * (seen[since] + priorOfObject) / (expected[since] + priorOfObject)
		unused := alone * math.Exp(-h*length)
		kept += (alone - unused) / h
		alone = unused
	}
	return (1 - alone) / kept
}
