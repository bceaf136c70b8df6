package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// TestTheStory is what the node is for, in one go. A host gives 1 GiB to models of
// 220 MiB. Three fit easily. The fourth makes the pressure high: whoever listens hears of
// it, the cheapest model that nobody reads goes, the level falls again, and the kernel has
// the bytes back. The readers of the other models notice nothing.
func TestTheStory(t *testing.T) {
	const mib, model, limit = 1 << 20, 220 << 20, 1 << 30
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=1GiB"), nodetest.Set(func(c *node.Config) {
		c.Dwell, c.DwellCritical = 50*time.Millisecond, 50*time.Millisecond // not seconds: the test waits for the fall
	}))
	s := story{T: t, n: n, c: n.Client(t)}

	// Somebody with nothing but a NATS client listens for pressure.
	plain, err := nats.Connect(n.Info().URL)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	pressure, err := plain.SubscribeSync("memory.events.pressure.test.ram-0")
	if err != nil {
		t.Fatal(err)
	}
	models, err := plain.SubscribeSync("memory.events.model.test.ram-0")
	if err != nil {
		t.Fatal(err)
	}
	work, err := plain.SubscribeSync("memory.events.optimization.test.ram-0")
	if err != nil {
		t.Fatal(err)
	}
	if err := plain.Flush(); err != nil {
		t.Fatal(err)
	}

	// Three models are loaded. One is read by a service, one is asked for again and again,
	// one is forgotten.
	read := s.load("read")
	service, err := data.Dial(s.soon(), data.Config{SocketPath: n.Info().DataSocket, Name: "service"})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	mapping, err := service.Map(s.soon(), read.Handle.Claim, data.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	s.load("forgotten")
	s.load("popular")
	for range 50 {
		if r := s.load("popular"); r.SourceTier != schemas.TierRAM {
			t.Fatalf("a resident model came from %s", r.SourceTier)
		}
	}
	if p := s.pressure(); p.PressureLevel != "low" || p.Sequence != 0 || p.UsedMemory != 3*model || p.TotalMemory != limit ||
		fmt.Sprintf("%.1f", p.UtilizationPercentage) != "64.5" {
		t.Fatalf("three models of 220 MiB: %+v", p)
	}
	if kept := kernelBytes(t, model); kept != 3*model {
		t.Fatalf("the kernel counts %d MiB for three models of 220 MiB", kept/mib)
	}

	// The fourth makes it high, at once and from low.
	s.load("fourth", client.WithRequestID("the fourth"))
	high := next[schemas.Pressure](t, pressure, "pressure_changed")
	if high.PressureLevel != "high" || high.PreviousLevel != "low" || high.Cause != "grant" || high.Sequence != 1 || high.TriggerRequestID != "the fourth" ||
		high.UsedMemory != 4*model || high.TotalMemory != limit || fmt.Sprintf("%.1f", high.UtilizationPercentage) != "85.9" ||
		high.ReclaimableMemory != 2*model || high.DeficitBytes != 0 || high.ZombieMemory != 0 {
		t.Fatalf("the fourth model: %+v", high)
	}
	// What must go to leave the level: down to four fifths of the limit.
	if left := high.UsedMemory - high.TargetBytes; left > limit*8/10 || left < limit*8/10-1 {
		t.Fatalf("with %d bytes released %d are left of %d", high.TargetBytes, left, limit)
	}

	// The optimizer takes the cheapest that nobody reads, and no more than it needs.
	begun := next[schemas.OptimizationEvent](t, work, "started")
	done := next[schemas.OptimizationEvent](t, work, "completed")
	if begun.TargetBytes != high.TargetBytes || done.OptimizationID != begun.OptimizationID || done.FreedBytes != model || len(done.Evicted) != 1 ||
		done.Evicted[0].Model != "forgotten" || done.Evicted[0].FreedBytes != model || !strings.Contains(done.Reason, "pressure is high") {
		t.Fatalf("begun %+v, done %+v", begun, done)
	}
	if gone := next[schemas.ModelEvent](t, models, "unloaded"); gone.Name != "forgotten" || gone.FreedBytes != model {
		t.Fatalf("unloaded %+v", gone)
	}

	// The level falls a step after each dwell.
	for i, level := range []schemas.PressureLevel{"moderate", "low"} {
		p := next[schemas.Pressure](t, pressure, "pressure_changed")
		if p.PressureLevel != level || p.Sequence != uint64(2+i) || p.UsedMemory != 3*model || p.EpisodeID != high.EpisodeID || p.Cause != "dwell" {
			t.Fatalf("after the release: %+v", p)
		}
	}
	if p := s.pressure(); p.PressureLevel != "low" || p.Sequence != 3 || p.UsedMemory != 3*model {
		t.Fatalf("afterwards: %+v", p)
	}

	// The kernel has the bytes back, and only those.
	if kept := kernelBytes(t, model); kept != 3*model {
		t.Fatalf("the kernel still counts %d MiB", kept/mib)
	}
	if len(mapping.Tensors) != 55 {
		t.Fatalf("%d tensors", len(mapping.Tensors))
	}
	for _, tn := range mapping.Tensors {
		if b := mapping.Tensor(tn.Name); len(b) != 4*mib || !bytes.HasPrefix(b, []byte(tn.Name)) {
			t.Fatalf("%s begins with %q", tn.Name, b[:len(tn.Name)])
		}
	}
	// The forgotten model is still known, and comes back from disk.
	if r := s.load("forgotten"); r.SourceTier != schemas.TierDisk || r.Model.Loads != 2 {
		t.Fatalf("loaded again: %+v", r)
	}
}

// story is the host of the story.
type story struct {
	*testing.T
	n *nodetest.Node
	c *client.Client
}

// soon is as long as any one step may take.
func (s story) soon() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	s.Cleanup(cancel)
	return ctx
}

// write makes a model of exactly 220 MiB: 55 tensors of 4 MiB, each of which begins with
// its name and is otherwise a hole in the file.
func write(path string) error {
	head, stamps := map[string]any{}, []string{}
	for i := range 55 {
		name := fmt.Sprintf("layers.%02d.weight", i)
		head[name] = map[string]any{"dtype": "BF16", "shape": []int{2048, 1024}, "data_offsets": []int{i << 22, (i + 1) << 22}}
		stamps = append(stamps, name)
	}
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...))
	for i, name := range stamps {
		_, fail := f.WriteAt([]byte(name), int64(8+len(text)+i<<22))
		err = errors.Join(err, fail)
	}
	return errors.Join(err, f.Truncate(int64(8+len(text)+len(stamps)<<22)), f.Close())
}

func (s story) load(name string, o ...client.CallOption) *schemas.LoadModelReply {
	s.Helper()
	path := filepath.Join(s.n.ModelRoot, name+".safetensors")
	if _, err := os.Stat(path); err != nil {
		if err := write(path); err != nil {
			s.Fatal(err)
		}
	}
	var r schemas.LoadModelReply
	if err := s.c.Do(s.soon(), schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: path}, &r, nil, o...); err != nil {
		s.Fatal(err)
	}
	return &r
}

func (s story) pressure() *schemas.Pressure {
	s.Helper()
	var r schemas.GetPressureReply
	if err := s.c.Call(s.soon(), schemas.ActionGetPressure, &schemas.GetPressureRequest{DeviceID: "ram-0"}, &r); err != nil {
		s.Fatal(err)
	}
	return r.Pressure
}

// next waits for the next event of a kind.
func next[T any](t *testing.T, sub *nats.Subscription, kind string) T {
	t.Helper()
	for {
		m, err := sub.NextMsg(time.Minute)
		if err != nil {
			t.Fatalf("no event %s on %s: %v", kind, sub.Subject, err)
		}
		var e struct {
			Event string `json:"event"`
			Data  T      `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &e); err != nil {
			t.Fatal(err)
		}
		if e.Event == kind {
			return e.Data
		}
	}
}

// kernelBytes sums what the kernel has given to memory files of a size that this process
// has open or mapped. Each is counted once, in the kernel's own blocks of 512 bytes.
func kernelBytes(t *testing.T, size int64) (bytes int64) {
	t.Helper()
	seen := map[uint64]bool{}
	for _, dir := range []string{"/proc/self/fd", "/proc/self/map_files"} {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			var st unix.Stat_t
			path := filepath.Join(dir, e.Name())
			to, err := os.Readlink(path)
			if err != nil || !strings.HasPrefix(to, "/memfd:") || unix.Stat(path, &st) != nil || st.Size != size || seen[st.Ino] {
				continue // not memory, or closed since it was listed
			}
			seen[st.Ino] = true
			bytes += st.Blocks * 512
		}
	}
	return bytes
}
