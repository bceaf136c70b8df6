package ledger

import (
	"time"
)

// tend keeps the warm pool: enough segments of each class, none beyond the bound for long.
func (d *Device) tend(now Now) {
	if len(d.queue) > 0 {
		return // whoever waits comes before anything is kept warm
	}
	// What is over the limit, or far over the pool's bound, is given back at once; what the
	// classes do not keep, by and by while the device rests. While it works, the pool keeps
	// what the work has needed: giving back and making anew costs a hundred times a grant.
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
	return d.books.pooled - d.books.doomed - d.books.aside - d.cfg.PoolBytes
}

// giveBack destroys idle segments of at least so many bytes.
func (d *Device) giveBack(bytes int64) {
	for _, id := range d.heap.Idle(bytes) {
		d.doom(d.segments[id])
	}
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
	s := d.segments[id]
	d.books.aside += s.bytes
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobScrub, Ranges: []Range{{Segment: id, Bytes: s.bytes, Length: s.bytes}}})
}

const (
	// poolHalfLife is in what time a resting device gives back half of what its pool has
	// beyond the warm classes: a pause of a second costs hardly anything, after a minute
	// nearly all is given back.
	poolHalfLife = 10 * time.Second
	// waneStep is how often it looks.
	waneStep = poolHalfLife / 8
)

// kept is how many idle segments of a size the warm classes keep.
func (d *Device) kept(bytes int64) int {
	for _, w := range d.cfg.Warm {
		if w.Bytes == bytes {
			return w.Keep
		}
	}
	return 0
}

// waneLater has the pool looked at again while it has more than it keeps.
func (d *Device) waneLater(now Now) {
	if !d.waning && (d.heap.Surplus(d.kept) > 0 || d.over() > 0) {
		d.waning = true
		d.at(timer{at: max(now.Boot, d.granted.Add(quiet)), kind: timerWane})
	}
}

// shrink gives back what a rest of the device is long enough for. Where the warm classes
// themselves exceed the pool's bound, as on a small device, what is over goes at once.
func (d *Device) shrink(now Now) {
	d.waning = false
	rest := d.granted.Add(quiet)
	if now.Boot < rest {
		d.waneLater(now)
		return
	}
	if d.waned < rest {
		d.wane.Rest()
		d.waned = rest
	}
	surplus := d.heap.Surplus(d.kept)
	for _, id := range d.heap.Waning(d.wane.Due(surplus, now.Boot.Sub(d.waned)), d.kept) {
		d.wane.Gone(d.segments[id].bytes)
		d.doom(d.segments[id])
	}
	d.waned = now.Boot
	if surplus == 0 {
		d.giveBack(d.over())
	} else {
		d.waning = true
		d.at(timer{at: now.Boot.Add(waneStep), kind: timerWane})
	}
}
