//go:build linux

package cuda_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
	"github.com/isobar-project/isobar/device/cuda/fake"
)

const mib = 1 << 20

// anchored is what a driver keeps for itself.
const anchored = 2 * mib

// CUresults and nvmlReturn_ts that the tests inject.
const (
	outOfMemory   = 2
	invalidValue  = 1
	ecc           = 214
	launchFailed  = 719
	notSupported  = 801
	nvmlGPULost   = 15
	nvmlNoLibrary = 12
)

// rig is a fake driver of the test's own, with two GPUs.
type rig struct {
	*fake.Library
	path    string
	runtime *cuda.Runtime
	clock   *clock.Manual
}

// newRig makes one, and sees at the end that no thread of it is left. Its runtime is loaded
// unless the test wants to do that itself.
func newRig(t *testing.T, load bool) *rig {
	t.Helper()
	if theLane().real {
		t.Skip("failures are injected into the fake driver")
	}
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	text, err := os.ReadFile(os.Getenv(fakeVariable))
	must(t, err)
	r := &rig{path: filepath.Join(t.TempDir(), "fake.so"), clock: clock.NewManual(0, time.Unix(0, 0))}
	must(t, os.WriteFile(r.path, text, 0o700))
	r.Library, err = fake.Open(r.path)
	must(t, err)
	must(t, r.Configure(2, 64*mib, ""))
	if load {
		r.runtime, err = cuda.Load(cuda.Libraries{CUDA: r.path, NVML: r.path})
		must(t, err)
	}
	return r
}

// open takes one of the GPUs into use, until the end of the test.
func (r *rig) open(t *testing.T, ordinal int) *cuda.Driver {
	t.Helper()
	d, err := r.runtime.New(cuda.Config{ID: fmt.Sprintf("gpu-%d", ordinal), Ordinal: ordinal, CopyThreads: 2, ChunkBytes: 256 << 10, InPlaceBytes: -1, Clock: r.clock})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

// nothingLeft sees that what was begun and failed left nothing in the driver.
func (r *rig) nothingLeft(t *testing.T, when string, before fake.Live) {
	t.Helper()
	if now := r.Live(); now != before {
		t.Errorf("%s: the driver has %+v, before %+v", when, now, before)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want one that is %v", what, err, want)
	}
}

func scratch(t *testing.T, d *cuda.Driver, bytes int64) device.Segment {
	t.Helper()
	s, err := d.Create(context.Background(), bytes, device.CreateOptions{})
	must(t, err)
	return s
}

// works sees that a device is as good as new.
func works(t *testing.T, d *cuda.Driver) {
	t.Helper()
	s := scratch(t, d, 4*mib)
	must(t, d.Clear(s, 0, 4*mib, 9))
	b := make([]byte, 3)
	must(t, d.Read(s, 4*mib-3, b))
	if string(b) != "\t\t\t" {
		t.Errorf("cleared memory reads as %v", b)
	}
	must(t, d.Destroy(s))
	sample, err := d.Sample()
	must(t, err)
	if sample.Health != device.Healthy {
		t.Errorf("health %v: %q", sample.Health, sample.Reasons)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

// armedClock tells when somebody has begun to wait on it.
type armedClock struct {
	*clock.Manual
	waits chan time.Duration
}

func (a armedClock) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := a.Manual.AfterFunc(d, f)
	a.waits <- d
	return t
}
