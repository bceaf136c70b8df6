package ledger

import "github.com/isobar-project/isobar/schemas"

// Lose is the end of the device in this process: nothing is granted, moved or kept ready any
// more, and who waits is told. What was granted stays on record: its memory may be well, and a
// successor may have it again. It can be released as before.
func (d *Device) Lose(now Now) {
	d.begin()
	if d.lost {
		return
	}
	d.lost = true
	d.StopDefragment()
	for _, r := range d.waiters() {
		d.unqueue(r)
		d.refuse(r, d.gone())
	}
	for _, r := range d.preparing() {
		d.giveUp(r, d.gone())
	}
	d.cfg.Warm, d.cfg.PoolBytes = nil, 0
	d.changed("source_lost", nil)
	d.tend(now)
}

// gone is why a lost device grants nothing.
func (d *Device) gone() *schemas.Error {
	return schemas.Errorf(schemas.CodeDeviceLost, "device %s is lost: get_status says why, and what to do", d.cfg.Device).With("device_id", d.cfg.Device)
}
