package metrics_test

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/metrics"
	"github.com/isobar-project/isobar/schemas"
)

var rewrite = flag.Bool("rewrite", false, "write the golden page anew")

// then is the time of everything here.
var then = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// silence is a publisher.
type silence struct{}

func (silence) Publish(schemas.Event) {}

func newNode() *metrics.Node {
	return metrics.NewNode(metrics.Config{Node: "here", Version: "1.2.3", GoVersion: "go1", Started: then, Devices: []string{"ram-0", "gpu-0"}})
}

// busy is a node at which one of everything has happened.
func busy() (*metrics.Node, *metrics.Snapshot) {
	n := newNode()
	n.Command(schemas.ActionAllocate, "", 20*time.Microsecond)
	n.Command(schemas.ActionAllocate, "", 30*time.Millisecond)
	n.Command(schemas.ActionAllocate, schemas.CodeOutOfMemory, time.Second)
	n.Command(schemas.ActionGetStatus, "", 40*time.Microsecond)
	n.Command("make_coffee", "NEVER", time.Hour)
	n.Granted("ram-0", 0)
	n.Granted("gpu-0", 3*time.Second)
	n.Granted("gpu-7", 0) // not one of ours
	n.Completed(&schemas.AllocateReply{DeviceID: "gpu-0", AllocationTimeMs: 3000.5})
	n.Completed(&schemas.CopyReply{CopiedBytes: 1 << 30, ThroughputBytesPerSecond: 5e9})
	n.Completed(&schemas.ClearReply{ClearedBytes: 1 << 20, ThroughputBytesPerSecond: 1e9})
	n.Completed(nil)
	n.EventLeft(2 * time.Millisecond)
	n.EventLeft(-time.Second) // a clock that went back
	tap := &metrics.Tap{Node: n, Next: silence{}}
	for _, e := range []schemas.Event{
		{Event: schemas.EventModelLoading, Data: &schemas.ModelEvent{DeviceID: "ram-0", SizeBytes: 1 << 30}},
		{Event: schemas.EventModelLoaded, Data: &schemas.ModelEvent{DeviceID: "ram-0", SizeBytes: 1 << 30, DurationMs: 250}},
		{Event: schemas.EventStarted, Data: &schemas.OptimizationEvent{DeviceID: "ram-0", Reason: "room", Evicted: []schemas.Eviction{{FreedBytes: 1}}}},
		{Event: schemas.EventCompleted, Data: &schemas.OptimizationEvent{DeviceID: "ram-0", Reason: "a request waits", Evicted: []schemas.Eviction{{FreedBytes: 100}, {FreedBytes: 20}}}},
		{Event: schemas.EventCompleted, Data: &schemas.OptimizationEvent{DeviceID: "gpu-0", Reason: "it is high: …", Cause: schemas.CauseOfPressure, Evicted: []schemas.Eviction{{FreedBytes: 7}}}},
		{Event: schemas.EventCompleted, Data: &schemas.OptimizationEvent{DeviceID: "gpu-0", Reason: "pressure, says a client", Cause: schemas.CauseOfCommand, RequestID: "r", Evicted: []schemas.Eviction{{FreedBytes: 9}}}},
		{Event: schemas.EventPressureChanged, Data: &schemas.Pressure{DeviceID: "gpu-0", PressureLevel: schemas.PressureHigh}},
		{Event: schemas.EventPressureReminder, Data: &schemas.Pressure{DeviceID: "gpu-0", PressureLevel: schemas.PressureHigh}},
		{Event: schemas.EventPressureChanged, Data: &schemas.Pressure{DeviceID: "gpu-0", Tenant: "blue", PressureLevel: schemas.PressureHigh}},
		{Event: schemas.EventCompleted, Data: &schemas.Operation{BytesDone: 1 << 20, ThroughputBytesPerSecond: 2e10}},
	} {
		tap.Publish(e)
	}
	seen := then.Add(-500 * time.Millisecond)
	survey := &actors.Survey{At: then, Devices: []actors.DeviceSurvey{
		{Memory: schemas.MemoryInfo{DeviceID: "ram-0", Type: schemas.DeviceTypeRAM, TotalMemory: 1000, PhysicalMemory: 2000, UsedMemory: 600, ReservedMemory: 50,
			RevokingMemory: 30, ZombieMemory: 20, ForeignMemory: 100, PooledMemory: 150, FreeMemory: 250, AvailableMemory: 600, ReclaimableMemory: 200,
			ModelMemory: 300, FragmentationPercentage: 12.5, LargestGrantableBytes: 390, DriftBytes: -4, ObservedAt: &seen},
			GrantedBytes: 400, Level: schemas.PressureModerate, HealthScore: 80, Waiting: 2, WaitingBytes: 512, Sampled: true,
			Stats: ledger.DeviceStats{Grants: 10, Releases: 7, Refusals: 1, Peak: 900},
			Shares: []actors.GrantShare{{Tenant: "blue", Class: schemas.ClassScratch, Bytes: 100, Count: 1},
				{Tenant: `odd "tenant"` + "\n\\", Class: schemas.ClassWeights, Bytes: 300, Count: 2}}},
		{Memory: schemas.MemoryInfo{DeviceID: "gpu-0", Type: schemas.DeviceTypeVRAM}, Level: schemas.PressureCritical},
	}, Mailboxes: []actors.Mailbox{{Actor: "pool", Waiting: [4]int{1, 2, 3, 4}}}}
	return n, &metrics.Snapshot{Survey: survey, Warnings: []schemas.HealthWarning{{Code: schemas.WarnDrift, DeviceID: "a"}, {Code: schemas.WarnDrift, DeviceID: "b"}},
		Events: metrics.EventCounts{Published: 100, Dropped: 1, Waiting: 3}, Spans: metrics.SpanCounts{Exported: 9, Dropped: 2},
		Process: metrics.Process{Resident: 1 << 25, Anonymous: 1 << 24, OpenFiles: 12, Goroutines: 34}}
}

func TestPage(t *testing.T) {
	n, s := busy()
	got := n.Append(nil, s)
	if *rewrite {
		if err := os.WriteFile("testdata/page.txt", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/page.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the page differs; `go test ./metrics -rewrite` takes it over if it is right\n%s", got)
	}
}

var sampleLine = regexp.MustCompile(`^([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\["n\\])*",?)*\})? (\S+)$`)

// Every line is what the format allows, each metric stands in one piece under its TYPE, no
// series stands twice, buckets only rise and end with the count.
func TestThePageIsSound(t *testing.T) {
	n, s := busy()
	kinds := map[string]metrics.Kind{}
	for _, d := range metrics.Table() {
		kinds[d.Name] = d.Kind
	}
	seen, series := map[string]bool{}, map[string]bool{}
	current, last := "", 0.0
	for line := range strings.Lines(string(n.Append(nil, s))) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			if seen[name] || kinds[name] != metrics.Kind(kind) {
				t.Errorf("%s: again, or not in the table", line)
			}
			seen[name], current = true, name
			continue
		}
		if strings.HasPrefix(line, "# HELP ") {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("not a sample: %s", line)
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if series[m[1]+m[2]] {
			t.Errorf("twice: %s", line)
		}
		series[m[1]+m[2]] = true
		base := m[1]
		if kinds[current] == metrics.Histogram {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, suffix)
			}
			switch {
			case strings.Contains(m[2], `le="1e-05"`) || strings.Contains(m[2], `le="1e+08"`):
				last = v
			case strings.HasSuffix(m[1], "_bucket"):
				if v < last {
					t.Errorf("a bucket falls: %s", line)
				}
				last = v
			case strings.HasSuffix(m[1], "_count") && v != last:
				t.Errorf("the count is not the last bucket: %s", line)
			}
		}
		if base != current {
			t.Errorf("%s stands under %s", line, current)
		}
	}
	for _, d := range metrics.Table() {
		if !seen[d.Name] {
			t.Errorf("%s is in the table and not on the page", d.Name)
		}
		if strings.HasSuffix(d.Name, "_total") != (d.Kind == metrics.Counter) {
			t.Errorf("%s is a %s", d.Name, d.Kind)
		}
		if d.Help == "" || !strings.HasPrefix(d.Name, "isobar_") {
			t.Errorf("%s: %q", d.Name, d.Help)
		}
	}
}

// What a device has in each state is its limit.
func TestStatesAddUp(t *testing.T) {
	n, s := busy()
	sum := 0
	for line := range strings.Lines(string(n.Append(nil, s))) {
		if strings.HasPrefix(line, `isobar_device_bytes{device="ram-0"`) {
			v, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]))
			if err != nil {
				t.Fatal(err)
			}
			sum += v
		}
	}
	if sum != 1000 {
		t.Errorf("%d of 1000 bytes", sum)
	}
}

// Without an answer of the actors the page says so and shows the rest.
func TestThePageWithoutASurvey(t *testing.T) {
	n, s := busy()
	s.Survey = nil
	got := string(n.Append(nil, s))
	if !strings.Contains(got, "\nisobar_survey_complete 0\n") || strings.Contains(got, "isobar_device_bytes") || !strings.Contains(got, `isobar_commands_total{action="allocate",code="OK"} 2`) {
		t.Errorf("%s", got)
	}
}

func TestRecordingFromManyGoroutines(t *testing.T) {
	n, s := busy()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			tap := &metrics.Tap{Node: n, Next: silence{}}
			for range 500 {
				n.Command(schemas.ActionClear, "", time.Millisecond)
				n.Granted("ram-0", 0)
				tap.Publish(schemas.Event{Event: schemas.EventPressureChanged, Data: &schemas.Pressure{DeviceID: "ram-0", PressureLevel: schemas.PressureLow}})
			}
		})
	}
	for range 20 {
		n.Append(nil, s)
	}
	wg.Wait()
	got := string(n.Append(nil, s))
	for _, want := range []string{`isobar_commands_total{action="clear",code="OK"} 2000`, `isobar_pressure_changes_total{device="ram-0",level="low"} 2000`,
		`isobar_queue_wait_seconds_count{device="ram-0"} 2001`} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("%s is not on the page", want)
		}
	}
}

// A command's record is made without a lock and without memory.
func TestRecordingTakesNoMemory(t *testing.T) {
	n := newNode()
	if a := testing.AllocsPerRun(100, func() {
		n.Command(schemas.ActionAllocate, "", time.Millisecond)
		n.Granted("ram-0", time.Millisecond)
	}); a != 0 {
		t.Errorf("%v allocations a command", a)
	}
}

func TestTheTableIsACopy(t *testing.T) {
	a := metrics.Table()
	a[0].Name = "changed"
	if slices.ContainsFunc(metrics.Table(), func(d metrics.Desc) bool { return d.Name == "changed" }) {
		t.Error("the table was changed")
	}
}

func BenchmarkCommand(b *testing.B) {
	n := newNode()
	b.ReportAllocs()
	for b.Loop() {
		n.Command(schemas.ActionAllocate, "", 50*time.Microsecond)
	}
}
