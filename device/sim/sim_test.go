//go:build linux

package sim_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

func open(t *testing.T, c sim.Config) *sim.Driver {
	t.Helper()
	c.ID = "gpu-0"
	d, err := sim.New(c)
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

func create(t *testing.T, d *sim.Driver, bytes int64) device.Segment {
	t.Helper()
	s, err := d.Create(context.Background(), bytes, device.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sample(t *testing.T, d *sim.Driver) device.Sample {
	t.Helper()
	s, err := d.Sample()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestItSaysThatItIsSimulated(t *testing.T) {
	i := open(t, sim.Config{Bytes: 80 * gib}).Info()
	if !i.Simulated || !strings.HasPrefix(i.Name, "simulated") || i.Type != device.VRAM || i.GranularityBytes != 2*mib {
		t.Errorf("info %+v", i)
	}
}

// A large device costs what is touched of it, cleared and copied or not.
func TestSparse(t *testing.T) {
	d := open(t, sim.Config{Bytes: 80 * gib})
	a, b := create(t, d, 32*gib), create(t, d, 32*gib)
	if err := errors.Join(
		d.Clear(a, 0, a.Bytes(), 0),
		d.Clear(a, 31*gib, 4096, 9),
		d.Copy(b, 0, a, 0, a.Bytes()),
		d.Clear(a, 0, a.Bytes(), 0),
	); err != nil {
		t.Fatal(err)
	}
	if _, kernel, err := d.Audit(); err != nil || kernel > 64<<10 {
		t.Errorf("the kernel holds %d bytes of 64 GiB of which two pages were touched (%v)", kernel, err)
	}
	page := make([]byte, 1)
	if _, err := b.File().ReadAt(page, 31*gib+4095); err != nil || page[0] != 9 {
		t.Errorf("the copied byte is %d (%v), want 9", page[0], err)
	}
	if _, err := a.File().ReadAt(page, 31*gib+4095); err != nil || page[0] != 0 {
		t.Errorf("the cleared byte is %d (%v), want 0", page[0], err)
	}
	if got := sample(t, d); got.OursBytes != 64*gib || got.UsedBytes != 64*gib {
		t.Errorf("sample %+v: a GPU counts whole handles", got)
	}
}

func TestForeignUseTakesRoom(t *testing.T) {
	d := open(t, sim.Config{Bytes: 100 * mib})
	d.SetForeign(60 * mib)
	if got := sample(t, d); got.OutsideBytes() != 60*mib || got.PhysicalBytes != 100*mib {
		t.Errorf("sample %+v", got)
	}
	if _, err := d.Create(context.Background(), 42*mib, device.CreateOptions{}); !errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("create beyond what others leave: %v", err)
	}
	create(t, d, 40*mib)
	d.SetForeign(80 * mib) // others push into memory: the sample says so
	if got := sample(t, d); got.UsedBytes != 120*mib {
		t.Errorf("sample %+v", got)
	}
	d.SetForeign(-1)
	create(t, d, 60*mib)
}

func TestFailCreate(t *testing.T) {
	faults := &sim.Faults{}
	d := open(t, sim.Config{Bytes: 100 * mib, Faults: faults})
	faults.FailCreate(2)
	create(t, d, 2*mib)
	if _, err := d.Create(context.Background(), 2*mib, device.CreateOptions{}); !errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("second create: %v", err)
	}
	create(t, d, 2*mib)
	if got := sample(t, d).OursBytes; got != 4*mib {
		t.Errorf("ours is %d", got)
	}
}

func TestFailCopy(t *testing.T) {
	d := open(t, sim.Config{Bytes: 100 * mib})
	s := create(t, d, 2*mib)
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(2 * mib); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("uncorrectable error")
	for name, call := range map[string]func() error{
		"clear": func() error { return d.Clear(s, 0, mib, 1) },
		"copy":  func() error { return d.Copy(s, 0, s, mib, mib) },
		"fill": func() error {
			_, err := d.Fill(context.Background(), s, 0, file, 0, mib)
			return err
		},
	} {
		d.Faults().FailCopy(1, broken)
		if err := call(); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if err := call(); err != nil {
			t.Errorf("%s after the fault: %v", name, err)
		}
	}
}

func TestSlowRelease(t *testing.T) {
	now := clock.NewManual(0, time.Unix(0, 0))
	d := open(t, sim.Config{Bytes: 100 * mib, Clock: now})
	s := create(t, d, 80*mib)
	d.Faults().SlowRelease(time.Second)
	for range 2 { // the second is no release
		if err := d.Destroy(s); err != nil {
			t.Fatal(err)
		}
	}
	now.Advance(999 * time.Millisecond)
	if got := sample(t, d); got.OursBytes != 0 || got.UsedBytes != 80*mib {
		t.Errorf("before the time: %+v", got)
	}
	if _, err := d.Create(context.Background(), 40*mib, device.CreateOptions{}); !errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("create before the bytes are back: %v", err)
	}
	now.Advance(time.Millisecond)
	if got := sample(t, d); got.UsedBytes != 0 {
		t.Errorf("after the time: %+v", got)
	}
	create(t, d, 40*mib)
}

func TestHoldRelease(t *testing.T) {
	d := open(t, sim.Config{Bytes: 100 * mib})
	s := create(t, d, 2*mib)
	for _, hold := range []bool{true, false} {
		d.Faults().HoldRelease(hold)
		if got, err := d.Released(s); err != nil || got == hold {
			t.Errorf("hold %v: released %v (%v)", hold, got, err)
		}
	}
}

func TestLost(t *testing.T) {
	d := open(t, sim.Config{Bytes: 100 * mib})
	s := create(t, d, 2*mib)
	d.Faults().Lose()
	_, errCreate := d.Create(context.Background(), 2*mib, device.CreateOptions{})
	_, errExport := d.Export(s, device.ReadOnly)
	_, errReleased := d.Released(s)
	_, errHolders := d.Holders(s)
	_, errImport := d.Import(s.File(), 2*mib, device.ImportOptions{})
	_, errFill := d.Fill(context.Background(), s, 0, s.File(), 0, 1)
	got, errSample := d.Sample()
	for name, err := range map[string]error{
		"create": errCreate, "export": errExport, "released": errReleased, "holders": errHolders, "import": errImport,
		"fill": errFill, "sample": errSample, "clear": d.Clear(s, 0, 1, 1), "copy": d.Copy(s, 0, s, 2, 1), "seal": d.Seal(s),
	} {
		if !errors.Is(err, device.ErrLost) {
			t.Errorf("%s: %v, want lost", name, err)
		}
	}
	if got.Health != device.Lost || len(got.Reasons) == 0 {
		t.Errorf("sample %+v", got)
	}
	if err := d.Destroy(s); err != nil {
		t.Errorf("destroy: %v", err)
	}
}

// armed is a clock that tells when somebody has begun to wait on it.
type armed struct {
	*clock.Manual
	waits chan time.Duration
}

func (a armed) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := a.Manual.AfterFunc(d, f)
	a.waits <- d
	return t
}

// Transfers take the link's time, one after the other, on the injected clock.
func TestBandwidthAndLatency(t *testing.T) {
	now := armed{clock.NewManual(0, time.Unix(0, 0)), make(chan time.Duration)}
	d := open(t, sim.Config{Bytes: 100 * mib, BandwidthBytesPerSecond: 10 * mib, Latency: time.Millisecond, Clock: now})
	done := make(chan error, 1)
	run := func(call func() error) { go func() { done <- call() }() }
	expect := func(want time.Duration) {
		t.Helper()
		if got := <-now.waits; got != want {
			t.Errorf("waits for %v, want %v", got, want)
		}
	}

	var s device.Segment
	run(func() (err error) {
		s, err = d.Create(context.Background(), 20*mib, device.CreateOptions{})
		return err
	})
	expect(time.Millisecond)
	now.Advance(time.Millisecond)
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	run(func() error { return d.Clear(s, 0, 5*mib, 1) })
	expect(time.Millisecond)
	now.Advance(time.Millisecond)
	expect(500 * time.Millisecond)
	now.Advance(200 * time.Millisecond)
	run(func() error { return d.Clear(s, 5*mib, 2*mib, 1) }) // queues up behind the first
	expect(time.Millisecond)
	now.Advance(time.Millisecond)
	expect(499 * time.Millisecond) // 299 ms of the first one's, 200 ms of its own
	now.Advance(time.Second)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}

	ctx, cancel := context.WithCancel(context.Background())
	run(func() error {
		n, err := d.Fill(ctx, s, 0, s.File(), 0, 20*mib)
		if n != 4*mib {
			err = fmt.Errorf("placed %d bytes before the cancellation: %w", n, err)
		}
		return err
	})
	expect(time.Millisecond)
	now.Advance(time.Millisecond)
	expect(400 * time.Millisecond)
	now.Advance(400 * time.Millisecond)
	expect(400 * time.Millisecond)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "placed") {
		t.Errorf("cancelled fill: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]sim.Config{
		"no ID":              {Bytes: 2 * mib},
		"no size":            {ID: "gpu-0"},
		"odd size":           {ID: "gpu-0", Bytes: 3 * mib},
		"negative size":      {ID: "gpu-0", Bytes: -2 * mib},
		"negative bandwidth": {ID: "gpu-0", Bytes: 2 * mib, BandwidthBytesPerSecond: -1},
		"negative latency":   {ID: "gpu-0", Bytes: 2 * mib, Latency: -1},
	} {
		if _, err := sim.New(c); err == nil || !strings.HasPrefix(err.Error(), "sim: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An 8 GiB GPU on which another process sits, and an allocation that fails.
func Example() {
	gpu, err := sim.New(sim.Config{ID: "gpu-0", Bytes: 8 << 30})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer gpu.Close()
	gpu.SetForeign(6 << 30)
	_, err = gpu.Create(context.Background(), 4<<30, device.CreateOptions{})
	fmt.Println(errors.Is(err, device.ErrOutOfMemory))

	gpu.SetForeign(0)
	segment, err := gpu.Create(context.Background(), 4<<30, device.CreateOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := unix.Mmap(int(segment.File().Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		fmt.Println(err)
		return
	}
	b[0] = 42 // a page comes to be
	fmt.Println(b[0], gpu.Info().Name)
	_ = unix.Munmap(b)
	// Output:
	// true
	// 42 simulated GPU, 8192 MiB
}
