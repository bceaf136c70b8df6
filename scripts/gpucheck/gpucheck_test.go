package gpucheck_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/device/cuda/fake"
)

// patience is how long all parts may take on a busy machine, compilation included.
const patience = 8 * time.Minute

// needsGPU are the lines that nothing but a GPU can have a figure for, by key.
func needsGPU() []string { return []string{"fastsafetensors_rate", "runai_rate", "driver_suite"} }

// TestEveryPart runs every part on the fake driver, with sizes that show that it works.
func TestEveryPart(t *testing.T) {
	python := os.Getenv("ISOBAR_PYTHON")
	if python == "" {
		t.Fatal("ISOBAR_PYTHON names no Python interpreter with requirements-test.txt: run `make test`, which provides one")
	}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	dir := t.TempDir()
	library, err := fake.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	programs := filepath.Join(dir, "programs")
	for _, p := range [][]string{{"isobar", "./cmd/node"}, {"isobar-cuda", "-tags=cuda", "./cmd/node"}, {"bus-test", "./cmd/bus-test"}} {
		build := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-o", filepath.Join(programs, p[0])}, p[1:]...)...)
		build.Dir = filepath.Join("..", "..")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	results := filepath.Join(dir, "results")
	cmd := exec.CommandContext(ctx, python, "-B", "gpu-check", "--tiny", "--fake", library, "--programs", programs, "--out", results)
	client, err := filepath.Abs(filepath.Join("..", "..", "clients", "python", "src"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "PYTHONPATH="+client)
	var said bytes.Buffer
	cmd.Stderr = &said
	table, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, table, said.Bytes())
	}
	text, err := os.ReadFile(filepath.Join(results, "gpu-check.json"))
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		Simulated bool
		Lines     []struct {
			Key, Verdict, Cause, What string
			Value                     *float64
		}
	}
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatal(err)
	}
	if !result.Simulated || !strings.Contains(string(table), "simulated: true") {
		t.Errorf("what was simulated is not called so:\n%s", table)
	}
	if len(result.Lines) == 0 {
		t.Error("no line was measured")
	}
	for _, l := range result.Lines {
		switch {
		case slices.Contains(needsGPU(), l.Key):
			if l.Verdict != "not run" || l.Cause == "" {
				t.Errorf("%s is %q (%q): there is no GPU", l.Key, l.Verdict, l.Cause)
			}
		case l.Verdict != "simulated" || l.Value == nil:
			t.Errorf("%s is %q: %s", l.Key, l.Verdict, l.Cause)
		}
		if !strings.Contains(string(table), "| "+l.What+" |") {
			t.Errorf("the table has no line %q", l.What)
		}
	}
}
