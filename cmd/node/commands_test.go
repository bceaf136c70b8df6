package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
)

func TestHelp(t *testing.T) {
	for _, command := range []string{"", "run", "vault", "call", "status", "watch", "top", "doctor", "config", "stdio", "version"} {
		f := newFixture()
		args := []string{"--help"}
		if command != "" {
			args = []string{command, "--help"}
		}
		if code := f.run(t, args...); code != exitDone || f.err.String() != "" {
			t.Errorf("%s: exit code %d, %s", command, code, f.err)
		}
		text := f.out.String()
		if !strings.Contains(text, "Usage: isobar") || strings.Contains(text, "--vault=") || strings.Contains(text, "$$") {
			t.Errorf("%s:\n%s", command, text)
		}
		if !slices.Contains([]string{"", "vault", "version"}, command) && !strings.Contains(text, "    isobar "+command) && !strings.Contains(text, "| isobar "+command) {
			t.Errorf("%s has no example:\n%s", command, text)
		}
	}
	f := newFixture()
	if code := f.run(t); code != exitDone || !strings.Contains(f.out.String(), "Usage: isobar") {
		t.Errorf("without arguments: exit code %d, %s", code, f.out)
	}
}

func TestVersion(t *testing.T) {
	f := newFixture()
	f.run(t, "version")
	if !strings.HasPrefix(f.out.String(), "isobar 1.2.3 (go") {
		t.Errorf("got %s", f.out)
	}
	f = newFixture()
	f.run(t, "version", "--json")
	var v struct{ Version string }
	if err := json.Unmarshal([]byte(f.out.String()), &v); err != nil || v.Version != "1.2.3" {
		t.Errorf("got %s, %v", f.out, err)
	}
	if got := buildVersion("v2.0.1"); got != "2.0.1" {
		t.Errorf("got %s", got)
	}
}

func TestConfig(t *testing.T) {
	f := newFixture()
	f.world.Environ = append(f.world.Environ, "ISOBAR_NODE=gpu-host", "ISOBAR_NATS_USERNAME=ada", "ISOBAR_NATS_PASSWORD=hunter2")
	f.world.ReadFile = func(path string) ([]byte, error) {
		if path == "/home/ada/.config/isobar/config.yaml" {
			return []byte("loads: 3\nnode: other\n"), nil
		}
		return nil, fs.ErrNotExist
	}
	if code := f.run(t, "config", "--device", "sim:gpu-0=24GiB", "--no-jetstream", "--device=ram:ram-0"); code != exitDone {
		t.Fatal(f.err)
	}
	golden(t, "config.txt", f.out.String())
	for _, form := range []string{"json", "yaml"} {
		f.out = newScreen()
		f.program.out = f.out
		f.run(t, "config", "--device", "sim:gpu-0=24GiB", "--"+form)
		golden(t, "config."+form, f.out.String())
	}
	f = newFixture()
	f.world.Environ = append(f.world.Environ, "ISOBAR_LODS=1")
	if code := f.run(t, "config", "--listen", "x"); code != exitUsage || !strings.Contains(f.err.String(), "did you mean ISOBAR_LOADS?") {
		t.Errorf("exit code %d: %s", code, f.err)
	}
}

func TestStatus(t *testing.T) {
	b := startNode(t, replies(house()))
	f := newFixture()
	if code := f.run(t, "status", "--url", b.URL()); code != exitDone {
		t.Fatal(f.err)
	}
	golden(t, "status.txt", f.out.String())
	f = newFixture()
	f.run(t, "status", "--json", "--url", b.URL())
	var st nodeStatus
	if err := json.Unmarshal([]byte(f.out.String()), &st); err != nil || st.Node != "here" || len(st.Devices.Devices) != 2 || len(st.Queue.Waiting) != 1 {
		t.Errorf("%v: %s", err, f.out)
	}
	empty := startNode(t, nil)
	f = newFixture()
	if code := f.run(t, "status", "--url", empty.URL()); code != exitNoNode {
		t.Errorf("exit code %d: %s", code, f.err)
	}
}

// An empty node is shown without empty tables.
func TestStatusOfAnEmptyNode(t *testing.T) {
	h := house()
	h[schemas.ActionGetModelInfo] = &schemas.GetModelInfoReply{}
	h[schemas.ActionGetQueue] = &schemas.GetQueueReply{}
	h[schemas.ActionGetPressure] = &schemas.GetPressureReply{}
	h[schemas.ActionListDevices] = &schemas.ListDevicesReply{}
	h[schemas.ActionGetStatus] = &schemas.GetStatusReply{Devices: []schemas.DeviceStatus{{DeviceID: "ram-0", MemoryInfo: memory("ram-0", schemas.DeviceTypeRAM, 0, 1<<30)}}}
	b := startNode(t, replies(h))
	f := newFixture()
	f.run(t, "status", "--url", b.URL())
	golden(t, "status_empty.txt", f.out.String())
}

// publish sends events as a node would, and one that is not ours.
func publish(t *testing.T, b *bus.Bus, events ...schemas.Event) {
	t.Helper()
	nc, err := nats.Connect(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for i := range events {
		e := events[i]
		e.EventID, e.BootID, e.Node, e.Timestamp = "id", "boot", "here", then.Add(time.Duration(i)*time.Millisecond)
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Publish(e.Subject, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func someEvents() []schemas.Event {
	gpu := schemas.PressureSubject("here", "gpu-0")
	high := pressure(schemas.PressureHigh, schemas.PressureModerate)
	reminder := pressure(schemas.PressureCritical, schemas.PressureHigh)
	reminder.ReminderSequence, reminder.DeficitBytes = 3, 12<<20
	return []schemas.Event{
		{Event: schemas.EventStarted, Subject: schemas.NodeSubject("here"), Sequence: 1, Data: schemas.NodeEvent{Version: "1.2.3", PID: 7, Devices: []schemas.Device{{DeviceID: "gpu-0"}}}},
		{Event: schemas.EventRestored, Subject: schemas.NodeSubject("here"), Sequence: 2, Data: schemas.NodeEvent{Restored: &schemas.Restored{Grants: 2, GrantedBytes: 1 << 30, Models: 1, LostGrants: []string{"x"}}}},
		{Event: schemas.EventPressureChanged, Subject: gpu, Sequence: 4, Data: high},
		{Event: schemas.EventPressureChanged, Subject: gpu, Sequence: 8, Data: high},
		{Event: schemas.EventPressureReminder, Subject: gpu, Sequence: 8, Data: reminder},
		{Event: schemas.EventPressureChanged, Subject: schemas.TenantPressureSubject("blue", "here", "gpu-0"), Sequence: 1, Data: high},
		{Event: schemas.EventBatch, Subject: schemas.AllocationSubject("here", "gpu-0"), Sequence: 1, Data: schemas.AllocationBatch{Items: []schemas.AllocationItem{
			{Event: schemas.EventAllocated, AllocationID: grantID, SizeBytes: 1 << 20, GrantedBytes: 1 << 20, Class: schemas.ClassScratch, Purpose: "kv-cache", QueuedMs: 1500, PID: 7, Timestamp: then},
			{Event: schemas.EventRefused, SizeBytes: 1 << 40, ErrorCode: schemas.CodeOutOfMemory, Reason: "more than the device has", Timestamp: then},
			{Event: schemas.EventQueued, SizeBytes: 1 << 30, Position: 3, ModelName: "vae", Timestamp: then}}}},
		{Event: schemas.EventModelLoadProgress, Subject: schemas.ModelSubject("here", "gpu-0"), Sequence: 1, Data: schemas.ModelEvent{Name: "vae", BytesDone: 1 << 20, BytesTotal: 4 << 20, ProgressPercentage: 25, ThroughputBytesPerSecond: 1 << 30}},
		{Event: schemas.EventModelUnloaded, Subject: schemas.ModelSubject("here", "gpu-0"), Sequence: 2, Data: schemas.ModelEvent{Name: "vae", FreedBytes: 4 << 20, Reason: "pressure"}},
		{Event: schemas.EventModelLoadFailed, Subject: schemas.ModelSubject("here", "gpu-0"), Sequence: 3, Data: schemas.ModelEvent{Name: "x", ErrorCode: schemas.CodeInvalidModel, ErrorMessage: "no header"}},
		{Event: schemas.EventStarted, Subject: schemas.OptimizationSubject("here", "gpu-0"), Sequence: 1, Data: schemas.OptimizationEvent{TargetBytes: 60 << 20, Reason: "pressure high"}},
		{Event: schemas.EventCompleted, Subject: schemas.OptimizationSubject("here", "gpu-0"), Sequence: 2, Data: schemas.OptimizationEvent{TargetBytes: 60 << 20, FreedBytes: 220 << 20, DurationMs: 12, Evicted: []schemas.Eviction{{Model: "vae"}}}},
		{Event: schemas.EventProgress, Subject: schemas.TransferSubject("here"), Sequence: 1, Data: schemas.Operation{OperationID: "op-1", BytesDone: 1 << 20, BytesTotal: 2 << 20}},
		{Event: schemas.EventFailed, Subject: schemas.CommandEventSubject("here"), Sequence: 1, Data: schemas.CommandEvent{RequestID: "r", Action: schemas.ActionAllocate, ErrorCode: schemas.CodeBusy, ErrorMessage: "full"}},
		{Event: schemas.EventGap, Subject: schemas.NodeSubject("here"), Sequence: 9, Data: schemas.Gap{From: 3, To: 9}},
		{Event: "novelty", Subject: "memory.events.weather.here", Sequence: 1, Data: map[string]any{"rain": true}},
	}
}

func TestWatch(t *testing.T) {
	for name, args := range map[string][]string{"watch.txt": nil, "watch.jsonl": {"--json"}} {
		b := startNode(t, nil)
		f := newFixture()
		f.errTerminal = 80
		events := someEvents()
		done := f.start(append([]string{"watch", "--url", b.URL(), "--count", "16"}, args...)...)
		f.err.await(t, "following memory.events.>")
		publish(t, b, events...)
		if code := wait(t, done); code != exitDone || len(events) != 16 {
			t.Errorf("exit code %d: %s", code, f.err)
		}
		golden(t, name, f.out.String())
	}
}

func TestWatchByKindUntilInterrupt(t *testing.T) {
	b := startNode(t, nil)
	f := newFixture()
	f.errTerminal = 80
	done := f.start("watch", "pressure", "heartbeat", "--node", "here", "--url", b.URL())
	f.err.await(t, "following memory.events.pressure.here.* memory.heartbeat.here")
	publish(t, b, append(someEvents(), schemas.Event{Event: schemas.EventHeartbeat, Subject: schemas.HeartbeatSubject("here"),
		Data: schemas.Heartbeat{UptimeSeconds: 3700, Draining: true, Devices: []schemas.DeviceBeat{{DeviceID: "gpu-0", PressureLevel: "low", Health: "failing"}}}})...)
	f.out.await(t, "up 1 h 01 min: gpu-0 low (failing), draining")
	f.interrupts <- os.Interrupt
	if code := wait(t, done); code != exitDone {
		t.Errorf("exit code %d: %s", code, f.err)
	}
	if s := f.out.String(); strings.Contains(s, "vae") || !strings.Contains(s, "moderate -> high") {
		t.Errorf("got\n%s", s)
	}
}

func TestWatchRefuses(t *testing.T) {
	for word, want := range map[string]string{"presure": "did you mean pressure?", "qqqqqq": "choose from pressure"} {
		f := newFixture()
		if code := f.run(t, "watch", word); code != exitUsage || !strings.Contains(f.err.String(), want) {
			t.Errorf("%s: exit code %d: %s", word, code, f.err)
		}
	}
}

func TestStdio(t *testing.T) {
	b := startNode(t, desk(func(c *actors.Command) {
		switch c.Action {
		case schemas.ActionLoadModel:
			c.Reply.Done(&schemas.Pending{Status: schemas.StatusRunning, OperationID: "op-1"}, nil)
		case schemas.ActionGetOperation:
			r := c.Data.(*schemas.GetOperationRequest)
			c.Reply.Done(&schemas.GetOperationReply{Operation: schemas.Operation{OperationID: r.OperationID, Reason: time.Duration(r.WaitMs * 1e6).String()}}, nil)
		case schemas.ActionAllocate:
			if c.Wait != 7*time.Second || !c.DryRun {
				c.Reply.Fail(schemas.Errorf(schemas.CodeInternalError, "wait %s, dry run %v", c.Wait, c.DryRun))
				return
			}
			c.Reply.Done(&schemas.DryRunReply{Plan: schemas.Plan{Outcome: schemas.PlanGranted}}, nil)
		case schemas.ActionListDevices:
			c.Reply.Done(&schemas.ListDevicesReply{}, nil)
		default:
			c.Reply.Fail(schemas.Errorf(schemas.CodeBusy, "not now"))
		}
	}))
	f := newFixture()
	f.in = strings.NewReader(`{"request_id":"1","action":"load_model","data":{"name":"a"}}
{"request_id":"2","action":"get_operation","data":{"operation_id":"x","wait_ms":60000}}
{"request_id":"3","action":"allocate","data":{"size_bytes":1,"wait_ms":7000,"dry_run":true}}
{"request_id":"4","action":"deallocate","data":{"allocation_id":"x"}}
{"request_id":"5","action":"nonsense"}

{`)
	// BUSY is tried again by the client; the pauses are real, and short.
	if code := f.run(t, "stdio", "--url", b.URL()); code != exitDone {
		t.Fatal(f.err)
	}
	answers := map[string]string{}
	for line := range strings.Lines(f.out.String()) {
		var a struct {
			RequestID string          `json:"request_id"`
			Node      string          `json:"node"`
			ErrorCode string          `json:"error_code"`
			Data      json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal([]byte(line), &a); err != nil || a.Node != "here" {
			t.Fatalf("%v: %s", err, line)
		}
		answers[a.RequestID] = a.ErrorCode + string(a.Data)
	}
	for id, want := range map[string]string{"1": `"operation_id":"op-1"`, "2": `"reason":"1m0s"`, "3": `"outcome":"granted"`, "4": "BUSY", "5": "UNKNOWN_ACTION"} {
		if !strings.Contains(answers[id], want) {
			t.Errorf("answer %s is %q, want %q", id, answers[id], want)
		}
	}
	if len(answers) != 6 {
		t.Errorf("%d answers, want 6:\n%s", len(answers), f.out)
	}
}

// A grant that cannot be told of is given back.
func TestStdioUndoes(t *testing.T) {
	released := make(chan string, 1)
	h := house()
	b := startNode(t, desk(func(c *actors.Command) {
		if r, ok := c.Data.(*schemas.DeallocateRequest); ok {
			released <- r.AllocationID
			c.Reply.Done(&schemas.DeallocateReply{Finished: schemas.Done()}, nil)
			return
		}
		replies(h)(c)
	}))
	f := newFixture()
	f.in = strings.NewReader(`{"action":"allocate","data":{"size_bytes":1}}` + "\n")
	f.program.out = brokenPipe{}
	if code := f.run(t, "stdio", "--url", b.URL()); code != exitRefused {
		t.Errorf("exit code %d: %s", code, f.err)
	}
	if id := wait(t, released); id != grantID {
		t.Errorf("released %s", id)
	}
}

func TestRun(t *testing.T) {
	got := make(chan node.Config, 1)
	f := newFixture()
	f.name = "./bin/isobar"
	f.program.node = func(ctx context.Context, cfg node.Config, ready func(node.Info)) error {
		got <- cfg
		cfg.Log.Info("a record")
		ready(node.Info{Node: "here", URL: "nats://127.0.0.1:4222", DataSocket: cfg.DataSocket(), Bytes: map[string]int64{"ram-0": 8 << 30, "gpu-0": 24 << 30}, Devices: []schemas.Device{
			{DeviceID: "ram-0", Type: schemas.DeviceTypeRAM, Name: "main memory"}, {DeviceID: "gpu-0", Type: schemas.DeviceTypeVRAM, Name: "simulated GPU", Simulated: true}},
			Restored: schemas.Restored{Grants: 3, GrantedBytes: 1 << 30, Models: 1}, Warnings: []schemas.HealthWarning{{Text: "events are not kept", Fix: "make room"}}})
		<-ctx.Done()
		<-f.exits // the second signal
		return nil
	}
	f.findModel = func([]string) (string, bool) { return "/models/My Encoder.safetensors", true }
	done := f.start("run", "--device", "ram:ram-0=8GiB", "--device", "sim:gpu-0=24GiB", "--ephemeral", "--log-format", "json", "--vault=off")
	cfg := wait(t, got)
	if !cfg.Ephemeral || !cfg.VaultOff || len(cfg.Devices) != 2 || cfg.Version != "1.2.3" || cfg.VaultCommand[0] != "/usr/bin/isobar" || cfg.VaultCommand[1] != "vault" {
		t.Errorf("got %+v", cfg)
	}
	f.out.await(t, "call --list")
	f.err.await(t, `"msg":"a record"`)
	f.interrupts <- os.Interrupt
	f.err.await(t, "once more to end at once")
	f.interrupts <- os.Interrupt
	if code := wait(t, done); code != exitDone {
		t.Errorf("exit code %d: %s", code, f.err)
	}
	golden(t, "run.txt", f.out.String())
}

// The commands that run suggests work as they stand.
func TestSuggestionsWork(t *testing.T) {
	h := house()
	h[schemas.ActionLoadModel] = &schemas.LoadModelReply{Finished: schemas.Done()}
	b := startNode(t, replies(h))
	f := newFixture()
	f.findModel = func([]string) (string, bool) { return "/models/encoder.gguf", true }
	cfg, err := node.Defaults(f.world)
	if err != nil {
		t.Fatal(err)
	}
	commands := (&call{program: &f.program}).suggestions(&cfg, node.Info{URL: b.URL()})
	if len(commands) != 5 {
		t.Fatalf("got %q", commands)
	}
	for _, command := range commands {
		words := strings.Fields(command)[1:]
		if words[0] == "watch" {
			f := newFixture()
			f.errTerminal = 80
			done := f.start(words...)
			f.err.await(t, "following")
			f.interrupts <- os.Interrupt
			wait(t, done)
			continue
		}
		f := newFixture()
		if code := f.run(t, words...); code != exitDone {
			t.Errorf("%s: exit code %d: %s", command, code, f.err)
		}
	}
}

func TestRunFailsWithTheFix(t *testing.T) {
	f := newFixture()
	f.program.node = func(context.Context, node.Config, func(node.Info)) error {
		return &bus.StartError{Kind: bus.PortTaken, Fix: "choose --listen 127.0.0.1:0", Err: errors.New("address already in use")}
	}
	if code := f.run(t, "run"); code != exitRefused || !strings.Contains(f.err.String(), "choose --listen 127.0.0.1:0") {
		t.Errorf("exit code %d: %s", code, f.err)
	}
	f = newFixture()
	if code := f.run(t, "run", "--model-root", "/nowhere"); code != exitUsage || !strings.Contains(f.err.String(), "mkdir -p /nowhere") {
		t.Errorf("exit code %d: %s", code, f.err)
	}
}

// What the node tells the vault it starts, the vault understands.
func TestVault(t *testing.T) {
	f := newFixture()
	cfg, err := node.Defaults(f.world)
	if err != nil {
		t.Fatal(err)
	}
	cfg.VaultTimeout, cfg.RuntimeDir = 7*time.Minute, "/run/here"
	var got vault.RunConfig
	f.program.vault = func(_ context.Context, c vault.RunConfig) error {
		got = c
		return nil
	}
	if code := f.run(t, cfg.VaultArgs()...); code != exitDone {
		t.Fatal(f.err)
	}
	if got.SocketPath != "/run/here/vault.sock" || got.SocketPath != cfg.VaultSocket() || got.NodeTimeout != 7*time.Minute || got.Log == nil {
		t.Errorf("got %+v", got)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"isobar": "isobar", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "nats://x:1": "nats://x:1", "$HOME": "'$HOME'"} {
		if got := quote(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestShortDuration(t *testing.T) {
	for in, want := range map[time.Duration]string{0: "0 µs", 1500 * time.Microsecond: "1 ms", 90 * time.Second: "1 min 30 s", 25 * time.Hour: "25 h 00 min",
		72 * time.Hour: "3 days", -5 * time.Second: "-5 s"} {
		if got := shortDuration(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}
