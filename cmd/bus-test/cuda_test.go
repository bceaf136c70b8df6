//go:build cuda

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/device/cuda/fake"
)

// The program that is built with the driver of GPUs runs nodes that have some, and measures their
// grants: here on the fake driver.
func TestANodeOfOursHasGPUs(t *testing.T) {
	dir, err := os.MkdirTemp("", "bt")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	library, err := fake.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("ISOBAR_FAKE_CUDA_STATE", filepath.Join(dir, "gpus"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n, err := embedded.Start(t.Context(), []string{self}, embedded.Spec{Dir: dir, Settings: map[string][]string{
		"devices": {"ram:ram-0=64MiB"}, "gpus": {"on"}, "cuda_library": {library}, "nvml_library": {library}, "warm": {"1MiB:0"}, "pool_bytes": {"0"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	}()
	code, out, errs := start(t, "grants", "--nats-url="+n.URL, "--device=gpu-0", "--size=4194304", "--count=20")
	var report map[string]map[string]any
	if err := json.Unmarshal([]byte(out), &report); code != 0 || err != nil || report["allocate"]["count"] != 20.0 {
		t.Errorf("exit code %d, %v: %s%s", code, err, out, errs)
	}
}
