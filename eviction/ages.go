package eviction

import "math/bits"

// Ages are counted in requests, not in time: an idle night makes nothing older. They fall
// into octaves (1, 2–3, 4–7, …), in which hazards are learned, and these into steps of a
// quarter, at which an object's worth is looked at again.
const (
	octaves = 20 // the last one has no end
	quarter = 4
	steps   = octaves * quarter
)

// octave is that of an age of at least 1.
func octave(age int64) int { return min(octaves, bits.Len64(uint64(age))) - 1 }

// stepOf is the step of an age of at least 1.
func stepOf(age int64) int {
	o := octave(age)
	begin := int64(1) << o
	return o*quarter + int(min(quarter-1, (age-begin)*quarter/begin))
}

// stepEnd is the first age after a step.
func stepEnd(step int) int64 {
	begin := int64(1) << (step / quarter)
	return begin + (begin*int64(step%quarter+1)+quarter-1)/quarter
}

// ageQueue holds the entries of one step, the oldest in front.
type ageQueue struct{ head, tail *entry }

func (q *ageQueue) push(e *entry) {
	e.older, e.younger = q.tail, nil
	if q.tail == nil {
		q.head = e
	} else {
		q.tail.younger = e
	}
	q.tail = e
}

func (q *ageQueue) remove(e *entry) {
	if e.older == nil {
		q.head = e.younger
	} else {
		e.older.younger = e.younger
	}
	if e.younger == nil {
		q.tail = e.older
	} else {
		e.younger.older = e.older
	}
	e.older, e.younger = nil, nil
}
