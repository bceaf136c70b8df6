package actors_test

import (
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/eviction/replay"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// What is said of the present limit is what was seen; more memory saves, less costs, and the
// next node says the same.
func TestWhatIf(t *testing.T) {
	trace, bound := small(t, 150)
	waits := map[int]time.Duration{}
	if _, err := trace.Follow(bound, eviction.NewPanel(), func(request int, waited time.Duration, _ eviction.Plan) { waits[request] = waited }); err != nil {
		t.Fatal(err)
	}
	var slow *paced
	_, world := heirs()
	device := func(c *actors.Config) {
		manual := c.Clock.(*clock.Manual)
		d, err := sim.New(sim.Config{ID: "gpu-0", Bytes: bound.Capacity, Clock: manual})
		if err != nil {
			t.Fatal(err)
		}
		slow = &paced{Driver: d, clock: manual}
		c.Devices = []actors.DeviceConfig{{Driver: slow, ReliefOff: true}}
	}
	h := openTimed(t, nil, world, device)
	if r := h.analytics(schemas.AnalyticsRequest{}); r.WhatIf == nil || len(r.WhatIf) != 0 || len(r.ModelRequests) != 0 {
		t.Fatalf("of nothing: %+v", r)
	}
	objects := trace.Assignments[0].Costs[replay.Measured]
	written := map[int]bool{} // a file written anew would be a new version
	for n, needs := range trace.Requests {
		o := objects[needs[0]]
		path := filepath.Join(h.roots, o.Key+".safetensors")
		if !written[needs[0]] {
			written[needs[0]] = true
			if err := weightstest.Sized(o.Bytes, uint64(needs[0])).WriteSafetensors(path); err != nil {
				t.Fatal(err)
			}
		}
		h.clock.Advance(time.Second)
		slow.next.Store(int64(o.Cost * float64(time.Second)))
		if a := h.outwait(waits[n], &actors.Command{Action: schemas.ActionLoadModel, RequestID: "r", Wait: time.Hour,
			Data: &schemas.LoadModelRequest{Name: o.Key, Path: path, TimeoutSeconds: ptr[int64](120)}}); a.err != nil {
			t.Fatal(n, a.err)
		}
		slow.next.Store(0)
	}
	h.pass(20 * time.Second)
	r := h.analytics(schemas.AnalyticsRequest{})
	if len(r.ModelRequests) != 1 || len(r.WhatIf) != 7 {
		t.Fatalf("%+v, %+v", r.ModelRequests, r.WhatIf)
	}
	seen := r.ModelRequests[0]
	if seen.Requests != 150 || seen.Loads < 20 || seen.DeviceID != "gpu-0" || !seen.To.After(seen.From) || math.Abs(seen.HitRate-r.ModelHitRate) > 1e-9 {
		t.Errorf("seen %+v, hit rate %v", seen, r.ModelHitRate)
	}
	for i, w := range r.WhatIf {
		t.Logf("%+v", w)
		switch {
		case w.Requests != seen.Requests || w.LimitBytes != bound.Capacity+w.DeltaBytes:
			t.Errorf("row %+v", w)
		case w.DeltaBytes == 0 && (w.Loads != seen.Loads || w.HitRate != seen.HitRate || math.Abs(w.ReloadSeconds-seen.ReloadSeconds) > .001 || w.SavedSeconds != 0 || w.ModelBytes != bound.Capacity):
			t.Errorf("the present limit: %+v, seen %+v", w, seen)
		case i > 0 && w.ReloadSeconds > 1.1*r.WhatIf[i-1].ReloadSeconds:
			t.Errorf("%+v is much worse than with less", w)
		}
	}
	if first, last := r.WhatIf[0], r.WhatIf[6]; first.SavedSeconds >= 0 || last.SavedSeconds <= 0 || last.DeltaBytes != bound.Capacity {
		t.Errorf("half costs %+v, twice saves %+v", first, last)
	}
	a := <-h.send(&actors.Command{Action: schemas.ActionAnalytics, Tenant: "blue", Role: schemas.RoleClient, RequestID: "r", Data: &schemas.AnalyticsRequest{}})
	if x := a.data.(*schemas.AnalyticsReply); len(x.WhatIf)+len(x.ModelRequests) != 0 {
		t.Errorf("blue sees %+v", x.WhatIf)
	}
	h.close()
	h = openTimed(t, h, world, device)
	h.pass(time.Second)
	next := h.analytics(schemas.AnalyticsRequest{})
	if len(next.WhatIf) != 7 || next.WhatIf[3] != r.WhatIf[3] || next.ModelRequests[0] != seen {
		t.Errorf("the next node says %+v, seen %+v", next.WhatIf, next.ModelRequests)
	}
}

// Handles are no requests, what clients unload is not held against a size, and pressure is
// heeded.
func TestWhatIfHeedsPressureAndClients(t *testing.T) {
	h, load := shop(t)
	names := []string{"a", "b", "c", "d", "e"}
	for _, name := range names {
		load(name, false)
		h.pass(time.Second)
	}
	call[*schemas.GetHandleReply](t, h.house, schemas.ActionGetHandle, &schemas.GetHandleRequest{ModelName: "a"})
	call[*schemas.UnloadModelReply](t, h.house, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "a"})
	call[*schemas.LoadModelReply](t, h.house, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "a"})
	call[*schemas.AcquireModelReply](t, h.house, schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: "b", LeaseSeconds: ptr[int64](60)})
	h.pass(time.Second)
	r := h.analytics(schemas.AnalyticsRequest{})
	if len(r.ModelRequests) != 1 || r.ModelRequests[0].Requests != 7 || r.ModelRequests[0].Loads != 6 || r.ModelRequests[0].Models != 5 {
		t.Fatalf("seen %+v", r.ModelRequests)
	}
	for _, w := range r.WhatIf {
		if w.Loads != 6 || w.SavedSeconds != 0 || w.Unserved != 0 {
			t.Errorf("%+v", w)
		}
	}
	// With three quarters of the device held by others, and pressure from 85 % on, half of it
	// leaves nothing at all.
	h.allocate(schemas.AllocateRequest{SizeBytes: 768 * mib, Class: schemas.ClassState, Persistent: true})
	for range 60 {
		h.pass(time.Minute)
	}
	r = h.analytics(schemas.AnalyticsRequest{})
	if len(r.WhatIf) != 5 && len(r.WhatIf) != 6 {
		t.Errorf("%d rows", len(r.WhatIf))
	}
	for _, w := range r.WhatIf {
		if room := w.LimitBytes - w.ModelBytes; room < 740*mib || room > 768*mib {
			t.Errorf("others hold %d MiB of %+v", room/mib, w)
		}
	}
}
