package ledger

import (
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
)

const (
	// waneSteps is into how many steps a half-life is cut: so often the pool is looked at
	// while it has more than the warm classes keep. Once it has not, nothing wakes the device.
	waneSteps = 8
	// waneBatch is the most segments that one step gives back; what else is due stays due.
	waneBatch = 128
)

// waning is how far the pool of a device has shrunk, along a curve, since the device rests.
// It rests when nothing was granted for as long as quiet says, and until the next grant.
type waning struct {
	heap.Wane
	upto  clock.Instant // what was due until then has been counted
	armed bool          // a timer is set
}

// keep is how many idle segments of a size the warm classes keep.
func (d *Device) keep(bytes int64) int {
	for i := range d.kept {
		if d.kept[i].Bytes == bytes {
			return d.kept[i].Keep
		}
	}
	return 0
}

// waneLater has the pool looked at again while it has more than it keeps.
func (d *Device) waneLater(now Now) {
	if d.waning.armed || d.heap.Surplus(d.keep) == 0 {
		return
	}
	d.waning.armed = true
	d.waning.upto = max(d.waning.upto, now.Boot)
	d.at(timer{at: max(now.Boot, d.granted.Add(quiet)).Add(d.waning.step()), kind: timerWane})
}

func (w *waning) step() time.Duration { return max(time.Millisecond, w.HalfLife/waneSteps) }

// shrink gives back what is due after the rest so far.
func (d *Device) shrink(now Now) {
	w := &d.waning
	w.armed = false
	if rested := now.Boot.Sub(max(w.upto, d.granted.Add(quiet))); rested > 0 {
		due := w.Due(d.heap.Surplus(d.keep), rested)
		for _, id := range d.heap.Waning(due, d.keep, waneBatch) {
			w.Gone(d.segments[id].bytes)
			d.doom(d.segments[id])
		}
	}
	w.upto = now.Boot
	d.waneLater(now)
}
