//go:build linux

package fake_test

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/isobar-project/isobar/device/cuda"
	"github.com/isobar-project/isobar/device/cuda/fake"
)

// libraryVariable names the driver to the process that the test starts: the library reads the
// environment that a process was started with.
const libraryVariable = "ISOBAR_FAKE_TEST_LIBRARY"

// What calls are to cost is heard from the environment, call by call, and calls are recorded in
// their order.
func TestCosts(t *testing.T) {
	if path := os.Getenv(libraryVariable); path != "" {
		costs(t, path)
		return
	}
	path, err := fake.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestCosts$")
	cmd.Env = append(os.Environ(), libraryVariable+"="+path, "ISOBAR_FAKE_CUDA_COST=cuDeviceGetCount:2500us,cuDeviceGetName:1.5ms")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func costs(t *testing.T, path string) {
	library, err := fake.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := cuda.Load(cuda.Libraries{CUDA: path, NVML: path})
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.Close()
	recorded := library.Record()
	begun := time.Now()
	if _, err := runtime.GPUs(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 4*time.Millisecond {
		t.Errorf("4 ms of calls took %v", took)
	}
	calls := recorded()
	at := func(name string) int {
		return slices.IndexFunc(calls, func(c fake.Call) bool { return c.Name == name && c.Begin < c.End })
	}
	if count, name := at("cuDeviceGetCount"), at("cuDeviceGetName"); count < 0 || name < count || calls[count].End > calls[name].Begin {
		t.Errorf("recorded %+v", calls)
	}
	if again := library.Record()(); len(again) != 0 {
		t.Errorf("recorded before it began: %+v", again)
	}
}
