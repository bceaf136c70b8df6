package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// TestMain lets the test's binary be the program's children: nodes, vaults, consumers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"node", "vault", "consumer"}, os.Args[1]) {
		main()
	}
	os.Exit(m.Run())
}

// start runs the program in this process.
func start(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	defer stop()
	var o, e bytes.Buffer
	code = run(&program{ctx: ctx, self: []string{self}, in: strings.NewReader(""), out: &o, err: &e}, args)
	return code, o.String(), e.String()
}

// report runs bench and reads its object.
func report(t *testing.T, args ...string) map[string]any {
	t.Helper()
	code, out, errs := start(t, append([]string{"bench", "--json", "--quick"}, args...)...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	var r map[string]any
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return r
}

// ratios are the keys that the contract of bench names.
func ratios() []string {
	return []string{"allocate_p50_over_echo", "allocate_throughput_over_echo", "pressure_event_p99_over_echo_p99",
		"vault_refill_over_off", "load_over_pread", "allocate_p99_loaded_over_idle", "load_rate_kept", "consumer_kill_p99_ms",
		"idle_node_rss_anon_mb", "idle_vault_rss_anon_mb"}
}

func TestBenchMeasuresEverything(t *testing.T) {
	r := report(t, "--embedded")
	for _, key := range ratios() {
		if f, ok := r[key].(float64); !ok || f <= 0 {
			t.Errorf("%s is %v", key, r[key])
		}
	}
	if _, ok := r["idle_cpu_percent"].(float64); !ok {
		t.Errorf("idle_cpu_percent is %v", r["idle_cpu_percent"])
	}
	raw, _ := r["raw"].(map[string]any)
	for _, key := range []string{"echo_1", "echo_64", "get_pressure_1", "two_owners_64", "cold_64mib", "typed_msgpack_pair_64"} {
		if s, ok := raw[key].(map[string]any); !ok || s["count"].(float64) == 0 {
			t.Errorf("raw figure %s is %v", key, raw[key])
		}
	}
	env, _ := r["environment"].(map[string]any)
	for _, key := range []string{"cpus", "go_version", "kernel", "date"} {
		if env[key] == nil || env[key] == "" {
			t.Errorf("the environment has no %s", key)
		}
	}
	if lost := leftovers(t); len(lost) > 0 {
		t.Errorf("processes are left: %q", lost)
	}
}

func TestBenchOfANodeThatRuns(t *testing.T) {
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=128MiB"))
	r := report(t, "--nats-url", n.Info().URL)
	if f, ok := r["allocate_p50_over_echo"].(float64); !ok || f <= 0 {
		t.Errorf("allocate_p50_over_echo is %v", r["allocate_p50_over_echo"])
	}
	why, _ := r["not_measured"].(map[string]any)
	for _, key := range []string{"pressure_event_p99_over_echo_p99", "vault_refill_over_off", "idle_cpu_percent", "two_owners_p50_over_one"} {
		if v, present := r[key]; !present || v != nil || why[key] == nil {
			t.Errorf("%s is %v because of %v, not null for a reason", key, v, why[key])
		}
	}
}

func TestSoakFindsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.md")
	code, out, errs := start(t, "soak", "--minutes", "0.08", "--kill-every", "2s", "--seed", "7", "--report", path)
	if code != 0 {
		t.Fatalf("exit code %d: %s\n%s", code, errs, out)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "everything that must be true was. Seed 7") || strings.Contains(string(text), "differ") {
		t.Fatalf("%v\n%s", err, text)
	}
	if lost := leftovers(t); len(lost) > 0 {
		t.Errorf("processes are left: %q", lost)
	}
}

func TestConformFindsNothing(t *testing.T) {
	code, out, errs := start(t, "conform", "--quiet")
	var passed, failed int
	if _, err := fmt.Sscanf(out, "%d passed, %d failed\n", &passed, &failed); code != 0 || err != nil || passed < 400 || failed != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	if lost := leftovers(t); len(lost) > 0 {
		t.Errorf("processes are left: %q", lost)
	}
}

// One that serves somebody else too is found out.
func TestConformOfANodeThatRuns(t *testing.T) {
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=128MiB"))
	code, out, errs := start(t, "conform", "--nats-url", n.Info().URL, "--only", "list_devices", "--only", "allocate/json/is-")
	if code != 0 || !strings.Contains(out, "ok      list_devices/json/in-its-envelope → success\n") || !strings.Contains(out, "ok      allocate/json/is-the-kernel's-bytes\n") ||
		!strings.HasSuffix(out, " passed, 0 failed\n") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	// A node that has no room does not do what it should.
	full := &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 125 << 20}
	if err := n.Client(t).Call(t.Context(), schemas.ActionAllocate, full, nil); err != nil {
		t.Fatal(err)
	}
	code, out, errs = start(t, "conform", "--nats-url", n.Info().URL, "--only", "allocate/json/is-counted", "--quiet")
	if code != 1 || !strings.Contains(out, "FAILED  allocate/json/is-counted: ") || !strings.HasSuffix(out, "0 passed, 1 failed\n") || !strings.Contains(errs, "1 of 1 checks failed") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"bench", "--nope"}, {"bench", "--embedded", "--nats-url", "nats://127.0.0.1:1"}, {"soak", "--minutes", "x"}} {
		if code, _, _ := start(t, args...); code != 2 {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
	if code, _, errs := start(t, "bench", "--only", "nope"); code != 1 || !strings.Contains(errs, "choose from idle, echo") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if code, out, _ := start(t, "--help"); code != 0 || !strings.Contains(out, "bench") || strings.Contains(out, "consumer") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// leftovers are processes of this binary that are its children's.
func leftovers(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if args := strings.Split(string(text), "\x00"); args[0] == self && len(args) > 1 && slices.Contains([]string{"node", "vault", "consumer"}, args[1]) {
			out = append(out, strings.Join(args, " "))
		}
	}
	return out
}

func TestGrantsBesideEcho(t *testing.T) {
	n := nodetest.Start(t)
	code, out, errs := start(t, "grants", "--nats-url", n.Info().URL, "--device", "gpu-0", "--size", "4194304", "--count", "20")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	var r map[string]struct {
		Count int     `json:"count"`
		P50us float64 `json:"p50_us"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, key := range []string{"echo", "allocate", "deallocate"} {
		if r[key].Count != 20 || r[key].P50us <= 0 {
			t.Errorf("%s: %+v", key, r[key])
		}
	}
	if code, _, errs := start(t, "grants", "--nats-url", n.Info().URL, "--device", "gpu-9"); code != 1 || !strings.Contains(errs, "INVALID_DEVICE") {
		t.Errorf("on a device that is not there: exit code %d: %s", code, errs)
	}
}
