package clock

import (
	"sync/atomic"
	"time"
)

// steady is how far the time of day may differ from what a Dial makes of the boot time
// before the dial is set anew. Reading two clocks one after the other takes some time, most
// of all on a machine that is busy; whoever sets a clock by hand moves it by more.
const steady = time.Second

// Dial converts instants to times of day by one offset between the two clocks, so that an
// instant is the same time of day whoever asks, and whenever. The offset is taken anew
// only where the time of day was set by a second or more. A Dial may be used from any
// goroutine; its zero value is not usable.
type Dial struct {
	clock  Clock
	offset atomic.Int64 // nanoseconds from an instant to the Unix time
}

// NewDial makes the dial of a clock.
func NewDial(c Clock) *Dial {
	d := &Dial{clock: c}
	d.offset.Store(d.look())
	return d
}

func (d *Dial) look() int64 {
	now, wall := d.clock.Both()
	return wall.UnixNano() - int64(now)
}

// At is the time of day at an instant, UTC.
func (d *Dial) At(i Instant) time.Time {
	offset, now := d.offset.Load(), d.look()
	if by := time.Duration(now - offset); by > steady || by < -steady {
		d.offset.CompareAndSwap(offset, now)
		offset = d.offset.Load()
	}
	return time.Unix(0, offset+int64(i)).UTC()
}
