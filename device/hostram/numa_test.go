//go:build linux

package hostram_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/conformance"
	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/device/hostram"
)

// node is a NUMA node that this process may have memory of.
func node(t *testing.T) int {
	t.Helper()
	nodes, err := hostmem.Nodes(hostmem.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) == 0 {
		return 0 // no NUMA: binding is refused, and that is tested
	}
	return nodes[len(nodes)-1].ID
}

func bound(t *testing.T, c hostram.Config) *hostram.Driver {
	t.Helper()
	c.ID, c.Bind, c.PhysicalBytes = "ram-1", true, 160<<20
	d, err := hostram.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// policy is what the kernel says of pages that are still to be made: of a fresh mapping.
func policy(t *testing.T, s device.Segment) string {
	t.Helper()
	mem, err := unix.Mmap(int(s.File().Fd()), 0, int(s.Bytes()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	text, err := os.ReadFile("/proc/self/numa_maps")
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("%x ", uintptr(unsafe.Pointer(unsafe.SliceData(mem))))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, at); ok {
			word, _, _ := strings.Cut(rest, " ")
			return word
		}
	}
	t.Fatal("the mapping is not in numa_maps")
	return ""
}

// The driver's contract holds bound to a node as well.
func TestConformanceOnANode(t *testing.T) {
	at := node(t)
	conformance.Suite{Open: func() (device.Driver, error) {
		return hostram.New(hostram.Config{ID: "ram-1", PhysicalBytes: 160 << 20, Bind: true, NUMANode: at})
	}}.Run(t)
}

// Every page lies on the node, of scratch and of weights, on huge pages and on small ones,
// and where no page is yet the file says which node it will come from.
func TestPagesLieOnTheirNode(t *testing.T) {
	at := node(t)
	if err := hostram.TryBind(at); err != nil {
		// Then it must be told, not hidden.
		s, _ := bound(t, hostram.Config{NUMANode: at}).Sample()
		if s.Health != device.Degraded {
			t.Fatalf("memory cannot be bound (%v), and the device says %+v", err, s)
		}
		return
	}
	for _, small := range []bool{false, true} {
		d := bound(t, hostram.Config{NUMANode: at, SmallPages: small})
		if i := d.Info(); i.NUMANode != at || !strings.Contains(i.Name, fmt.Sprint("node ", at)) {
			t.Errorf("info: %+v", i)
		}
		ctx := context.Background()
		scratch, err := d.Create(ctx, 36<<20, device.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		weights, err := d.Create(ctx, 20<<20, device.CreateOptions{Weights: true})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := policy(t, weights), fmt.Sprint("bind:", at); got != want {
			t.Errorf("before it is filled: %s, not %s", got, want)
		}
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(weights.Bytes()); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Fill(ctx, weights, 0, f, 0, weights.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := d.Seal(weights); err != nil {
			t.Fatal(err)
		}
		for _, s := range []device.Segment{scratch, weights} {
			if got, want := policy(t, s), fmt.Sprint("prefer:", at); got != want {
				t.Errorf("once its pages are there: %s, not %s", got, want)
			}
			on, err := d.NodesOf(s)
			if err != nil || len(on) != 1 || on[at] != s.Bytes() {
				t.Errorf("%d bytes lie on %v, %v", s.Bytes(), on, err)
			}
		}
	}
}

// Others fill the node while a segment is being made: it is refused before the kernel kills
// for it, and nothing stays.
func TestANodeThatFillsUpMeanwhile(t *testing.T) {
	at := node(t)
	if hostram.TryBind(at) != nil {
		return // see TestPagesLieOnTheirNode
	}
	var looks atomic.Int64
	figures := func() (hostmem.Figures, error) {
		available := int64(1 << 30)
		if looks.Add(1) > 3 { // New, the creation, its second chunk
			available = 4 << 20
		}
		return hostmem.Figures{MemTotal: 2 << 30, MemAvailable: available, Levels: []hostmem.Level{{Path: "NUMA node", LimitBytes: 2 << 30, UsedBytes: 1 << 30}}}, nil
	}
	d := bound(t, hostram.Config{NUMANode: at, Figures: figures})
	_, err := d.Create(context.Background(), 64<<20, device.CreateOptions{})
	if !errors.Is(err, device.ErrOutOfMemory) || !strings.Contains(err.Error(), "NUMA node") {
		t.Fatalf("made of what is not there: %v", err)
	}
	if s, err := d.Sample(); err != nil || s.OursBytes != 0 {
		t.Fatalf("left: %+v, %v", s, err)
	}
}

// A node that is not there is no reason not to serve memory, and no secret.
func TestANodeThatCannotBeHad(t *testing.T) {
	d := bound(t, hostram.Config{NUMANode: 1000})
	s, err := d.Sample()
	if err != nil || s.Health != device.Degraded || len(s.Reasons) == 0 || !strings.Contains(s.Reasons[0], "not from node 1000") {
		t.Fatalf("%+v, %v", s, err)
	}
	if d.Info().NUMANode != -1 {
		t.Errorf("info: %+v", d.Info())
	}
	if _, err := d.Create(context.Background(), 2<<20, device.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}
