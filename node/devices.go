package node

import (
	"errors"
	"fmt"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/hostram"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/ledger"
)

// opened is a device with its driver.
type opened struct {
	spec   DeviceSpec
	driver device.Driver
}

// openDevices opens the drivers of all devices, or none. A GPU that cannot be had is left out:
// the others are served, and what was granted on it stays as it is.
func (n *Node) openDevices(w Hooks) (out []opened, err error) {
	defer func() {
		if err != nil {
			for _, d := range out {
				err = errors.Join(err, d.driver.Close())
			}
			out = nil
		}
	}()
	if w.Drivers != nil {
		for i, d := range w.Drivers {
			spec := DeviceSpec{ID: d.Info().ID, Bytes: d.Info().PhysicalBytes}
			if i < len(n.cfg.Devices) {
				spec = n.cfg.Devices[i]
			}
			out = append(out, opened{spec, d})
		}
		return out, nil
	}
	for _, s := range n.cfg.Devices {
		if s.Kind == DeviceCUDA {
			continue
		}
		d, err := n.openDriver(s, w.Clock)
		if err != nil {
			return out, fmt.Errorf("device %s:%s: %w", s.Kind, s.ID, err)
		}
		out = append(out, opened{s, d})
	}
	n.gpus.wait()
	for _, s := range n.gpus.devices() {
		if d := n.gpus.open[s.ID]; d != nil {
			out = append(out, opened{s, d})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("there is no device: give at least one, such as --device ram:ram-0")
	}
	return out, nil
}

func (n *Node) openDriver(s DeviceSpec, c clock.Clock) (device.Driver, error) {
	switch s.Kind {
	case DeviceRAM:
		h := hostram.Config{ID: s.ID, Bind: s.Bound, NUMANode: s.NUMANode, Clock: c}
		if n.gpus != nil && n.cfg.hasGPUs() { // models come down
			h.StockBytes, h.LimitBytes, h.StockHalfLife = n.cfg.StockBytesOf(s), s.Bytes, n.cfg.PoolHalfLife
		}
		return hostram.New(h)
	case DeviceSim:
		return sim.New(sim.Config{ID: s.ID, Bytes: s.Bytes, BandwidthBytesPerSecond: s.BandwidthBytesPerSecond, Latency: s.Latency, Clock: c})
	}
	return nil, fmt.Errorf("no driver for devices of kind %q", s.Kind)
}

// sized is a device's configuration with the size that it turned out to have.
func (d DeviceSpec) sized(i device.Info) DeviceSpec {
	if d.Bytes == 0 {
		d.Bytes = i.PhysicalBytes
	}
	return d
}

// gpuWarm are the classes that are kept ready on a GPU where nothing else is configured: of
// the sizes that are whole segments there, and mostly of the largest, which costs the most to
// make and to clear.
func gpuWarm() []ledger.WarmClass {
	return []ledger.WarmClass{{Bytes: 64 << 20, Keep: 4}, {Bytes: 16 << 20, Keep: 4}, {Bytes: 4 << 20, Keep: 16}}
}

// warmOf are the classes kept ready on a device.
func (c *Config) warmOf(i device.Info) []ledger.WarmClass {
	if i.Kind == string(DeviceCUDA) && len(c.Warm) > 0 && c.origins["warm"].Source == SourceDefault {
		return gpuWarm()
	}
	return c.Warm
}

// maxGPUReserve is what is kept free of a large GPU: a process that maps its memory makes a
// context there, which takes some hundred megabytes that nobody has asked the node for.
const maxGPUReserve = 512 << 20

// reserveOf is what is never granted of a device: as configured, and of a GPU at least a
// thirty-second, up to maxGPUReserve.
func (n *Node) reserveOf(i device.Info) int64 {
	if i.Kind != string(DeviceCUDA) {
		return n.cfg.ReserveBytes
	}
	return max(n.cfg.ReserveBytes, min(maxGPUReserve, roundDown(i.PhysicalBytes/32)))
}
