package actors_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

func (h *timed) analytics(in schemas.AnalyticsRequest) *schemas.AnalyticsReply {
	h.t.Helper()
	return call[*schemas.AnalyticsReply](h.t, h.house, schemas.ActionAnalytics, &in)
}

func TestAnalyticsTellsWhatHappened(t *testing.T) {
	h := openTimed(t, nil)
	var last string
	for i := range 10 {
		if last != "" {
			h.deallocate(last)
		}
		last = h.allocate(schemas.AllocateRequest{SizeBytes: int64(i+1) * 64 * mib, Purpose: "batch"}).AllocationID
		h.pass(time.Second)
	}
	h.deallocate(last)
	h.pass(time.Second)
	if a := <-h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "r", Data: &schemas.AllocateRequest{SizeBytes: 2 << 30}}); a.err == nil {
		t.Fatal("2 GiB of 1 were granted")
	}
	h.pass(time.Second)
	r := h.analytics(schemas.AnalyticsRequest{WindowSeconds: ptr[int64](60), ResolutionSeconds: ptr[int64](1)})
	if len(r.Series) < 11 || len(r.Peaks) != 1 || r.Peaks[0].UsedMemory != 640*mib || r.Peaks[0].DeviceID != "gpu-0" {
		t.Fatalf("%d points, peaks %+v", len(r.Series), r.Peaks)
	}
	for i, p := range r.Series {
		if i > 0 && !p.Timestamp.After(r.Series[i-1].Timestamp) || p.UsedMemory+p.AvailableMemory != 1<<30 {
			t.Errorf("point %d: %+v", i, p)
		}
	}
	span := r.Series[len(r.Series)-1].Timestamp.Sub(r.Series[0].Timestamp).Seconds() + 1
	if got := r.Rates.GrantsPerSecond * span; got < 9.9 || got > 10.1 || r.Rates.GrantsPerSecond != r.Rates.ReleasesPerSecond || r.Rates.RefusalsPerSecond <= 0 {
		t.Errorf("rates %+v over %v s", r.Rates, span)
	}
	if p := r.Percentiles.Grant; p.Count != 10 || p.P50Ms > p.P99Ms || p.P99Ms > p.MaxMs {
		t.Errorf("percentiles %+v", r.Percentiles)
	}
	if r = h.analytics(schemas.AnalyticsRequest{WindowSeconds: ptr[int64](60), ResolutionSeconds: ptr[int64](60)}); len(r.Series) > 2 {
		t.Errorf("a minute by the minute has %d points", len(r.Series))
	}
	a := <-h.send(&actors.Command{Action: schemas.ActionAnalytics, RequestID: "r", Data: &schemas.AnalyticsRequest{DeviceID: "gpu-9"}})
	if a.err == nil || a.err.Code != schemas.CodeInvalidDevice {
		t.Errorf("of no device: %+v", a)
	}
}

func TestAnalyticsNamesLeaks(t *testing.T) {
	h := openTimed(t, nil)
	h.allocate(schemas.AllocateRequest{SizeBytes: 64 * mib, Purpose: "forgotten"})
	h.allocate(schemas.AllocateRequest{SizeBytes: 32 * mib, Purpose: "kept", Class: schemas.ClassState, Persistent: true})
	if a := <-h.send(&actors.Command{Action: schemas.ActionAllocate, Tenant: "blue", RequestID: "r", Data: &schemas.AllocateRequest{SizeBytes: 16 * mib, Purpose: "hidden"}}); a.err != nil {
		t.Fatal(a.err)
	}
	h.pass(14 * time.Minute)
	if r := h.analytics(schemas.AnalyticsRequest{}); len(r.LeakSuspects) != 0 {
		t.Fatalf("after 14 minutes: %+v", r.LeakSuspects)
	}
	h.pass(2 * time.Minute)
	r := h.analytics(schemas.AnalyticsRequest{})
	if len(r.LeakSuspects) != 2 || r.LeakSuspects[0].Bytes != 64*mib || r.LeakSuspects[0].OldestUnusedSeconds != 960 || r.LeakSuspects[0].Owner != "forgotten of tenant default" {
		t.Fatalf("suspects %+v", r.LeakSuspects)
	}
	if len(r.TopHolders) != 3 || r.TopHolders[0].Bytes != 64*mib {
		t.Fatalf("holders %+v", r.TopHolders)
	}
	a := <-h.send(&actors.Command{Action: schemas.ActionAnalytics, Tenant: "blue", Role: schemas.RoleClient, RequestID: "r", Data: &schemas.AnalyticsRequest{}})
	theirs := a.data.(*schemas.AnalyticsReply)
	if len(theirs.LeakSuspects) != 1 || theirs.LeakSuspects[0].Bytes != 16*mib || len(theirs.TopHolders) != 2 || theirs.TopHolders[0].Owner != "everybody else" {
		t.Fatalf("blue sees %+v, %+v", theirs.LeakSuspects, theirs.TopHolders)
	}
}

func TestAnalyticsCountsHitsAndLoads(t *testing.T) {
	h := stocked(t, "a", "b")
	for range 6 {
		call[*schemas.LoadModelReply](t, h, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "a"})
	}
	r := call[*schemas.AnalyticsReply](t, h, schemas.ActionAnalytics, &schemas.AnalyticsRequest{})
	is(t, "hit rate", r.ModelHitRate, 0.75)
	is(t, "loads", r.Percentiles.Load.Count, int64(2))
	if r.Percentiles.Load.MaxMs <= 0 {
		t.Errorf("loads took %+v", r.Percentiles.Load)
	}
}

// Who holds a little of each device may hold the most of all: the ranking is that of a plain sum.
func TestTopHoldersOfAllDevices(t *testing.T) {
	h := open(t, gpu(t, "gpu-0", 1<<30), gpu(t, "gpu-1", 1<<30))
	sums := map[string]int64{}
	hold := func(device, purpose string, bytes int64) {
		g := call[*schemas.AllocateReply](t, h, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: device, SizeBytes: bytes, Purpose: purpose})
		sums[purpose+" of tenant default"] += g.Allocation.GrantedBytes
	}
	for i := range int64(12) {
		hold("gpu-0", fmt.Sprintf("left-%02d", i), (20+i)*mib)
		hold("gpu-1", fmt.Sprintf("right-%02d", i), (20+i)*mib)
	}
	for range 2 {
		hold("gpu-0", "everywhere", 9*mib)
		hold("gpu-1", "everywhere", 9*mib)
	}
	var want []schemas.Holder
	for owner, bytes := range sums {
		want = append(want, schemas.Holder{Owner: owner, Bytes: bytes})
	}
	slices.SortFunc(want, func(a, b schemas.Holder) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Owner, b.Owner))
	})
	r := call[*schemas.AnalyticsReply](t, h, schemas.ActionAnalytics, &schemas.AnalyticsRequest{})
	if want[0].Owner != "everywhere of tenant default" || !slices.Equal(r.TopHolders, want[:10]) {
		t.Errorf("top holders %+v, not %+v", r.TopHolders, want[:10])
	}
}
