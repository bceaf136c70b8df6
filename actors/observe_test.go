package actors_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/schemas"
)

// observer keeps what it is told.
type observer struct {
	mu        sync.Mutex
	grants    []time.Duration
	completed []string
	warnings  map[string][]schemas.HealthWarning
	more      chan struct{}
}

func newObserver() *observer {
	return &observer{warnings: map[string][]schemas.HealthWarning{}, more: make(chan struct{}, 1024)}
}

func (o *observer) Granted(device string, class schemas.Class, queued time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.grants = append(o.grants, queued)
}

func (o *observer) Completed(c *actors.Command, data any, code schemas.Code) {
	o.mu.Lock()
	o.completed = append(o.completed, strings.TrimSpace(string(c.Action)+" "+string(code)))
	o.mu.Unlock()
	o.more <- struct{}{}
}

func (o *observer) DeviceWarnings(device string, ws []schemas.HealthWarning) {
	o.mu.Lock()
	o.warnings[device] = ws
	o.mu.Unlock()
	o.more <- struct{}{}
}

// await waits until something that was told satisfies want.
func (o *observer) await(t *testing.T, what string, want func() bool) {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	// What is wanted may move a clock, before the timer that it is to move is set: it is asked
	// again even where nothing was heard.
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		o.mu.Lock()
		ok := want()
		o.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-o.more:
		case <-again.C:
		case <-limit.C:
			t.Fatalf("it never heard of %s: %+v", what, o)
		}
	}
}

func TestTheObserverHearsOfTheEndOfEachCommandOnce(t *testing.T) {
	o := newObserver()
	h := openWith(t, func(c *actors.Config) { c.Observer = o }, gpu(t, "gpu-0", 256*mib))
	first := call[*schemas.AllocateReply](t, h, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 200 * mib, Class: schemas.ClassScratch})
	patience := int64(10)
	// It waits, is answered «queued», and is done later: that is one end.
	a := <-h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "q", Wait: time.Nanosecond,
		Data: &schemas.AllocateRequest{SizeBytes: 200 * mib, Class: schemas.ClassScratch, TimeoutSeconds: &patience}})
	if p, ok := a.data.(schemas.Pending); !ok {
		if p2, ok := a.data.(*schemas.Pending); !ok {
			t.Fatalf("answered %T, not queued (%v, %v)", a.data, p, p2)
		}
	}
	call[*schemas.DeallocateReply](t, h, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: first.AllocationID})
	o.await(t, "the second grant", func() bool { return len(o.completed) >= 3 })
	b := <-h.send(&actors.Command{Action: schemas.ActionGetAllocation, RequestID: "r", Data: &schemas.GetAllocationRequest{AllocationID: first.AllocationID}})
	if b.err == nil {
		t.Fatal("a released grant is still there")
	}
	o.await(t, "the refusal", func() bool { return len(o.completed) >= 4 })
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.Sort(o.completed)
	if want := []string{"allocate", "allocate", "deallocate", "get_allocation ALLOCATION_NOT_FOUND"}; !slices.Equal(o.completed, want) {
		t.Errorf("completed %v", o.completed)
	}
	if len(o.grants) != 2 || o.grants[0] != 0 || o.grants[1] <= 0 {
		t.Errorf("queued for %v", o.grants)
	}
}

// failing is a device whose figures cannot be read while bad is set.
type failing struct {
	*sim.Driver
	mu  sync.Mutex
	bad bool
}

func (f *failing) set(bad bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bad = bad
}

func (f *failing) Sample() (device.Sample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bad {
		return device.Sample{}, errors.New("the cable is out")
	}
	return f.Driver.Sample()
}

func TestDeviceWarningsFollowTheDevice(t *testing.T) {
	o := newObserver()
	c := clock.NewManual(1, time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC))
	d := &failing{Driver: gpu(t, "gpu-0", 256*mib), bad: true}
	openWith(t, func(cfg *actors.Config) { cfg.Observer, cfg.Clock = o, c }, d)
	codes := func() (out []schemas.WarningCode) {
		for _, w := range o.warnings["gpu-0"] {
			out = append(out, w.Code)
			if w.DeviceID != "gpu-0" || w.Text == "" || w.Fix == "" {
				t.Errorf("incomplete: %+v", w)
			}
		}
		return out
	}
	o.await(t, "the broken device", func() bool {
		return slices.Contains(codes(), schemas.WarnStaleSamples) && slices.Contains(codes(), schemas.WarnDeviceFailing)
	})
	d.set(false)
	o.await(t, "its recovery", func() bool {
		c.Advance(time.Second)
		return len(codes()) == 0
	})
}

func TestWarningsInStatusAreThoseThatATenantMaySee(t *testing.T) {
	all := []schemas.HealthWarning{{Code: schemas.WarnVaultMissing}, {Code: schemas.WarnDrift, DeviceID: "gpu-0"}, {Code: schemas.WarnDrift, DeviceID: "gpu-1"}}
	h := openWith(t, func(c *actors.Config) { c.Warnings = func() []schemas.HealthWarning { return all } }, gpu(t, "gpu-0", 256*mib), gpu(t, "gpu-1", 256*mib))
	for _, c := range []struct {
		tenant, device string
		want           int
	}{{"default", "all", 3}, {"blue", "all", 2}, {"default", "gpu-1", 2}, {"blue", "gpu-1", 1}} {
		a := <-h.send(&actors.Command{Action: schemas.ActionGetStatus, RequestID: "r", Tenant: c.tenant, Data: &schemas.GetStatusRequest{DeviceID: c.device}})
		if r, ok := a.data.(*schemas.GetStatusReply); !ok || len(r.Warnings) != c.want {
			t.Errorf("%s asks for %s: %+v, %v", c.tenant, c.device, a.data, a.err)
		}
	}
}

func TestASurveyAddsUp(t *testing.T) {
	h := open(t, gpu(t, "gpu-0", 256*mib), gpu(t, "gpu-1", 256*mib))
	for _, x := range []struct {
		tenant string
		class  schemas.Class
	}{{"blue", schemas.ClassScratch}, {"blue", schemas.ClassScratch}, {"blue", schemas.ClassState}, {"red", schemas.ClassScratch}} {
		a := <-h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "r", Tenant: x.tenant,
			Data: &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 32 * mib, Class: x.class}})
		if a.err != nil {
			t.Fatal(a.err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := h.Survey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	d := s.Devices[0]
	want := []actors.GrantShare{{Tenant: "blue", Class: "scratch", Bytes: 64 * mib, Count: 2}, {Tenant: "blue", Class: "state", Bytes: 32 * mib, Count: 1},
		{Tenant: "red", Class: "scratch", Bytes: 32 * mib, Count: 1}}
	if !slices.Equal(d.Shares, want) || d.GrantedBytes != 128*mib || d.Stats.Grants != 4 || d.Level != schemas.PressureLow {
		t.Errorf("survey %+v", d)
	}
	if len(s.Devices) != 2 || s.Devices[1].Shares != nil || len(s.Mailboxes) != 4+2*2 {
		t.Errorf("%d devices, %d mailboxes", len(s.Devices), len(s.Mailboxes))
	}
}

// stuck blocks the goroutine that completes commands: an actor's.
type stuck struct {
	*observer
	entered, leave chan struct{}
}

func (s *stuck) Completed(c *actors.Command, data any, code schemas.Code) {
	if c.RequestID == "stuck" {
		close(s.entered)
		<-s.leave
	}
}

func TestAnActorThatDoesNotAnswerIsNamed(t *testing.T) {
	s := &stuck{newObserver(), make(chan struct{}), make(chan struct{})}
	h := openWith(t, func(c *actors.Config) { c.Observer = s }, gpu(t, "gpu-0", 256*mib))
	long, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if silent := h.Silent(long); len(silent) != 0 {
		t.Fatalf("silent: %v", silent)
	}
	go h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "stuck", Data: &schemas.AllocateRequest{SizeBytes: mib, Class: schemas.ClassScratch}})
	<-s.entered
	over, stop := context.WithCancel(context.Background())
	stop()
	for range 3 { // asked once, however often one looks
		if silent := h.Silent(over); !slices.Contains(silent, "device/gpu-0") {
			t.Errorf("silent: %v", silent)
		}
	}
	close(s.leave)
	if silent := h.Silent(long); len(silent) != 0 {
		t.Errorf("still silent: %v", silent)
	}
}
