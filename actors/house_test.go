package actors_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
	"github.com/isobar-project/isobar/weights"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// events collects what a house publishes.
type events struct {
	mu   sync.Mutex
	list []schemas.Event
	wake chan struct{}
}

func (e *events) Publish(ev schemas.Event) {
	e.mu.Lock()
	e.list = append(e.list, ev)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// await waits until an event satisfies want, looking at those already there first.
func (e *events) await(t *testing.T, what string, want func(schemas.Event) bool) schemas.Event {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	seen := 0
	for {
		e.mu.Lock()
		for ; seen < len(e.list); seen++ {
			if want(e.list[seen]) {
				ev := e.list[seen]
				e.mu.Unlock()
				return ev
			}
		}
		e.mu.Unlock()
		select {
		case <-e.wake:
		case <-limit.C:
			t.Fatalf("no event: %s", what)
		}
	}
}

// answer is one command's reply.
type answer struct {
	data any
	err  *schemas.Error
	undo func()
}

type reply chan answer

func (r reply) Done(data any, undo func()) { r <- answer{data: data, undo: undo} }
func (r reply) Fail(err *schemas.Error)    { r <- answer{err: err} }

type house struct {
	*actors.House
	events *events
	roots  string
}

const mib = 1 << 20

func memory(t *testing.T) func(string) ([]byte, bool, error) {
	return func(string) ([]byte, bool, error) {
		mem, err := unix.Mmap(-1, 0, 16*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err == nil {
			t.Cleanup(func() { unix.Munmap(mem) })
		}
		return mem, false, err
	}
}

func open(t *testing.T, devices ...device.Driver) *house {
	t.Helper()
	return openWith(t, func(*actors.Config) {}, devices...)
}

func openWith(t *testing.T, change func(*actors.Config), devices ...device.Driver) *house {
	t.Helper()
	dir := t.TempDir()
	roots, err := weights.NewRoots(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := fdwire.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	ev := &events{wake: make(chan struct{}, 1)}
	cfg := actors.Config{Node: "test", BootID: "boot", DataSocket: "/nowhere", Publisher: ev, Keeper: vault.Off(), Memory: memory(t), Roots: roots,
		Watch: w.Watch, Find: func(int, uint64) (*os.File, error) { return nil, os.ErrProcessDone }}
	for _, d := range devices {
		cfg.Devices = append(cfg.Devices, actors.DeviceConfig{Driver: d, PoolBytes: 64 * mib, Warm: []ledger.WarmClass{{Bytes: 4 * mib, Keep: 2}}})
	}
	change(&cfg)
	h, err := actors.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
		w.Close()
	})
	return &house{h, ev, dir}
}

func gpu(t *testing.T, id string, bytes int64) *sim.Driver {
	t.Helper()
	d, err := sim.New(sim.Config{ID: id, Bytes: bytes})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (h *house) send(c *actors.Command) reply {
	r := make(reply, 4)
	c.Reply = r
	if c.Tenant == "" {
		c.Tenant = schemas.DefaultTenant
	}
	if c.Wait == 0 {
		c.Wait = 10 * time.Second
	}
	h.Submit(c)
	return r
}

func call[T any](t *testing.T, h *house, action schemas.Action, data any) T {
	t.Helper()
	a := <-h.send(&actors.Command{Action: action, Data: data, RequestID: "r"})
	if a.err != nil {
		t.Fatalf("%s: %v", action, a.err)
	}
	v, ok := a.data.(T)
	if !ok {
		t.Fatalf("%s answered %T", action, a.data)
	}
	return v
}

func TestGrantAndRelease(t *testing.T) {
	h := open(t, gpu(t, "gpu-0", 1<<30))
	r := call[*schemas.AllocateReply](t, h, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 100 * mib, Class: schemas.ClassScratch})
	if !r.Success || r.Allocation.GrantedBytes != 100*mib || r.Handle == nil || r.Handle.SegmentCount != 1 {
		t.Fatalf("reply %+v", r)
	}
	st := call[*schemas.GetStatusReply](t, h, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: "gpu-0"})
	if st.MemoryInfo.UsedMemory != 100*mib || len(st.Allocations) != 1 {
		t.Fatalf("status %+v", st)
	}
	d := call[*schemas.DeallocateReply](t, h, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: r.AllocationID})
	if !d.Confirmed || d.FreedBytes != 100*mib {
		t.Fatalf("deallocate %+v", d)
	}
}

func TestModelIsLoadedOnceAndEvictedUnderPressure(t *testing.T) {
	h := open(t, gpu(t, "gpu-0", 256*mib))
	load := func(name string) *schemas.LoadModelReply {
		path := filepath.Join(h.roots, name+".safetensors")
		if _, err := os.Stat(path); err != nil { // a file written anew would be a new version
			if err := weightstest.Sized(55*mib, 1).WriteSafetensors(path); err != nil {
				t.Fatal(err)
			}
		}
		return call[*schemas.LoadModelReply](t, h, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: path})
	}
	load("a")
	load("b")
	load("c")
	if r := load("c"); r.SourceTier != schemas.TierVRAM {
		t.Fatalf("a resident model came from %s", r.SourceTier)
	}
	load("d")
	h.events.await(t, "a model unloaded", func(e schemas.Event) bool { return e.Event == schemas.EventModelUnloaded })
	p := call[*schemas.GetPressureReply](t, h, schemas.ActionGetPressure, &schemas.GetPressureRequest{DeviceID: "gpu-0"})
	if p.Pressure == nil {
		t.Fatal("no pressure")
	}
}
