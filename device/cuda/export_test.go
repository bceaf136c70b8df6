//go:build linux

package cuda

import (
	"runtime"

	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// MakeLanes has all copy threads made.
func (d *Driver) MakeLanes() error {
	var list []*lane
	defer func() {
		for _, l := range list {
			d.lanes.put(l)
		}
	}()
	for {
		l, err := d.lanes.grow()
		if l == nil {
			return err
		}
		list = append(list, l)
	}
}

// AwaitWarm waits until nothing is being registered in the background.
func (d *Driver) AwaitWarm() { d.warm.wait() }

// AwaitGivingWay waits until n threads give way to what is being made.
func (d *Driver) AwaitGivingWay(n int) {
	for waits := 0; waits < n; {
		runtime.Gosched()
		d.making.mu.Lock()
		waits = d.making.waiting
		d.making.mu.Unlock()
	}
}

// Raw is what a test needs to call CUDA beside the driver: the entry points, the context, and
// the address of a segment of d.
func (d *Driver) Raw(s interface{ Bytes() int64 }) (*api.CUDA, api.Context, api.Pointer) {
	at := api.Pointer(0)
	if own, ok := s.(*Segment); ok {
		at = own.at
	}
	return d.cu, d.ctx, at
}

// Charge is what NVML charges a process with.
func (d *Driver) Charge(pid int) (int64, error) {
	list, err := d.processes()
	return charges(list)[pid], err
}

// OnThread runs f with the context current.
func (d *Driver) OnThread(f func() error) error { return onThread(d.cu, d.ctx, f) }

// RetryAgain is the longest that passes before an unmap that failed is tried again.
const RetryAgain = retryLast

// Handle is a segment's.
func (d *Driver) Handle(s interface{ Bytes() int64 }) api.Handle { return s.(*Segment).handle }

// Trying tells whether an unmap that failed is being tried again.
func (d *Driver) Trying() bool { return d.debts.inDriver() }
