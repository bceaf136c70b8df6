//go:build linux

package hostram_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/device/hostram"
)

const mib = int64(1) << 20

// host is a machine whose figures a test sets.
type host struct {
	mu    sync.Mutex
	f     hostmem.Figures
	err   error
	reads int
}

// newHost has so much memory and so much of it available.
func newHost(total, available int64) *host {
	h := &host{}
	h.set(total, available)
	return h
}

func (h *host) set(total, available int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.f = hostmem.Figures{MemTotal: total, MemAvailable: available, Levels: []hostmem.Level{
		{Path: "machine", LimitBytes: total, UsedBytes: total - available},
	}}
}

func (h *host) read() (hostmem.Figures, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	return h.f, h.err
}

// open makes a driver on the host, without headroom unless told.
func (h *host) open(t *testing.T, c hostram.Config) *hostram.Driver {
	t.Helper()
	c.ID, c.Figures = "ram-0", h.read
	if c.HeadroomBytes == 0 {
		c.HeadroomBytes = -1
	}
	d, err := hostram.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func create(t *testing.T, d *hostram.Driver, bytes int64, o device.CreateOptions) device.Segment {
	t.Helper()
	s, err := d.Create(context.Background(), bytes, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func refused(t *testing.T, d *hostram.Driver, bytes int64) {
	t.Helper()
	if _, err := d.Create(context.Background(), bytes, device.CreateOptions{}); !errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("create of %d MiB: %v, want out of memory", bytes/mib, err)
	}
}

// The kernel is never asked for what it does not have: its killer would answer.
func TestCreateLooksForRoomFirst(t *testing.T) {
	h := newHost(1024*mib, 10*mib)
	d := h.open(t, hostram.Config{})
	refused(t, d, 11*mib)
	create(t, d, 10*mib, device.CreateOptions{})

	h.set(1024*mib, 5*mib)
	refused(t, d, 6*mib)
	h.set(1024*mib, 6*mib)
	create(t, d, 6*mib, device.CreateOptions{})
}

func TestHeadroomIsLeft(t *testing.T) {
	d := newHost(1024*mib, 10*mib).open(t, hostram.Config{HeadroomBytes: 4 * mib})
	refused(t, d, 7*mib)
	create(t, d, 6*mib, device.CreateOptions{})
}

// Weights that wait for their fill are promised: the same bytes are not given twice.
func TestUnfilledWeightsCount(t *testing.T) {
	d := newHost(1024*mib, 10*mib).open(t, hostram.Config{})
	w := create(t, d, 8*mib, device.CreateOptions{Weights: true})
	refused(t, d, 3*mib)
	if err := d.Destroy(w); err != nil {
		t.Fatal(err)
	}
	create(t, d, 3*mib, device.CreateOptions{})
}

func TestDeclaredSizeIsTheLimit(t *testing.T) {
	d := newHost(1024*mib, 1024*mib).open(t, hostram.Config{PhysicalBytes: 4 * mib})
	if got := d.Info().PhysicalBytes; got != 4*mib {
		t.Errorf("physical bytes are %d", got)
	}
	refused(t, d, 5*mib)
	s := create(t, d, 3*mib, device.CreateOptions{})
	refused(t, d, 2*mib)
	if err := d.Destroy(s); err != nil {
		t.Fatal(err)
	}
	create(t, d, 4*mib, device.CreateOptions{})
}

// Racing creations get exactly what fits, never more, and none is refused falsely.
func TestRacingCreationsShareTheRoom(t *testing.T) {
	d := newHost(1024*mib, 1024*mib).open(t, hostram.Config{PhysicalBytes: 8 * mib})
	var made, failed atomic.Int64
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			_, err := d.Create(context.Background(), mib, device.CreateOptions{})
			switch {
			case err == nil:
				made.Add(1)
			case errors.Is(err, device.ErrOutOfMemory):
				failed.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if made.Load() != 8 || failed.Load() != 12 {
		t.Errorf("%d made and %d refused, want 8 and 12", made.Load(), failed.Load())
	}
}

// Small creations in plenty of room do not read /proc each; nothing stale decides
// when room is short.
func TestFiguresAreReadWhenTheyMatter(t *testing.T) {
	h := newHost(1024*mib, 100*mib)
	now := clock.NewManual(0, time.Unix(0, 0))
	d := h.open(t, hostram.Config{Clock: now})
	before := h.reads
	for range 10 {
		create(t, d, mib, device.CreateOptions{})
	}
	if got := h.reads - before; got != 1 {
		t.Errorf("10 creations at one moment read the figures %d times, want once", got)
	}
	h.set(1024*mib, mib/2)
	now.Advance(time.Second)
	refused(t, d, mib)
	h.set(1024*mib, 2*mib)
	create(t, d, mib, device.CreateOptions{}) // at the same moment, but short: looked again
}

func TestSampleTakesItsFiguresFromTheMachine(t *testing.T) {
	h := newHost(1024*mib, 600*mib)
	d := h.open(t, hostram.Config{})
	create(t, d, 24*mib, device.CreateOptions{})
	got, err := d.Sample()
	if err != nil {
		t.Fatal(err)
	}
	if got.PhysicalBytes != 1024*mib || got.UsedBytes != 424*mib || got.OursBytes != 24*mib || got.OutsideBytes() != 400*mib {
		t.Errorf("sample %+v", got)
	}
	h.mu.Lock()
	h.err = errors.New("proc is on fire")
	h.mu.Unlock()
	if _, err := d.Sample(); err == nil || !strings.Contains(err.Error(), "on fire") {
		t.Errorf("sample without figures: %v", err)
	}
	if _, err := d.Create(context.Background(), 600*mib, device.CreateOptions{}); err == nil || errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("create without figures: %v, want the reason itself", err)
	}
}

// A client may punch holes into its own scratch; the sum then has to be corrected.
func TestAuditFindsWhatAClientGaveBack(t *testing.T) {
	d := newHost(1024*mib, 1024*mib).open(t, hostram.Config{})
	s := create(t, d, 4*mib, device.CreateOptions{})
	f, err := d.Export(s, device.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 2*mib); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][2]int64{{4 * mib, 2 * mib}, {2 * mib, 2 * mib}} {
		counted, kernel, err := d.Audit()
		if err != nil || counted != want[0] || kernel != want[1] {
			t.Errorf("audit: counted %d, kernel %d (%v), want %v", counted, kernel, err, want)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]hostram.Config{
		"no ID":         {},
		"negative size": {ID: "ram-0", PhysicalBytes: -1},
		"no /proc":      {ID: "ram-0", Root: t.TempDir()},
	} {
		if _, err := hostram.New(c); err == nil || !strings.HasPrefix(err.Error(), "hostram: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The identity is the same in every life of the node, and does not show the id.
func TestIdentity(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	id := func(machine, device string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), []byte(machine+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := hostram.New(hostram.Config{ID: device, Root: root, Figures: newHost(mib, mib).read})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		return d.Info().UUID
	}
	one := id("0123456789abcdef", "ram-0")
	if one == "" || strings.Contains(one, "89abcdef") || one != id("0123456789abcdef", "ram-0") {
		t.Errorf("identity %q is empty, changes, or gives the machine's away", one)
	}
	if one == id("0123456789abcdef", "ram-1") || one == id("fedcba9876543210", "ram-0") {
		t.Error("two devices or machines share an identity")
	}
}

// What is promised about huge pages is so: either they came, or a reason is given.
func TestHugePagesComeOrAreExplained(t *testing.T) {
	for _, small := range []bool{false, true} {
		d := newHost(1024*mib, 1024*mib).open(t, hostram.Config{SmallPages: small})
		s := create(t, d, 32*mib, device.CreateOptions{})
		sample, err := d.Sample()
		if err != nil {
			t.Fatal(err)
		}
		if sample.Health != device.Healthy {
			t.Errorf("health is %v: small pages are no defect", sample.Health)
		}
		if huge := hugeBytes(t, s); huge != 32*mib && len(sample.Reasons) == 0 {
			t.Errorf("small pages %v: %d of %d bytes are huge pages, and no reason is given", small, huge, s.Bytes())
		} else if small && huge != 0 {
			t.Errorf("%d bytes are huge pages although turned off", huge)
		}
	}
}

// Weights get theirs while they are filled, whatever the pieces; a tail that is
// shorter than a huge page does not count as missed.
func TestFilledWeightsGetThePagesOfScratch(t *testing.T) {
	d := newHost(1024*mib, 1024*mib).open(t, hostram.Config{})
	size := 32*mib + 3*int64(os.Getpagesize())
	scratch, weights := create(t, d, size, device.CreateOptions{}), create(t, d, size, device.CreateOptions{Weights: true})
	file, err := os.Create(filepath.Join(t.TempDir(), "model"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	const piece = 5*mib + 777
	for off := int64(0); off < size; off += piece {
		if _, err := d.Fill(context.Background(), weights, off, file, off, min(piece, size-off)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := hugeBytes(t, weights), hugeBytes(t, scratch); got != want {
		t.Errorf("weights have %d bytes in huge pages, scratch of the same size %d", got, want)
	}
	sample, err := d.Sample()
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range sample.Reasons {
		if strings.Contains(reason, "fragmented") {
			t.Errorf("reported as missed: %s", reason)
		}
	}
}

// hugeBytes maps a segment where huge pages can be mapped as such, and asks the
// kernel how much of it is.
func hugeBytes(t *testing.T, s device.Segment) int64 {
	t.Helper()
	const align = 2 << 20
	size := uintptr(s.Bytes()) + align
	base, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.MunmapPtr(base, size) }()
	at := unsafe.Add(base, (align-uintptr(base)%align)%align)
	if _, err := unix.MmapPtr(int(s.File().Fd()), 0, at, uintptr(s.Bytes()), unix.PROT_READ,
		unix.MAP_SHARED|unix.MAP_FIXED|unix.MAP_POPULATE); err != nil {
		t.Fatal(err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, entry, _ := strings.Cut(string(smaps), fmt.Sprintf("\n%x-", uintptr(at)))
	_, figure, found := strings.Cut(entry, "ShmemPmdMapped:")
	if !found {
		t.Fatal("smaps does not list the mapping")
	}
	kib, err := strconv.ParseInt(strings.Fields(figure)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
