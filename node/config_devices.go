package node

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/schemas"
)

// deviceQuantum is what device sizes are multiples of: the page of GPUs and the huge
// page of main memory.
const deviceQuantum = 2 << 20

// MinDeviceBytes is the least size of a device: below it a warm pool and the
// granularity of segments leave nothing to grant.
const MinDeviceBytes = 16 << 20

const deviceForm = "KIND:ID[@NODE][=SIZE][,bandwidth=SIZE][,latency=DURATION][,gpu=NUMBER|UUID]"

// ParseDevice reads KIND:ID[@NODE][=SIZE], for a simulated device also
// ,bandwidth=SIZE (a second) and ,latency=DURATION: ram:ram-0=20GiB,
// sim:gpu-0=24GiB,bandwidth=25GB,latency=10us. ram:ram-1@1=8GiB is memory of NUMA node 1;
// cuda:gpu-0=40GiB are 40 GiB of GPU 0, and cuda:big,gpu=GPU-c0ffee… is a GPU by its UUID. The
// size is rounded down to 2 MiB; without one Bytes is 0: Load fills it in for main memory, and of
// a GPU it means all.
func ParseDevice(s string) (DeviceSpec, error) {
	parts := strings.Split(strings.TrimSpace(s), ",")
	head, size, sized := strings.Cut(parts[0], "=")
	kind, id, ok := strings.Cut(head, ":")
	id, numa, bound := strings.Cut(id, "@")
	d := DeviceSpec{Kind: DeviceKind(strings.TrimSpace(kind)), ID: strings.TrimSpace(id), Bound: bound}
	switch {
	case !ok:
		return d, fmt.Errorf("device %q: write it as %s, for example ram:ram-0=20GiB", s, deviceForm)
	case d.Kind != DeviceRAM && d.Kind != DeviceSim && d.Kind != DeviceCUDA:
		return d, fmt.Errorf("device %q: the kind %q is unknown: choose ram, cuda or sim", s, d.Kind)
	case !schemas.ValidToken(d.ID) || d.ID == schemas.DeviceIDAll:
		return d, fmt.Errorf("device %q: the id %q must be 1 to 63 lower-case letters, digits and dashes, such as %s-0, and not %q",
			s, d.ID, d.Kind, schemas.DeviceIDAll)
	}
	if bound {
		n, err := strconv.ParseUint(strings.TrimSpace(numa), 10, 10)
		switch {
		case err != nil:
			return d, fmt.Errorf("device %q: %q is not the number of a NUMA node: write ram:%s@1", s, numa, d.ID)
		case d.Kind != DeviceRAM:
			return d, fmt.Errorf("device %q: only main memory lies on NUMA nodes", s)
		}
		d.NUMANode = int(n)
	}
	if sized {
		n, err := ParseSize(size)
		if err != nil {
			return d, fmt.Errorf("device %q: %w", s, err)
		}
		d.Bytes = n - n%deviceQuantum
		if d.Bytes < MinDeviceBytes {
			return d, fmt.Errorf("device %q: %s is too small: give it at least %s", s, HumanSize(n), ExactSize(MinDeviceBytes))
		}
	}
	for _, option := range parts[1:] {
		if err := d.option(option); err != nil {
			return d, fmt.Errorf("device %q: %w", s, err)
		}
	}
	if d.Kind == DeviceSim && d.Bytes == 0 {
		return d, fmt.Errorf("device %q: a simulated device needs a size: sim:%s=24GiB", s, d.ID)
	}
	if d.Kind == DeviceCUDA && d.GPU == "" && strings.Trim(d.gpu(), "0123456789") != "" {
		return d, fmt.Errorf("device %q: which GPU is it? Give it a number, as in cuda:gpu-0, or say so: cuda:%s,gpu=0", s, d.ID)
	}
	return d, nil
}

// deviceID reads the id of a device.
func deviceID(s string) (string, error) {
	s = strings.TrimSpace(s)
	if !schemas.ValidToken(s) || s == schemas.DeviceIDAll {
		return "", fmt.Errorf("%q is not the id of a device: 1 to 63 lower-case letters, digits and dashes, such as gpu-0", s)
	}
	return s, nil
}

func (d *DeviceSpec) option(s string) error {
	name, value, _ := strings.Cut(s, "=")
	name = strings.TrimSpace(name)
	if d.Kind == DeviceCUDA && name == "gpu" {
		return d.whichGPU(strings.TrimSpace(value))
	}
	if d.Kind != DeviceSim {
		return fmt.Errorf("option %q: only simulated devices have bandwidth and latency", name)
	}
	switch name {
	case "bandwidth":
		n, err := ParseSize(strings.TrimSuffix(strings.TrimSpace(value), "/s"))
		if err != nil {
			return fmt.Errorf("bandwidth: %w", err)
		}
		d.BandwidthBytesPerSecond = n
	case "latency":
		l, err := time.ParseDuration(strings.TrimSpace(value))
		if err != nil || l < 0 {
			return fmt.Errorf("latency: %q is not a duration such as 20us", value)
		}
		d.Latency = l
	default:
		return fmt.Errorf("option %q is unknown: choose bandwidth or latency", name)
	}
	return nil
}

// whichGPU reads the number or UUID of a GPU.
func (d *DeviceSpec) whichGPU(s string) error {
	number, err := strconv.ParseUint(s, 10, 10)
	if err == nil {
		s = strconv.FormatUint(number, 10)
	} else if _, err := uuid.Parse(strings.TrimPrefix(s, "GPU-")); err != nil {
		return fmt.Errorf("gpu: %q is neither a GPU's number nor its UUID: nvidia-smi -L lists both", s)
	}
	d.GPU = s
	return nil
}

// String is the form that ParseDevice reads.
func (d DeviceSpec) String() string {
	s := string(d.Kind) + ":" + d.ID
	if d.Bound {
		s += "@" + strconv.Itoa(d.NUMANode)
	}
	if d.Bytes != 0 {
		s += "=" + ExactSize(d.Bytes)
	}
	if d.GPU != "" {
		s += ",gpu=" + d.GPU
	}
	if d.BandwidthBytesPerSecond != 0 {
		s += ",bandwidth=" + ExactSize(d.BandwidthBytesPerSecond)
	}
	if d.Latency != 0 {
		s += ",latency=" + d.Latency.String()
	}
	return s
}
