package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// TestTheStoryOfTwoTiers is a host whose GPU has room for seven models and whose main memory has
// some to spare. The seventh makes the pressure high: the model that is worth least goes down,
// the level falls, and whoever asks for that model has it back although its file is gone.
func TestTheStoryOfTwoTiers(t *testing.T) {
	const mib, model = 1 << 20, 8 << 20
	// A call of the simulated GPU takes 20 ms: reading a file is never as quick as the way down.
	n := nodetest.Start(t, nodetest.Devices("sim:gpu-0=64MiB,latency=20ms", "ram:ram-0=256MiB"), nodetest.Set(func(c *node.Config) {
		c.Dwell, c.DwellCritical = 50*time.Millisecond, 50*time.Millisecond // not seconds: the test waits for the fall
	}))
	s := story{T: t, n: n, c: n.Client(t)}
	plain, err := nats.Connect(n.Info().URL)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	listen := func(subject string) *nats.Subscription {
		sub, err := plain.SubscribeSync(subject)
		if err == nil {
			err = plain.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		return sub
	}
	pressure, work := listen("memory.events.pressure.test.gpu-0"), listen("memory.events.optimization.test.gpu-0")
	models, below := listen("memory.events.model.test.gpu-0"), listen("memory.events.model.test.ram-0")

	path := func(name string) string { return filepath.Join(n.ModelRoot, name+".safetensors") }
	load := func(in schemas.LoadModelRequest) *schemas.LoadModelReply {
		t.Helper()
		var r schemas.LoadModelReply
		if err := s.c.Do(s.soon(), schemas.ActionLoadModel, &in, &r, nil); err != nil {
			t.Fatal(err)
		}
		return &r
	}
	for i := range 7 {
		name := fmt.Sprintf("model-%d", i)
		if err := weightstest.Sized(7*mib, uint64(i)).WriteSafetensors(path(name)); err != nil {
			t.Fatal(err)
		}
		load(schemas.LoadModelRequest{Name: name, Path: path(name), DeviceID: "gpu-0"})
	}

	if p := next[schemas.Pressure](t, pressure, "pressure_changed"); p.PressureLevel != "moderate" || p.UsedMemory != 6*model {
		t.Fatalf("six models of 8 MiB: %+v", p)
	}
	if p := next[schemas.Pressure](t, pressure, "pressure_changed"); p.PressureLevel != "high" || p.UsedMemory != 7*model {
		t.Fatalf("seven models of 8 MiB: %+v", p)
	}
	done := next[schemas.OptimizationEvent](t, work, "completed")
	if len(done.Evicted) != 1 || len(done.Steps) != 1 || done.Steps[0].Kind != "demote" || done.FreedBytes != model || done.ShortfallBytes != 0 {
		t.Fatalf("done %+v", done)
	}
	name := done.Evicted[0].Model
	if e := next[schemas.ModelEvent](t, below, "loaded"); e.Name != name || e.SourceTier != schemas.TierVRAM {
		t.Fatalf("main memory has %+v", e)
	}
	if e := next[schemas.ModelEvent](t, models, "demoted"); e.Name != name || e.FreedBytes != model {
		t.Fatalf("demoted %+v", e)
	}
	if p := next[schemas.Pressure](t, pressure, "pressure_changed"); p.PressureLevel != "moderate" || p.UsedMemory != 6*model {
		t.Fatalf("after the release: %+v", p)
	}

	if err := os.Remove(path(name)); err != nil {
		t.Fatal(err)
	}
	if r := load(schemas.LoadModelRequest{Name: name}); r.SourceTier != schemas.TierRAM || r.Model.Residency[0].DeviceID != "gpu-0" {
		t.Fatalf("loaded again: %+v", r)
	}
	if e := next[schemas.ModelEvent](t, models, "promoted"); e.Name != name {
		t.Fatalf("promoted %+v", e)
	}
}
