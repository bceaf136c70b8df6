package actors_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// What one node has seen, the next one tells; the time between them is a gap.
func TestHistoryOutlivesTheNode(t *testing.T) {
	_, world := heirs()
	first := openTimed(t, nil, world)
	for range 30 {
		g := first.allocate(schemas.AllocateRequest{SizeBytes: 64 * mib})
		first.pass(time.Second)
		first.deallocate(g.AllocationID)
	}
	first.allocate(schemas.AllocateRequest{SizeBytes: 32 * mib, Class: schemas.ClassState, Persistent: true})
	first.pass(time.Second)
	before := first.analytics(schemas.AnalyticsRequest{ResolutionSeconds: ptr[int64](1)})
	first.close()
	first.clock.Advance(5 * time.Minute)

	next := openTimed(t, first, world)
	next.pass(time.Second)
	after := next.analytics(schemas.AnalyticsRequest{ResolutionSeconds: ptr[int64](1)})
	if n := len(before.Series); n < 31 || len(after.Series) != n+1 || !slices.Equal(after.Series[:n], before.Series) {
		t.Fatalf("%d points, then %d", n, len(after.Series))
	}
	if len(before.Gaps) != 0 || len(after.Gaps) != 1 || after.Gaps[0].To.Sub(after.Gaps[0].From) != 5*time.Minute {
		t.Errorf("gaps %+v, then %+v", before.Gaps, after.Gaps)
	}
	is(t, "grants", after.Percentiles.Grant.Count, before.Percentiles.Grant.Count)
	is(t, "peak", after.Peaks[0], before.Peaks[0])
	if a, b := after.Rates.GrantsPerSecond, before.Rates.GrantsPerSecond; a < b*.9 || a > b {
		t.Errorf("%v grants a second, then %v: the time without a node counts", b, a)
	}
	if last := after.Series[len(after.Series)-1]; last.UsedMemory != 32*mib {
		t.Errorf("last %+v", last)
	}
}

// A history that cannot be read begins anew, and the log says so once.
func TestAHistoryThatCannotBeReadBeginsAnew(t *testing.T) {
	first := openTimed(t, nil)
	first.pass(time.Second)
	first.close()
	first.ledger["history"][3] ^= 1
	var log bytes.Buffer
	next := openTimed(t, first, func(c *actors.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	next.pass(time.Second)
	if r := next.analytics(schemas.AnalyticsRequest{}); len(r.Series) != 1 || len(r.Gaps) != 0 {
		t.Errorf("%d points, gaps %v", len(r.Series), r.Gaps)
	}
	next.close()
	if n := strings.Count(log.String(), "the history of an earlier node is lost"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
}

// What outlives its owner is suspected when nobody has used it for a quarter of an hour.
func TestWhatOutlivesItsOwnerIsSuspected(t *testing.T) {
	_, world := heirs()
	h := openTimed(t, nil, world)
	conn := &socket{make(chan struct{})}
	w, err := h.helloOn(conn, dataplane.Hello{Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	kept := h.allocate(schemas.AllocateRequest{SizeBytes: 64 * mib, SessionID: w.SessionID, Class: schemas.ClassState, Persistent: true})
	h.allocate(schemas.AllocateRequest{SizeBytes: 16 * mib, Class: schemas.ClassState, Persistent: true}) // of nobody who could go
	h.pass(20 * time.Minute)
	if r := h.analytics(schemas.AnalyticsRequest{}); len(r.LeakSuspects) != 0 {
		t.Fatalf("while its owner lives: %+v", r.LeakSuspects)
	}
	h.DataDesk(func() string { return "" }).Ended(w.SessionID, conn)
	h.pass(time.Second)
	r := h.analytics(schemas.AnalyticsRequest{})
	if len(r.LeakSuspects) != 1 {
		t.Fatalf("suspects %+v", r.LeakSuspects)
	}
	s := r.LeakSuspects[0]
	if s.Kind != schemas.LeakOwnerGone || s.Bytes != 64*mib || s.Allocations != 1 || s.AgeSeconds != 1201 || s.OldestUnusedSeconds != 1201 || !slices.Equal(s.AllocationIDs, []string{kept.AllocationID}) ||
		!strings.Contains(s.Reason, "session that they were made for has ended") || s.Fix == "" {
		t.Errorf("suspect %+v", s)
	}
	// The next node knows it too; to it the session's process is one that may be gone.
	h.close()
	h = openTimed(t, h, world)
	h.pass(time.Second)
	if r := h.analytics(schemas.AnalyticsRequest{}); len(r.LeakSuspects) != 1 || r.LeakSuspects[0].Kind != schemas.LeakOwnerGone {
		t.Fatalf("suspects of the next node %+v", r.LeakSuspects)
	}
	if rec, _ := h.apply("leak_suspect"); rec.ExpectedBytes != 64*mib || !strings.Contains(rec.Reason, "has ended") {
		t.Errorf("recommended %+v", rec)
	}
}

// What a tenant holds that is not configured any more is suspected, its models too.
func TestWhatATenantLeftBehindIsSuspected(t *testing.T) {
	_, world := heirs()
	first := openTimed(t, nil, world)
	if a := <-first.send(&actors.Command{Action: schemas.ActionAllocate, Tenant: "blue", RequestID: "r", Data: &schemas.AllocateRequest{SizeBytes: 16 * mib, Class: schemas.ClassState, Persistent: true}}); a.err != nil {
		t.Fatal(a.err)
	}
	path := filepath.Join(first.roots, "m.safetensors")
	if err := weightstest.Sized(mib, 1).WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	if a := <-first.send(&actors.Command{Action: schemas.ActionLoadModel, Tenant: "blue", RequestID: "r2", Data: &schemas.LoadModelRequest{Name: "m", Path: path}}); a.err != nil {
		t.Fatal(a.err)
	}
	first.pass(16 * time.Minute)
	if r := first.analytics(schemas.AnalyticsRequest{}); len(r.LeakSuspects) != 0 {
		t.Fatalf("while there is a tenant blue: %+v", r.LeakSuspects)
	}
	first.close()
	next := openTimed(t, first, world, func(c *actors.Config) { c.Tenants = []string{schemas.DefaultTenant, "red"} })
	next.pass(time.Second)
	r := next.analytics(schemas.AnalyticsRequest{})
	if len(r.LeakSuspects) != 2 || r.LeakSuspects[0].Bytes != 16*mib || r.LeakSuspects[1].Owner != "model m" {
		t.Fatalf("suspects %+v", r.LeakSuspects)
	}
	for _, s := range r.LeakSuspects {
		if s.Kind != schemas.LeakOwnerGone || !strings.Contains(s.Reason, "tenant blue is not configured") {
			t.Errorf("suspect %+v", s)
		}
	}
}
