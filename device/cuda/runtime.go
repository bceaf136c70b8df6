//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// Libraries names the shared libraries of the driver. The zero value is NVIDIA's own; tests
// name the fake driver.
type Libraries struct {
	// CUDA and NVML are names as dlopen takes them; "" means libcuda.so.1 and
	// libnvidia-ml.so.1.
	CUDA, NVML string
}

// Runtime is the GPU driver of this process: the libraries, loaded and initialised. A process
// needs one. Make it with Load.
type Runtime struct {
	cu *api.CUDA
	// nvml is nil where unwatched says why.
	nvml      *api.NVML
	unwatched error
	version   string
}

// Load opens the libraries and initialises them; it takes about 0.1 s. A machine without the
// driver is device.ErrUnsupported, and the error says what is missing and how to get it. Where
// NVML alone is missing, the devices work, without knowing other processes or their own health.
func Load(l Libraries) (*Runtime, error) {
	if l.CUDA == "" {
		l.CUDA = api.DefaultCUDA
	}
	if l.NVML == "" {
		l.NVML = api.DefaultNVML
	}
	cu, err := api.LoadCUDA(l.CUDA)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	if err := cu.Init(); err != nil {
		return nil, fmt.Errorf("cuda: %w: %w; nvidia-smi says more", device.ErrUnsupported, err)
	}
	r := &Runtime{cu: cu}
	r.nvml, r.unwatched = api.LoadNVML(l.NVML)
	if r.unwatched != nil {
		r.nvml = nil
	}
	r.version = r.driverVersion()
	return r, nil
}

func (r *Runtime) driverVersion() string {
	var parts []string
	if r.nvml != nil {
		if v, err := r.nvml.Version(); err == nil {
			parts = append(parts, "NVIDIA "+v)
		}
	}
	if v, err := r.cu.Version(); err == nil {
		parts = append(parts, fmt.Sprintf("CUDA %d.%d", v/1000, v%1000/10))
	}
	return strings.Join(parts, ", ")
}

// Close gives NVML back, once all devices are closed. The libraries stay loaded, since threads
// of theirs may still run.
func (r *Runtime) Close() error {
	if r.nvml == nil {
		return nil
	}
	err := r.nvml.Shutdown()
	r.nvml, r.unwatched = nil, errors.New("NVML was shut down")
	return err
}

var _ device.Runtime = (*Runtime)(nil)

// GPU is one that this process may use, before anything is done with it.
type GPU = device.GPU

// Open implements device.Runtime.
func (r *Runtime) Open(id string, numbers map[string]int, c clock.Clock) (device.Driver, error) {
	d, err := r.New(Config{ID: id, Ordinal: numbers[id], Others: numbers, Clock: c})
	if err != nil {
		return nil, err // not a nil *Driver in an interface
	}
	return d, nil
}

// GPUs lists what this process may use. No GPU is no error.
func (r *Runtime) GPUs() ([]GPU, error) {
	n, err := r.cu.Count()
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	var out []GPU
	for i := range n {
		_, g, err := r.look(i)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

// look asks for what can be known of a GPU without a context.
func (r *Runtime) look(ordinal int) (api.Device, GPU, error) {
	g := GPU{Ordinal: ordinal}
	fail := func(err error) (api.Device, GPU, error) {
		return 0, GPU{}, fmt.Errorf("cuda: GPU %d: %w", ordinal, err)
	}
	d, err := r.cu.Device(ordinal)
	if err != nil {
		return fail(err)
	}
	if g.Name, err = r.cu.Name(d); err != nil {
		return fail(err)
	}
	if g.UUID, err = r.cu.UUID(d); err != nil {
		return fail(err)
	}
	if g.Bytes, err = r.cu.TotalBytes(d); err != nil {
		return fail(err)
	}
	g.NUMANode = r.numaNode(d)
	for _, need := range []struct {
		what api.Attribute
		name string
	}{{api.HasVMM, "virtual memory management"}, {api.HasPosixFiles, "memory as file descriptors"}} {
		has, err := r.cu.Attribute(d, need.what)
		if err != nil {
			return fail(err)
		}
		if has == 0 {
			g.Lacks = fmt.Errorf("%w: %s has no %s", device.ErrUnsupported, g.Name, need.name)
		}
	}
	return d, g, nil
}

// numaNode asks the kernel where the GPU is plugged in.
func (r *Runtime) numaNode(d api.Device) int {
	var at [3]int
	for i, a := range []api.Attribute{api.PCIDomain, api.PCIBus, api.PCIDevice} {
		v, err := r.cu.Attribute(d, a)
		if err != nil {
			return -1
		}
		at[i] = v
	}
	name := fmt.Sprintf("%04x:%02x:%02x.0", at[0], at[1], at[2])
	text, err := os.ReadFile(filepath.Join("/sys/bus/pci/devices", name, "numa_node"))
	if err != nil {
		return -1
	}
	node, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return node
}
