package ledger

import (
	"time"
)

// tend keeps the warm pool: enough segments of each class, none beyond the bound for long.
func (d *Device) tend(now Now) {
	if d.line.Len() > 0 {
		return // whoever waits comes before anything is kept warm
	}
	// What is over the limit, or far over the pool's bound, is given back at once; what the
	// warm classes do not keep, by and by while the device rests. While it works, the pool
	// keeps what the work has needed: giving back and making anew costs a hundred times a grant.
	d.giveBack(d.over() - d.cfg.PoolBytes)
	d.giveBack(-d.books.free() - d.books.doomed - d.books.aside)
	if now.Boot >= d.warmAfter {
		d.warm()
	}
	d.settleLater(now)
	d.waneLater(now)
}

// warmPause is how long the pool is not filled after the driver had no memory for it.
const warmPause = time.Second

// over is by how much the pool exceeds its bound.
func (d *Device) over() int64 {
	return d.books.atOnce() - d.cfg.PoolBytes
}

// giveBack destroys idle segments of at least so many bytes.
func (d *Device) giveBack(bytes int64) {
	for _, id := range d.heap.Idle(bytes) {
		d.doom(d.segments[id])
	}
}

// keepable are the warm classes as far as the pool's bound has room for them, the first ones
// first. What they keep is never more than the bound: so what makes segments for them and what
// gives idle ones back have the same floor, and never undo each other's work.
func keepable(classes []WarmClass, bound int64) (kept []WarmClass) {
	for _, w := range classes {
		if w.Keep = int(min(int64(w.Keep), bound/w.Bytes)); w.Keep > 0 {
			bound -= int64(w.Keep) * w.Bytes
			kept = append(kept, w)
		}
	}
	return kept
}

// warm has segments made for the pool while there is room for them. Memory that is not
// cleared yet counts as well: its last owner can have it at once, and it is cleared when
// the device is quiet. Counting clean segments alone would make new ones for each that is
// given back, and destroy as many.
func (d *Device) warm() {
	room := min(d.cfg.PoolBytes-(d.books.pooled-d.books.doomed)-d.books.warming, d.books.free())
	for _, w := range d.kept {
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

// settleLater has what is dirty cleared when the device is quiet.
func (d *Device) settleLater(now Now) {
	if _, dirty := d.heap.Dirty(); dirty && !d.settling {
		d.settling = true
		d.at(timer{at: max(now.Boot, d.granted.Add(quiet)), kind: timerSettle})
	}
}

// settle clears the segment that has been idle for longest, or waits for more quiet.
func (d *Device) settle(now Now) {
	if now.Boot.Sub(d.granted) < quiet {
		d.at(timer{at: d.granted.Add(quiet), kind: timerSettle})
		return
	}
	id, dirty := d.heap.Dirty()
	if !dirty {
		d.settling = false
		return
	}
	d.heap.SetAside(id)
	d.scrubbing = id
	s := d.segments[id]
	d.books.aside += s.bytes
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobScrub, Ranges: []Range{{Segment: id, Bytes: s.bytes, Length: s.bytes}}})
}
