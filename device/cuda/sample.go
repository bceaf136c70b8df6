//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"slices"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// Sample implements device.Driver. It runs on the control thread, between two creations; a
// segment that is just being destroyed may or may not be in the figures.
func (d *Driver) Sample() (device.Sample, error) {
	if err := d.enter(); err != nil {
		if errors.Is(err, device.ErrLost) {
			return device.Sample{Health: device.Lost, Reasons: d.state.reasons()}, fmt.Errorf("%s: sample: %w", d.c.ID, err)
		}
		return device.Sample{}, fmt.Errorf("sample: %w", err)
	}
	defer d.leave()
	var total, used, ours int64
	err := d.control.do(func() (err error) {
		total, used, err = d.figures()
		d.mu.Lock()
		for s := range d.live {
			ours += s.bytes
		}
		d.mu.Unlock()
		return err
	})
	if err == nil {
		err = d.watch.look(&d.state)
	}
	if err != nil {
		if err = d.fault(err); errors.Is(err, device.ErrLost) {
			return device.Sample{Health: device.Lost, Reasons: d.state.reasons()}, fmt.Errorf("%s: sample: %w", d.c.ID, err)
		}
		return device.Sample{}, fmt.Errorf("%s: sample: %w", d.c.ID, err)
	}
	physical := d.info.PhysicalBytes
	outside := max(0, used-ours)
	if physical < total {
		outside = max(0, outside-(total-physical))
	}
	return device.Sample{
		PhysicalBytes: physical,
		UsedBytes:     ours + outside,
		OursBytes:     ours,
		Health:        d.state.health(),
		Reasons:       d.state.reasons(),
	}, nil
}

// figures asks NVML, or CUDA where there is no NVML, what is in use of the GPU. What the
// driver reserves for itself is no part of either figure.
func (d *Driver) figures() (total, used int64, err error) {
	if d.watch.nvml != nil {
		m, err := d.watch.nvml.Memory(d.watch.gpu)
		return d.totalBytes, m.Used, err
	}
	free, total, err := d.cu.MemInfo()
	return total, total - free, err
}

// UsedBy implements device.ProcessUser: what NVML charges the processes with. That is their
// own memory, and also ours that they map once we have destroyed it.
func (d *Driver) UsedBy(pids []int) (int64, error) {
	if err := d.enter(); err != nil {
		return 0, fmt.Errorf("use of processes: %w", err)
	}
	defer d.leave()
	list, err := d.processes()
	if err != nil {
		return 0, fmt.Errorf("%s: use of processes: %w", d.c.ID, err)
	}
	var sum int64
	for _, p := range list {
		if !slices.Contains(pids, p.PID) {
			continue
		}
		if p.Bytes < 0 {
			return 0, fmt.Errorf("%s: %w: NVML does not say what process %d uses", d.c.ID, device.ErrUnsupported, p.PID)
		}
		sum += p.Bytes
	}
	return sum, nil
}

// processes are those with a context on the GPU.
func (d *Driver) processes() ([]api.Process, error) {
	if d.watch.nvml == nil {
		return nil, fmt.Errorf("%w: %w", device.ErrUnsupported, d.watch.why)
	}
	list, err := d.watch.nvml.Processes(d.watch.gpu)
	if err != nil {
		return nil, d.fault(err)
	}
	return list, nil
}
