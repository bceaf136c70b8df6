package node

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
)

// board is a GPU driver of simulated devices.
type board struct {
	gpus   []device.GPU
	broken map[int]error
	// stuck keeps a GPU from being opened until it is closed; the driver is closed as often.
	stuck  map[int]chan struct{}
	closed chan struct{}
}

func (b *board) GPUs() ([]device.GPU, error) { return b.gpus, nil }

func (b *board) Close() error {
	if b.closed != nil {
		b.closed <- struct{}{}
	}
	return nil
}

func (b *board) Open(id string, numbers map[string]int, c clock.Clock) (device.Driver, error) {
	ordinal := numbers[id]
	if err := b.broken[ordinal]; err != nil {
		return nil, err
	}
	if stuck := b.stuck[ordinal]; stuck != nil {
		<-stuck
	}
	return sim.New(sim.Config{ID: id, Bytes: b.gpus[ordinal].Bytes, Clock: c})
}

func gpusOf(n int) *board {
	b := &board{broken: map[int]error{}}
	for i := range n {
		b.gpus = append(b.gpus, device.GPU{Ordinal: i, UUID: fmt.Sprintf("GPU-00000000-0000-0000-0000-00000000000%d", i), Bytes: 64 << 20})
	}
	return b
}

// What is configured says which GPUs become which devices.
func TestGPUsBecomeDevices(t *testing.T) {
	for name, c := range map[string]struct {
		flags map[string][]string
		gpus  int
		want  []string
		fails []string
	}{
		"every one by default":     {nil, 2, []string{"cuda:gpu-0", "cuda:gpu-1"}, nil},
		"none of a machine":        {nil, 0, nil, nil},
		"those that are named":     {map[string][]string{"devices": {"cuda:gpu-1=32MiB"}}, 2, []string{"cuda:gpu-1=32MiB"}, nil},
		"by UUID":                  {map[string][]string{"devices": {"cuda:big,gpu=00000000-0000-0000-0000-000000000001"}}, 2, []string{"cuda:big,gpu=00000000-0000-0000-0000-000000000001"}, nil},
		"named, and the others":    {map[string][]string{"devices": {"cuda:big=32MiB,gpu=1"}, "gpus": {"on"}}, 2, []string{"cuda:big=32MiB,gpu=1", "cuda:gpu-0"}, nil},
		"beside a simulated gpu-0": {map[string][]string{"devices": {"sim:gpu-0=64MiB"}, "gpus": {"on"}}, 2, []string{"cuda:gpu-1"}, nil},
		"one that is not there":    {map[string][]string{"devices": {"cuda:gpu-7"}}, 2, []string{"cuda:gpu-7"}, []string{"gpu-7"}},
		"none beside other names":  {map[string][]string{"devices": {"ram:ram-0=1GiB"}}, 2, nil, nil},
		"none where they are off":  {map[string][]string{"gpus": {"off"}}, 2, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			cfg, err := Load(&m.World, everything, Given{Flags: c.flags})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(cfg.Devices, func(d DeviceSpec) bool { return d.Kind != DeviceCUDA }) {
				t.Errorf("no main memory among %v", cfg.Devices)
			}
			b := findGPUs(&cfg, func(string, string) (device.Runtime, error) { return gpusOf(c.gpus), nil }, clock.Real())
			b.wait()
			var got []string
			for _, s := range b.devices() {
				got = append(got, s.String())
				if fails := slices.Contains(c.fails, s.ID); fails != (b.failed[s.ID] != nil) || fails == (b.open[s.ID] != nil) {
					t.Errorf("%s: %v", s.ID, b.failed[s.ID])
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("the devices are %q, not %q", got, c.want)
			}
			b.close()
		})
	}
}

// One GPU that cannot be opened is no reason for the others not to be.
func TestABrokenGPUIsLeftOut(t *testing.T) {
	m := newMachine()
	cfg, err := Load(&m.World, everything, Given{})
	if err != nil {
		t.Fatal(err)
	}
	gpus := gpusOf(3)
	gpus.broken[1] = errors.New("it smells")
	b := findGPUs(&cfg, func(string, string) (device.Runtime, error) { return gpus, nil }, clock.Real())
	b.wait()
	if b.open["gpu-0"] == nil || b.open["gpu-1"] != nil || b.open["gpu-2"] == nil || b.failed["gpu-1"] == nil {
		t.Errorf("open %v, failed %v", b.open, b.failed)
	}
	b.close()
}

// A driver that does not start, or a GPU that does not open, holds up a node no longer than it has
// patience; what comes later is given up again.
func TestASlowDriverIsNotAwaited(t *testing.T) {
	m := newMachine()
	cfg, err := Load(&m.World, everything, Given{})
	if err != nil {
		t.Fatal(err)
	}
	c := clock.NewManual(0, time.Unix(0, 0))
	gpus := gpusOf(2)
	gpus.closed = make(chan struct{}, 1)
	starts := make(chan struct{})
	b := findGPUs(&cfg, func(string, string) (device.Runtime, error) { <-starts; return gpus, nil }, c)
	c.Advance(gpuPatience)
	b.wait()
	if len(b.devices()) != 0 || !errors.Is(b.failure, errSlow) || !strings.Contains(gpuFix(b.failure), "restart") {
		t.Errorf("devices %v, failure %v", b.devices(), b.failure)
	}
	close(starts)
	<-gpus.closed
	if len(b.devices()) != 0 {
		t.Errorf("devices %v, after all", b.devices())
	}
	heard := make(chan []string, 2)
	b.late.tell(func(ids []string) { heard <- ids })
	if ids := <-heard; !slices.Equal(ids, []string{lateDriver}) {
		t.Errorf("heard of %q", ids)
	}
	b.close()

	gpus.stuck = map[int]chan struct{}{1: make(chan struct{})}
	armed := make(chan time.Duration, 3)
	b = findGPUs(&cfg, func(string, string) (device.Runtime, error) { return gpus, nil }, arming{c, armed})
	for range 3 { // the driver, and two GPUs
		<-armed
	}
	for b.opened() != 1 {
		runtime.Gosched()
	}
	c.Advance(gpuPatience)
	b.wait()
	if b.open["gpu-0"] == nil || !errors.Is(b.failed["gpu-1"], errSlow) {
		t.Errorf("open %v, failed %v", b.open, b.failed)
	}
	b.late.tell(func(ids []string) { heard <- ids })
	close(gpus.stuck[1])
	if ids := <-heard; !slices.Equal(ids, []string{"gpu-1"}) {
		t.Errorf("heard of %q", ids)
	}
	b.close()
}

// opened is how many GPUs are open by now.
func (b *gpuBank) opened() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.open)
}

// arming tells of every timer that is set.
type arming struct {
	clock.Clock
	armed chan time.Duration
}

func (a arming) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := a.Clock.AfterFunc(d, f)
	a.armed <- d
	return t
}

// A GPU that has another number than before stays the device that it was; one that is not there is
// not replaced by another.
func TestGPUsKeepTheirNames(t *testing.T) {
	uuid := func(n int) string { return fmt.Sprintf("GPU-00000000-0000-0000-0000-00000000000%d", n) }
	gpu := func(ordinal, who int) device.GPU { return device.GPU{Ordinal: ordinal, UUID: uuid(who)} }
	known := map[string]string{"gpu-0": uuid(0), "gpu-1": uuid(1)}
	for name, c := range map[string]struct {
		devices []string
		gpus    []device.GPU
		want    map[string]int
		fails   string
	}{
		"as before":           {nil, []device.GPU{gpu(0, 0), gpu(1, 1)}, map[string]int{"gpu-0": 0, "gpu-1": 1}, ""},
		"the other way round": {nil, []device.GPU{gpu(0, 1), gpu(1, 0)}, map[string]int{"gpu-0": 1, "gpu-1": 0}, ""},
		"one is hidden":       {nil, []device.GPU{gpu(0, 1)}, map[string]int{"gpu-1": 0}, ""},
		"a new one":           {nil, []device.GPU{gpu(0, 5), gpu(1, 1)}, map[string]int{"gpu-2": 0, "gpu-1": 1}, ""},
		"two new ones":        {nil, []device.GPU{gpu(0, 5), gpu(1, 1), gpu(2, 6)}, map[string]int{"gpu-2": 0, "gpu-1": 1, "gpu-3": 2}, ""},
		"named":               {[]string{"cuda:gpu-0"}, []device.GPU{gpu(0, 1), gpu(1, 0)}, map[string]int{"gpu-0": 1}, ""},
		"named, and hidden":   {[]string{"cuda:gpu-0"}, []device.GPU{gpu(0, 1)}, map[string]int{}, "gpu-0"},
		"named by number":     {[]string{"cuda:gpu-0,gpu=0"}, []device.GPU{gpu(0, 1), gpu(1, 0)}, map[string]int{"gpu-0": 0}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			flags := map[string][]string{}
			if c.devices != nil {
				flags["devices"] = c.devices
			}
			cfg, err := Load(&m.World, everything, Given{Flags: flags})
			if err != nil {
				t.Fatal(err)
			}
			b := &gpuBank{numbers: map[string]int{}, uuids: map[string]string{}, failed: map[string]error{}}
			b.choose(&cfg, c.gpus, known)
			if !maps.Equal(b.numbers, c.want) || c.fails != "" && b.failed[c.fails] == nil {
				t.Errorf("numbers %v, failed %v", b.numbers, b.failed)
			}
		})
	}

	n := gpuNames{filepath.Join(t.TempDir(), "gpus.json")}
	for _, more := range []map[string]string{{"gpu-0": uuid(0)}, {"gpu-1": uuid(1)}} {
		if err := n.keep(more); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.known(); !maps.Equal(got, known) {
		t.Errorf("remembered %v", got)
	}
	if err := os.WriteFile(n.path, []byte(`{"boot":"another","gpus":{"gpu-0":"x"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := n.known(); got != nil {
		t.Errorf("of another start of the machine: %v", got)
	}
}
