package actors

import (
	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/pressure"
)

// trimCall is a trim in the core's hands.
type trimCall struct{ done func(freed int64) }

// trim gives idle memory back and tells done, on the device's goroutine, how much of it
// the driver has let go.
func (d *deviceActor) trim(bytes int64, done func(freed int64)) {
	d.tell(seam.SystemLane, func() {
		d.core.Trim(&trimCall{done}, bytes, d.house.now())
		d.flush()
	})
}

// outcome implements asker.
func (t *trimCall) outcome(_ *deviceActor, o *ledger.Outcome) { t.done(o.Freed) }

// toReach gives use, on the monitor's goroutine, how many bytes a device must release for
// its level to fall to one, as its figures are now.
func (m *monitorActor) toReach(d *deviceActor, to pressure.Level, use func(bytes int64)) {
	m.tell(seam.SystemLane, func() {
		s := m.state(d)
		m.refresh(s)
		use(s.eval.ToReach(to))
	})
}
