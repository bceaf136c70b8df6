//go:build linux

package cuda_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/conformance"
	"github.com/isobar-project/isobar/device/cuda"
	"github.com/isobar-project/isobar/device/cuda/fake"
)

// realVariable asks for the GPU of the machine in place of the fake driver: real.
const realVariable = "ISOBAR_CUDA"

// fakeVariable is where the fake driver lies, for the processes that the tests start.
const fakeVariable = "ISOBAR_CUDA_TEST_FAKE"

// deviceBytes is the size of the device that the suite is run on.
const deviceBytes = 96 << 20

// lane is the driver that the tests run on.
type lane struct {
	real      bool
	libraries cuda.Libraries
	runtime   *cuda.Runtime
	fake      *fake.Library // nil where it is the machine's
}

var theLane = sync.OnceValue(func() *lane {
	l, err := findLane()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return l
})

func findLane() (*lane, error) {
	l := &lane{}
	switch v := os.Getenv(realVariable); v {
	case "real":
		l.real = true
		l.libraries.CUDA = "libcuda.so.1"
	case "", "fake":
		path := os.Getenv(fakeVariable)
		library, err := fake.Open(path)
		if err != nil {
			return nil, err
		}
		if err := library.Configure(1, deviceBytes, filepath.Join(filepath.Dir(path), "state")); err != nil {
			return nil, err
		}
		l.libraries, l.fake = cuda.Libraries{CUDA: path, NVML: path}, library
	default:
		return nil, fmt.Errorf("%s is %q: real or fake are known", realVariable, v)
	}
	var err error
	l.runtime, err = cuda.Load(l.libraries)
	return l, err
}

var suite = conformance.Suite{
	Open: func() (device.Driver, error) {
		return theLane().runtime.New(cuda.Config{ID: "gpu-0", PhysicalBytes: deviceBytes})
	},
	Attach: attach,
}

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv(fakeVariable) == "" && os.Getenv(realVariable) != "real" {
		dir, err := os.MkdirTemp("", "fake")
		if err == nil {
			defer os.RemoveAll(dir)
			var path string
			if path, err = fake.Build(dir); err == nil {
				err = os.Setenv(fakeVariable, path)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if bytes := os.Getenv(importerVariable); bytes != "" {
		if err := importer(bytes); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	return suite.Main(m)
}

func TestConformance(t *testing.T) { suite.Run(t) }
