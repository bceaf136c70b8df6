package actors_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// slowDisk is a house with a device of 64 MiB above main memory, where a model of 8 MiB takes a
// second to read.
type slowDisk struct {
	*timed
	disk *paced
	ram  *gated
}

func openSlowDisk(t *testing.T, ram int64, change ...func(*actors.Config)) *slowDisk {
	t.Helper()
	h := &slowDisk{disk: &paced{Driver: gpu(t, "gpu-0", 64*mib)}, ram: newGated(t, "ram-0")}
	h.timed = openTimed(t, nil, append([]func(*actors.Config){func(c *actors.Config) {
		h.disk.clock = c.Clock.(*clock.Manual)
		c.Devices = []actors.DeviceConfig{{Driver: h.disk}, {Driver: mainMemory{h.ram}, Limit: ram}}
	}}, change...)...)
	return h
}

func (h *slowDisk) path(name string) string { return filepath.Join(h.roots, name+".safetensors") }

// bring loads a model to the device.
func (h *slowDisk) bring(name string) *schemas.LoadModelReply {
	h.t.Helper()
	path := h.path(name)
	if _, err := os.Stat(path); err != nil {
		if err := weightstest.Sized(7*mib, uint64(name[0])).WriteSafetensors(path); err != nil {
			h.t.Fatal(err)
		}
	}
	h.clock.Advance(time.Second)
	h.disk.next.Store(int64(time.Second))
	a := h.command("", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: path, DeviceID: "gpu-0"})
	h.disk.next.Store(0)
	if a.err != nil {
		h.t.Fatal(a.err)
	}
	return a.data.(*schemas.LoadModelReply)
}

// gone waits until a model has left the device.
func (h *slowDisk) gone(name string) *schemas.ModelEvent {
	h.t.Helper()
	return h.events.await(h.t, name+" goes", func(e schemas.Event) bool {
		m, ok := e.Data.(*schemas.ModelEvent)
		return ok && (e.Event == schemas.EventModelDemoted || e.Event == schemas.EventModelUnloaded) && m.DeviceID == "gpu-0" && m.Name == name
	}).Data.(*schemas.ModelEvent)
}

// made waits until an optimization of the device for the sake of pressure is over.
func (h *slowDisk) made(n int) *schemas.OptimizationEvent {
	h.t.Helper()
	seen := 0
	return h.events.await(h.t, fmt.Sprintf("optimization %d", n), func(e schemas.Event) bool {
		o, ok := e.Data.(*schemas.OptimizationEvent)
		if ok && e.Event == schemas.EventCompleted && o.DeviceID == "gpu-0" {
			seen++
		}
		return ok && seen == n
	}).Data.(*schemas.OptimizationEvent)
}

// When a device gets full, the model that is worth least is kept in main memory. It is back
// from there without its file, and the next time it goes there is nothing left to copy.
func TestPressureDemotes(t *testing.T) {
	h := openSlowDisk(t, 0)
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		h.bring(name)
	}
	is(t, "the level", h.level(), schemas.PressureModerate)
	want := h.weights(h.lies("a")["gpu-0"])
	h.bring("g") // 56 of 64 MiB
	o := h.made(1)
	if len(o.Evicted) != 1 || len(o.Steps) != 1 || o.Steps[0].Kind != "demote" || o.FreedBytes != granted || o.ShortfallBytes != 0 {
		t.Fatalf("the optimization is %+v", o)
	}
	name := o.Evicted[0].Model
	e := h.modelEvent(schemas.EventModelDemoted, "gpu-0")
	is(t, "demoted", []any{e.Name, e.FreedBytes}, []any{name, int64(granted)})
	lies := h.lies(name)
	is(t, "it lies", []any{len(lies), lies["ram-0"].Tier, h.used("gpu-0")}, []any{1, schemas.TierRAM, int64(6 * granted)})
	if name == "a" && !bytes.Equal(h.weights(lies["ram-0"]), want) {
		t.Error("the copy in main memory is not the model")
	}

	if err := os.Rename(h.path(name), h.path("away")); err != nil {
		t.Fatal(err)
	}
	h.clock.Advance(time.Second)
	up := h.command("", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, DeviceID: "gpu-0"}).data.(*schemas.LoadModelReply)
	is(t, "back", up.SourceTier, schemas.TierRAM)
	h.made(2) // another has made room for it

	// The whole tier goes: only what main memory lacks is copied.
	h.ram.closed.Store(true)
	r := h.send(&actors.Command{Action: schemas.ActionModelOptimize, RequestID: "one", Wait: time.Hour,
		Data: &schemas.ModelOptimizeRequest{DeviceID: "gpu-0", TargetPressureLevel: schemas.PressureModerate, MinMemoryToFree: ptr[int64](1),
			ExcludeModels: others(name, "a", "b", "c", "d", "e", "f", "g")}})
	got := (<-r).data.(*schemas.ModelOptimizeReply)
	h.ram.closed.Store(false)
	is(t, "released", got.ModelsUnloaded, []string{name})
	is(t, "how", got.OptimizationDetails[0].Kind, "demote")
	is(t, "it lies", len(h.lies(name)), 1)
}

func others(but string, names ...string) (out []string) {
	for _, n := range names {
		if n != but {
			out = append(out, n)
		}
	}
	return out
}

// Main memory takes what leaves it below the level high; what is worth less there gives way. The
// rest is dropped, and so is everything where the setting says so.
func TestWhatMainMemoryHasNoRoomForIsDropped(t *testing.T) {
	for _, c := range []struct {
		what string
		ram  int64
		off  bool
		want []schemas.EventKind
		gave int // way in main memory
	}{
		{"room for two", 32 * mib, false, []schemas.EventKind{schemas.EventModelDemoted, schemas.EventModelDemoted}, 0},
		{"room for one", 16 * mib, false, []schemas.EventKind{schemas.EventModelDemoted, schemas.EventModelDemoted}, 1},
		{"room for none", 8 * mib, false, []schemas.EventKind{schemas.EventModelUnloaded, schemas.EventModelUnloaded}, 0},
		{"off", 0, true, []schemas.EventKind{schemas.EventModelUnloaded, schemas.EventModelUnloaded}, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := openSlowDisk(t, c.ram, func(cfg *actors.Config) { cfg.DemoteOff = c.off })
			for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
				h.bring(name)
			}
			h.made(1)
			h.clock.Advance(time.Minute)
			h.bring("h")
			h.made(2)
			var kinds []schemas.EventKind
			gave := 0
			for _, e := range h.events.all() {
				if m, ok := e.Data.(*schemas.ModelEvent); ok && m.DeviceID == "gpu-0" && (e.Event == schemas.EventModelDemoted || e.Event == schemas.EventModelUnloaded) {
					kinds = append(kinds, e.Event)
				} else if ok && m.DeviceID == "ram-0" && e.Event == schemas.EventModelUnloaded {
					if gave++; !strings.HasPrefix(m.Reason, "it gives way to a model that comes from gpu-0; unread for ") {
						t.Errorf("%s goes from main memory because %q", m.Name, m.Reason)
					}
				}
			}
			is(t, "they give way", gave, c.gave)
			is(t, "they go", kinds, c.want)
			is(t, "used", h.used("gpu-0"), int64(6*granted))
			if p := h.memoryOf("ram-0"); p.UsedMemory > p.TotalMemory*8/10 {
				t.Errorf("main memory has %d of %d bytes", p.UsedMemory, p.TotalMemory)
			}
		})
	}
}

// all are the events so far.
func (e *events) all() []schemas.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]schemas.Event(nil), e.list...)
}

// memoryOf are the bytes of any device.
func (h *slowDisk) memoryOf(device string) schemas.MemoryInfo {
	h.t.Helper()
	return call[*schemas.GetStatusReply](h.t, h.house, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: device}).MemoryInfo
}

// While a model is on its way down nobody orders another in its place; once the device is
// nearly full there is no time for that, and it is dropped.
func TestANearlyFullDeviceWaitsForNoCopy(t *testing.T) {
	h := openSlowDisk(t, 0)
	h.ram.closed.Store(true)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		h.bring(name)
	}
	<-h.ram.at // a copy has begun
	is(t, "used meanwhile", []any{h.used("gpu-0"), h.level()}, []any{int64(7 * granted), schemas.PressureHigh})
	h.allocate(scratch("gpu-0", 6*mib)) // 62 of 64 MiB
	is(t, "the level", h.level(), schemas.PressureCritical)
	h.pass(0)
	h.ram.open()
	o := h.made(1)
	e := h.gone(o.Evicted[0].Model)
	if !strings.Contains(e.Reason, "needed at once") {
		t.Errorf("it goes because %q", e.Reason)
	}
	is(t, "it lies", len(h.lies(e.Name)), 0)
}

// A request that needs room gets it once the model that makes it is in main memory; a reader
// who comes meanwhile keeps the model, and another one goes.
func TestARequestWaitsForTheWayDown(t *testing.T) {
	h := openSlowDisk(t, 0, func(c *actors.Config) { c.Devices[0].ReliefOff = true })
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		h.bring(name)
	}
	in := scratch("gpu-0", 8*mib)
	dry := <-h.send(&actors.Command{Action: schemas.ActionAllocate, Data: &in, RequestID: "dry", DryRun: true})
	first := dry.data.(*schemas.DryRunReply).Plan.Evict[0].Model
	h.ram.closed.Store(true)
	r := h.send(&actors.Command{Action: schemas.ActionAllocate, Data: &in, RequestID: "room", Wait: time.Hour})
	<-h.ram.at
	call[*schemas.AcquireModelReply](t, h.house, schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: first, DeviceID: "gpu-0", LeaseSeconds: ptr[int64](60)})
	h.ram.open()
	a := <-r
	if a.err != nil {
		t.Fatal(a.err)
	}
	is(t, "the first one", len(h.lies(first)["gpu-0"].AllocationID) > 0, true)
	is(t, "used", h.used("gpu-0"), int64(8*granted))
	second := h.modelEvent(schemas.EventModelDemoted, "gpu-0").Name
	if second == first {
		t.Error("the model that is read is gone")
	}
	is(t, "the second one", []any{len(h.lies(second)), h.lies(second)["ram-0"].Tier}, []any{1, schemas.TierRAM})
}
