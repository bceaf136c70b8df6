package ledger

import (
	"time"
)

// tend keeps the warm pool: enough clean segments of each class, none beyond the bound.
func (d *Device) tend(now Now) {
	if len(d.queue) > 0 {
		return // whoever waits comes before anything is kept warm
	}
	// What is over the bound of the pool, or over the limit, is given back.
	over := max(d.books.pooled-d.books.doomed-d.books.aside-d.cfg.PoolBytes, 0)
	for _, id := range d.heap.Idle(over) {
		if over -= d.segments[id].bytes; over < 0 {
			break // keep the pool full rather than cut below its bound
		}
		d.doom(d.segments[id])
	}
	for _, id := range d.heap.Idle(-d.books.free() - d.books.doomed - d.books.aside) {
		d.doom(d.segments[id])
	}
	d.warm()
	d.scrubLater(now)
}

// warm has segments made for the pool while there is room for them. Memory that is not
// cleared yet counts as well: its last owner can have it at once, and it is cleared when
// the device is quiet. Counting clean segments alone would make new ones for each that is
// given back, and destroy as many.
func (d *Device) warm() {
	room := min(d.cfg.PoolBytes-(d.books.pooled-d.books.doomed)-d.books.warming, d.books.free())
	for _, w := range d.cfg.Warm {
		for n := w.Keep - d.heap.IdleOf(w.Bytes) - d.warming[w.Bytes]; n > 0; n-- {
			if room -= w.Bytes; room < 0 {
				return
			}
			s := d.newSegment(w.Bytes, false)
			d.warming[w.Bytes]++
			d.books.warming += w.Bytes
			d.out.Jobs = append(d.out.Jobs, Job{Kind: JobWarm, Ranges: []Range{{Segment: s.id, Bytes: s.bytes, Length: s.bytes}}})
		}
	}
}

// quiet is how long a device must have granted nothing before pooled memory is cleared
// in the background: the next request of the same owner needs no clearing at all.
const quiet = 100 * time.Millisecond

// scrubLater has dirty pooled memory cleared when the device is quiet.
func (d *Device) scrubLater(now Now) {
	if _, dirty := d.heap.Dirty(); dirty && !d.scrubbing {
		d.scrubbing = true
		d.at(timer{at: now.Boot.Add(quiet), kind: timerScrub})
	}
}

// scrub clears the segment that has been idle for longest, or waits for more quiet.
func (d *Device) scrub(now Now) {
	id, dirty := d.heap.Dirty()
	switch {
	case !dirty:
		d.scrubbing = false
	case now.Boot.Sub(d.granted) < quiet:
		d.at(timer{at: d.granted.Add(quiet), kind: timerScrub})
	default:
		d.heap.SetAside(id)
		s := d.segments[id]
		d.books.aside += s.bytes
		d.out.Jobs = append(d.out.Jobs, Job{Kind: JobScrub, Ranges: []Range{{Segment: id, Bytes: s.bytes, Length: s.bytes}}})
	}
}
