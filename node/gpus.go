package node

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
)

// GPUMode says which GPUs become devices.
type GPUMode string

// The modes.
const (
	// GPUsAuto takes those that are named among the devices; where no device is named, all.
	GPUsAuto GPUMode = "auto"
	// GPUsOn takes every GPU of the machine, beside whatever devices are named.
	GPUsOn GPUMode = "on"
	// GPUsOff takes none.
	GPUsOff GPUMode = "off"
)

// String is the mode as it is written.
func (m GPUMode) String() string { return string(m) }

// WantsGPUs reports whether GPUs are looked for.
func (c *Config) WantsGPUs() bool {
	return c.GPUs == GPUsOn || c.GPUs == GPUsAuto && (c.origins["devices"].Source == SourceDefault || c.namesGPU())
}

// insistsOnGPUs reports whether somebody has said that there are GPUs.
func (c *Config) insistsOnGPUs() bool {
	return c.namesGPU() || c.LoadsGPUDriver() || c.GPUs == GPUsOn
}

func (c *Config) namesGPU() bool {
	return slices.ContainsFunc(c.Devices, func(d DeviceSpec) bool { return d.Kind == DeviceCUDA })
}

// NVIDIAControl is there wherever NVIDIA's driver is.
const NVIDIAControl = "/dev/nvidiactl"

// hasGPUs tells, before any driver is loaded, whether there are likely GPUs.
func (c *Config) hasGPUs() bool {
	_, err := os.Stat(NVIDIAControl)
	return c.namesGPU() || c.LoadsGPUDriver() || err == nil
}

// LoadsGPUDriver reports whether a driver was named, as where there is none of NVIDIA's.
func (c *Config) LoadsGPUDriver() bool { return c.CUDALibrary != "" }

// gpuBank is the machine's GPUs: the driver is loaded, and the GPUs are opened, beside
// whatever else the start of a node has to do.
type gpuBank struct {
	loaded  chan struct{} // closed once runtime, specs and failure stand
	runtime device.Runtime
	// specs are the devices that GPUs become; numbers says which GPU each is.
	specs   []DeviceSpec
	numbers map[string]int
	uuids   map[string]string
	failure error // why there are none, or why those named cannot be had
	settled sync.Once

	opening sync.WaitGroup
	mu      sync.Mutex
	open    map[string]device.Driver
	failed  map[string]error
	late    late
}

// findGPUs begins to load the driver and to open the GPUs that the configuration wants; nil
// where it wants none.
func findGPUs(cfg *Config, load func(cudaLibrary, nvmlLibrary string) (device.Runtime, error), c clock.Clock) *gpuBank {
	if !cfg.WantsGPUs() {
		return nil
	}
	b := &gpuBank{loaded: make(chan struct{}), numbers: map[string]int{}, uuids: map[string]string{}, open: map[string]device.Driver{}, failed: map[string]error{}}
	b.late.ends = make(chan struct{})
	overdue := c.AfterFunc(gpuPatience, func() { b.settle(cfg, nil, nil, slow("the driver does not start"), c) })
	look := func() (device.Runtime, []device.GPU, error) {
		runtime, err := load(cfg.CUDALibrary, cfg.NVMLLibrary)
		if err != nil {
			return nil, nil, err
		}
		gpus, err := runtime.GPUs()
		return runtime, gpus, err
	}
	go func() {
		runtime, gpus, err := look()
		overdue.Stop()
		first := b.settle(cfg, runtime, gpus, err, c)
		if !first && runtime != nil {
			_ = runtime.Close() // too late for this process
		}
		switch {
		case !first && err == nil && len(gpus) > 0:
			b.late.came(lateDriver)
		case err != nil && cfg.insistsOnGPUs():
			b.late.lookOut(look, c)
		}
	}()
	return b
}

// gpuPatience bounds how long the start of a node waits for the driver of GPUs, and then for each
// GPU: either takes a second at most where all is well. The node goes on without.
const gpuPatience = 30 * time.Second

// errSlow: the driver, or a GPU, has not answered in time.
var errSlow = errors.New("it may still be starting; when it has come, a warning says so, and it is used when the node is started again")

func slow(what string) error {
	return fmt.Errorf("%w: %s: no answer after %v: %w", device.ErrUnsupported, what, gpuPatience, errSlow)
}

// settle takes what has become of loading the driver, once; false: it was settled before.
func (b *gpuBank) settle(cfg *Config, runtime device.Runtime, gpus []device.GPU, failure error, c clock.Clock) (first bool) {
	b.settled.Do(func() {
		first = true
		b.runtime, b.failure = runtime, failure
		b.choose(cfg, gpus, cfg.gpuNames().known())
		for _, s := range b.specs {
			b.opening.Go(func() { b.take(s, c) })
		}
		close(b.loaded)
	})
	return first
}

// choose says which GPUs become which devices. One that was a device before, by the record of
// known ones, is that device again, whatever its number is now.
func (b *gpuBank) choose(cfg *Config, gpus []device.GPU, known map[string]string) {
	named := cfg.namesGPU()
	use := func(id string, g device.GPU) { b.numbers[id], b.uuids[id] = g.Ordinal, g.UUID }
	for _, s := range cfg.Devices {
		if s.Kind != DeviceCUDA {
			continue
		}
		b.specs = append(b.specs, s)
		if b.failure != nil {
			b.failed[s.ID] = b.failure
			continue
		}
		means, who := s.means, s.gpu()
		if was := known[s.ID]; was != "" && s.GPU == "" {
			means, who = func(g device.GPU) bool { return g.UUID == was }, was+", which it was"
		}
		i := slices.IndexFunc(gpus, means)
		if i < 0 {
			b.failed[s.ID] = fmt.Errorf("%w: no GPU here is %s: %s", device.ErrUnsupported, who, gpuNamed(gpus))
			continue
		}
		use(s.ID, gpus[i])
	}
	if cfg.GPUs != GPUsOn && named {
		return
	}
	for _, g := range gpus {
		id := gpuID(g, known, b.numbers)
		taken := slices.ContainsFunc(cfg.Devices, func(d DeviceSpec) bool { return d.ID == id })
		for _, n := range b.numbers {
			taken = taken || n == g.Ordinal
		}
		if !taken {
			b.specs = append(b.specs, DeviceSpec{Kind: DeviceCUDA, ID: id})
			use(id, g)
		}
	}
	if len(b.specs) == 0 && b.failure == nil {
		b.failure = fmt.Errorf("%w: the driver works and finds no GPU: CUDA_VISIBLE_DEVICES may hide them", device.ErrUnsupported)
	}
}

// gpuID is what a GPU is called that nobody names: as before, or by its number, unless another one
// is or was called so.
func gpuID(g device.GPU, known map[string]string, used map[string]int) string {
	for id, uuid := range known {
		if uuid == g.UUID {
			return id
		}
	}
	for n := g.Ordinal; ; n++ {
		id := "gpu-" + strconv.Itoa(n)
		if _, is := used[id]; !is && known[id] == "" {
			return id
		}
	}
}

// take opens one GPU.
func (b *gpuBank) take(s DeviceSpec, c clock.Clock) {
	if _, ok := b.numbers[s.ID]; !ok {
		return // it has failed already
	}
	type outcome struct {
		d   device.Driver
		err error
	}
	opened, late := make(chan outcome, 1), make(chan struct{})
	timer := c.AfterFunc(gpuPatience, func() { close(late) })
	defer timer.Stop()
	go func() {
		d, err := b.runtime.Open(s.ID, b.numbers, c)
		opened <- outcome{d, err}
	}()
	var o outcome
	select {
	case o = <-opened:
	case <-late:
		o.err = slow("the GPU cannot be opened")
		go func() {
			if o := <-opened; o.err == nil {
				_ = o.d.Close() // too late for this process
				b.late.came(s.ID)
			}
		}()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if o.err != nil {
		b.failed[s.ID] = o.err
		return
	}
	b.open[s.ID] = o.d
}

// wait waits until every GPU that can be opened is, or its time is over.
func (b *gpuBank) wait() {
	if b == nil {
		return
	}
	<-b.loaded
	b.opening.Wait()
}

// devices are the ids of what GPUs become, and how they are configured, once the driver is
// loaded.
func (b *gpuBank) devices() []DeviceSpec {
	if b == nil {
		return nil
	}
	<-b.loaded
	return b.specs
}

// lost are the devices whose GPU cannot be had.
func (b *gpuBank) lost() (out []actors.LostDevice) {
	for _, s := range b.devices() {
		if err := b.failed[s.ID]; err != nil {
			out = append(out, actors.LostDevice{ID: s.ID, Type: schemas.DeviceTypeVRAM, Why: err.Error()})
		}
	}
	return out
}

// close gives up what was not handed to the house.
func (b *gpuBank) close() {
	if b == nil {
		return
	}
	b.wait()
	b.late.end()
	if b.runtime != nil {
		_ = b.runtime.Close() // the process ends, or a start has failed for another reason
	}
}

// means reports whether a GPU is the one of a device.
func (d DeviceSpec) means(g device.GPU) bool {
	want := d.gpu()
	if n, err := strconv.Atoi(want); err == nil {
		return g.Ordinal == n
	}
	return want != "" && strings.EqualFold(strings.TrimPrefix(g.UUID, "GPU-"), strings.TrimPrefix(want, "GPU-"))
}

// gpu is the number or UUID of a device's GPU: as configured, or the number that its id ends
// with.
func (d DeviceSpec) gpu() string {
	if d.GPU != "" {
		return d.GPU
	}
	return d.ID[strings.LastIndexByte(d.ID, '-')+1:]
}

func gpuNamed(gpus []device.GPU) string {
	if len(gpus) == 0 {
		return "there are none"
	}
	var names []string
	for _, g := range gpus {
		names = append(names, fmt.Sprintf("%d (%s, %s)", g.Ordinal, g.Name, g.UUID))
	}
	return "there are " + strings.Join(names, ", ")
}

// reportGPUs says why a GPU is not in use, and what to do about it.
func (n *Node) reportGPUs() {
	b := n.gpus
	if b == nil {
		return
	}
	b.wait()
	var warnings []schemas.HealthWarning
	if b.failure != nil {
		code := schemas.WarnNoGPU
		if n.cfg.insistsOnGPUs() {
			code = schemas.WarnGPUUnavailable
		}
		warnings = append(warnings, schemas.HealthWarning{Code: code, Text: "no GPU is in use: " + b.failure.Error(), Fix: gpuFix(b.failure)})
	}
	for _, s := range b.specs {
		if err := b.failed[s.ID]; err != nil && b.failure == nil {
			warnings = append(warnings, schemas.HealthWarning{Code: schemas.WarnGPUUnavailable, Subject: s.ID,
				Text: fmt.Sprintf("%s is not in use: %v", s.ID, err), Fix: gpuFix(err)})
		}
	}
	n.board.Say(sourceGPUs, warnings...)
	b.late.tell(n.reportLateGPUs)
	n.rememberGPUs()
}

// rememberGPUs notes which GPU is which device, for the next process.
func (n *Node) rememberGPUs() {
	b := n.gpus
	more := map[string]string{}
	for id, uuid := range b.uuids {
		if b.failed[id] == nil {
			more[id] = uuid
		}
		if d := "gpu-" + strconv.Itoa(b.numbers[id]); d != id && n.cfg.gpuNames().known()[id] == uuid {
			n.log.Warn("a GPU has another number than before, and stays the device that it was", "device", id, "number", b.numbers[id], "uuid", uuid)
		}
	}
	if len(more) == 0 {
		return
	}
	if err := n.cfg.gpuNames().keep(more); err != nil {
		n.log.Error("which GPU is which device is not remembered: do not change CUDA_VISIBLE_DEVICES while memory is granted", "error", err)
	}
}

// gpuFix is what a person can do about a GPU that cannot be used.
func gpuFix(err error) string {
	switch {
	case errors.Is(err, errSlow):
		return "wait for the warning gpu_ready, or see nvidia-smi; then restart the node: what is granted stays. nvidia-persistenced keeps the driver started"
	case errors.Is(err, device.ErrLost):
		return "isobar doctor; nvidia-smi --gpu-reset, or restart the machine, then the node"
	case errors.Is(err, device.ErrOutOfMemory):
		return "end what uses the GPU (nvidia-smi names it), then restart the node"
	}
	return "isobar doctor says what the machine lacks; --gpus off if it is to have none"
}
