package ledger

import (
	"slices"
	"time"

	"github.com/isobar-project/isobar/heap"
)

// trim is idle memory on its way back because a client asked for that.
type trim struct {
	ref   any
	left  map[heap.SegmentID]bool
	freed int64
}

// trimPause is how long the warm pool is not filled after a trim: else what was given
// back would be made anew with the next command.
const trimPause = 30 * time.Second

// Trimmable is how many bytes Trim could give back now: whole segments that nobody has.
func (d *Device) Trimmable() int64 {
	idle := d.books.pooled - d.books.doomed
	if d.trimming(d.scrubbing) {
		idle -= d.books.aside
	}
	return max(0, idle)
}

// Trim gives at least so many bytes of idle segments back, as far as there are any, and
// leaves the warm pool as it is then for a while. The answer is OutcomeTrimmed when the
// driver has let go of them; Freed says how many it were. What is being cleared in the
// background goes as well, when that has ended.
func (d *Device) Trim(ref any, bytes int64, now Now) {
	d.begin()
	t := &trim{ref: ref, left: map[heap.SegmentID]bool{}}
	atOnce := max(0, d.books.atOnce())
	if bytes > atOnce && d.scrubbing != 0 && !d.trimming(d.scrubbing) {
		t.left[d.scrubbing] = true
	}
	for _, id := range d.heap.Idle(min(bytes, atOnce)) {
		t.left[id] = true
		d.doom(d.segments[id])
	}
	d.warmAfter = max(d.warmAfter, now.Boot.Add(trimPause))
	if len(t.left) == 0 {
		d.trimmed(t)
		return
	}
	d.trims = append(d.trims, t)
	d.changed("", nil)
}

// trimming reports whether a segment is part of a trim.
func (d *Device) trimming(id heap.SegmentID) bool {
	return slices.ContainsFunc(d.trims, func(t *trim) bool { return t.left[id] })
}

// trimmedOff notes that a segment which may have been part of a trim is gone, and whether its
// bytes are back.
func (d *Device) trimmedOff(s *segment, back bool) {
	for i, t := range d.trims {
		if !t.left[s.id] {
			continue
		}
		delete(t.left, s.id)
		if back {
			t.freed += s.bytes
		}
		if len(t.left) == 0 {
			d.trims = append(d.trims[:i], d.trims[i+1:]...)
			d.trimmed(t)
		}
		return
	}
}

func (d *Device) trimmed(t *trim) {
	d.out.Outcomes = append(d.out.Outcomes, Outcome{Kind: OutcomeTrimmed, Ref: t.ref, Freed: t.freed, Confirmed: true})
}
