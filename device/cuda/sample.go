//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"slices"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// Sample implements device.Driver. It runs under control, between two creations; a
// segment that is just being destroyed may or may not be in the figures.
func (d *Driver) Sample() (device.Sample, error) {
	if err := d.enter(); err != nil {
		if errors.Is(err, device.ErrLost) {
			d.forgive()
			return device.Sample{Health: device.Lost, Reasons: d.state.reasons()}, fmt.Errorf("%s: sample: %w", d.c.ID, err)
		}
		return device.Sample{}, fmt.Errorf("sample: %w", err)
	}
	defer d.leave()
	var total, used, ours int64
	var others []device.ProcessUse
	err := d.control.alone(func() (err error) {
		others = d.collect(d.c.Clock.Now())
		total, used, err = d.figures()
		ours = d.held()
		return err
	})
	if err == nil {
		err = d.watch.look(&d.state)
	}
	if err != nil {
		if err = d.fault(err); errors.Is(err, device.ErrLost) {
			d.forgive()
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
		Others:        others,
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
	var free int64
	err = onThread(d.cu, d.ctx, func() (err error) { free, total, err = d.cu.MemInfo(); return err })
	return total, total - free, err
}

// UsedBy implements device.ProcessUser: what NVML charges the processes with, less what of it is
// ours.
func (d *Driver) UsedBy(pids []int) (int64, error) {
	if err := d.enter(); err != nil {
		return 0, fmt.Errorf("use of processes: %w", err)
	}
	defer d.leave()
	list, err := d.processes()
	if err != nil {
		return 0, fmt.Errorf("%s: use of processes: %w", d.c.ID, err)
	}
	for _, p := range list {
		if p.Bytes < 0 && slices.Contains(pids, p.PID) {
			return 0, fmt.Errorf("%s: %w: NVML does not say what process %d uses", d.c.ID, device.ErrUnsupported, p.PID)
		}
	}
	var sum int64
	d.debts.mu.Lock()
	defer d.debts.mu.Unlock()
	for _, u := range d.uses(list) {
		if slices.Contains(pids, u.PID) {
			sum += u.Bytes
		}
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
