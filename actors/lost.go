package actors

import (
	"errors"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
)

// suspect looks whether an error of the driver is the end of the device, and passes it on. Any
// goroutine may call it.
func (d *deviceActor) suspect(err error) error {
	if errors.Is(err, device.ErrLost) {
		d.tell(seam.SystemLane, func() { d.lose(err) })
	}
	return err
}

// suspect has every device looked at whose driver may have said so: a copy between two does not
// tell which of them is gone. Any goroutine may call it.
func (h *House) suspect(err error) {
	if !errors.Is(err, device.ErrLost) {
		return
	}
	for _, d := range h.devices {
		d.work.control.put(func() {
			_, err := d.driver.Sample()
			d.suspect(err)
		})
	}
}

// lose notes, once, that nothing can be had of the device any more in this process. Whoever
// waits is told; what was granted stays on record. Whether the process is to end, so that a
// successor may have the device again, is decided outside.
func (d *deviceActor) lose(why error) {
	if d.lost != nil {
		return
	}
	d.lost = why
	d.feels(device.Lost, []string{why.Error()})
	d.core.Lose(d.house.now())
	d.flush()
	d.warn(true)
	d.house.log.Error("a device is lost", "device", d.id, "error", why)
	d.house.publish(schemas.Event{Event: schemas.EventDeviceLost, Subject: schemas.NodeSubject(d.house.cfg.Node),
		Data: &schemas.NodeEvent{DeviceID: d.id, Reason: why.Error()}})
	d.house.cfg.Lost(d.id, why)
}

// LostDevice is a device that is configured and cannot be had, as far as it is known.
type LostDevice struct {
	ID   string
	Type schemas.DeviceType
	// Why is the driver's word, for people.
	Why string
}

func (l *LostDevice) describe() schemas.Device {
	return schemas.Device{DeviceID: l.ID, Type: l.Type, Peers: []string{}, NUMANode: -1, Health: schemas.HealthLost, HealthReasons: []string{l.Why}}
}

// lostDevice says that a device cannot be had, nil where it is not one of those.
func (h *House) lostDevice(id string) *schemas.Error {
	for _, l := range h.cfg.LostDevices {
		if l.ID == id {
			return schemas.Errorf(schemas.CodeDeviceLost, "device %s is lost: %s", id, l.Why).With("device_id", id)
		}
	}
	return nil
}

// driverError is what a failure of the driver is on the wire: the end of the device, or what
// the caller takes it for.
func driverError(err error, other schemas.Code) *schemas.Error {
	if errors.Is(err, device.ErrLost) {
		return schemas.Errorf(schemas.CodeDeviceLost, "%v", err)
	}
	return schemas.Errorf(other, "%v", err)
}
