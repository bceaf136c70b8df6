package actors_test

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
	"github.com/isobar-project/isobar/weights"
)

// timed is a house whose time moves only when a test says so.
type timed struct {
	*house
	roots  string
	t      *testing.T
	clock  *clock.Manual
	ledger map[string][]byte
}

// openTimed opens a house with one simulated device of 1 GiB. With before it takes over
// from that one, which must be closed. What the house needs of the world can be changed.
func openTimed(t *testing.T, before *timed, change ...func(*actors.Config)) *timed {
	t.Helper()
	h := &timed{t: t, clock: clock.NewManual(clock.Instant(time.Hour), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), ledger: map[string][]byte{}}
	if before != nil {
		h.clock, h.ledger = before.clock, before.ledger
	}
	d, err := sim.New(sim.Config{ID: "gpu-0", Bytes: 1 << 30, Clock: h.clock})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if before != nil {
		dir = before.roots
	}
	roots, err := weights.NewRoots(dir)
	if err != nil {
		t.Fatal(err)
	}
	fresh := memory(t)
	ev := &events{wake: make(chan struct{}, 1)}
	cfg := actors.Config{Node: "test", BootID: "boot", DataSocket: "/nowhere", Publisher: ev, Keeper: vault.Off(), Roots: roots, Clock: h.clock,
		Find: func(pid int, _ uint64) (*os.File, error) { return pidfd(pid) },
		Memory: func(actor string) ([]byte, bool, error) {
			if mem, ok := h.ledger[actor]; ok {
				return mem, true, nil
			}
			mem, _, err := fresh(actor)
			h.ledger[actor] = mem
			return mem, false, err
		},
		Devices: []actors.DeviceConfig{{Driver: d}},
	}
	for _, f := range change {
		f(&cfg)
	}
	if cfg.Watch == nil {
		w, err := fdwire.NewWatcher()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		cfg.Watch = w.Watch
	}
	inner, err := actors.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.house, h.roots = &house{House: inner, events: ev, roots: dir}, dir
	t.Cleanup(h.close)
	h.pass(0)
	return h
}

func (h *timed) close() {
	if h.house == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		h.t.Error(err)
	}
	h.house = nil
}

func pidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.ErrProcessDone
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// pass lets time pass and waits until every actor has done what fell due: each is asked
// something, twice around, and answers behind what it was told before.
func (h *timed) pass(d time.Duration) {
	h.t.Helper()
	h.clock.Advance(d)
	for range 3 {
		<-h.send(&actors.Command{Action: schemas.ActionGetOperation, Data: &schemas.GetOperationRequest{OperationID: "none"}, RequestID: "r"})
		<-h.send(&actors.Command{Action: schemas.ActionModelStatus, Data: &schemas.ModelStatusRequest{}, RequestID: "r"})
		<-h.send(&actors.Command{Action: schemas.ActionGetStatus, Data: &schemas.GetStatusRequest{DeviceID: "gpu-0"}, RequestID: "r"})
		<-h.send(&actors.Command{Action: schemas.ActionGetPressure, Data: &schemas.GetPressureRequest{DeviceID: "gpu-0"}, RequestID: "r"})
	}
}

func (h *timed) allocate(in schemas.AllocateRequest) *schemas.AllocateReply {
	h.t.Helper()
	return call[*schemas.AllocateReply](h.t, h.house, schemas.ActionAllocate, &in)
}

func (h *timed) deallocate(id string) {
	h.t.Helper()
	call[*schemas.DeallocateReply](h.t, h.house, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id})
}

// there reports whether a grant still exists.
func (h *timed) there(id string) bool {
	h.t.Helper()
	a := <-h.send(&actors.Command{Action: schemas.ActionGetAllocation, Data: &schemas.GetAllocationRequest{AllocationID: id}, RequestID: "r"})
	if a.err != nil && a.err.Code != schemas.CodeAllocationNotFound {
		h.t.Fatal(a.err)
	}
	return a.err == nil
}

func (h *timed) level() schemas.PressureLevel {
	h.t.Helper()
	return call[*schemas.GetPressureReply](h.t, h.house, schemas.ActionGetPressure, &schemas.GetPressureRequest{DeviceID: "gpu-0"}).Pressure.PressureLevel
}

// item finds an allocation event.
func (h *timed) item(kind schemas.EventKind, id string) schemas.AllocationItem {
	h.t.Helper()
	var found schemas.AllocationItem
	h.events.await(h.t, string(kind)+" of "+id, func(e schemas.Event) bool {
		b, ok := e.Data.(*schemas.AllocationBatch)
		if !ok {
			return false
		}
		for _, i := range b.Items {
			if i.Event == kind && (id == "" || i.AllocationID == id) {
				found = i
				return true
			}
		}
		return false
	})
	return found
}

func ptr[T any](v T) *T { return &v }

func TestLeaseRunsOutToTheSecond(t *testing.T) {
	h := openTimed(t, nil)
	short := h.allocate(schemas.AllocateRequest{SizeBytes: 4 * mib, LeaseSeconds: ptr[int64](60)})
	renewed := h.allocate(schemas.AllocateRequest{SizeBytes: 4 * mib, LeaseSeconds: ptr[int64](60)})
	state := h.allocate(schemas.AllocateRequest{SizeBytes: 4 * mib, LeaseSeconds: ptr[int64](60), Class: schemas.ClassState, Persistent: true})
	if want := h.clock.Wall().Add(time.Minute); !short.Allocation.LeaseExpiresAt.Equal(want) {
		t.Fatalf("the lease ends at %v, not %v", short.Allocation.LeaseExpiresAt, want)
	}
	h.pass(59 * time.Second)
	r := call[*schemas.RenewReply](t, h.house, schemas.ActionRenew, &schemas.RenewRequest{AllocationIDs: []string{renewed.AllocationID}, LeaseSeconds: 60})
	if want := h.clock.Wall().Add(time.Minute); !r.Renewed[0].LeaseExpiresAt.Equal(want) {
		t.Fatalf("renewed until %v, not %v", r.Renewed[0].LeaseExpiresAt, want)
	}
	if !h.there(short.AllocationID) {
		t.Fatal("the lease ran out a second early")
	}
	h.pass(time.Second)
	if i := h.item(schemas.EventExpired, short.AllocationID); i.Reason != "its lease ran out" {
		t.Fatalf("expired: %+v", i)
	}
	if h.there(short.AllocationID) || !h.there(renewed.AllocationID) {
		t.Fatal("after a minute the wrong grant is there")
	}
	h.pass(time.Hour)
	if h.there(renewed.AllocationID) || !h.there(state.AllocationID) {
		t.Fatal("a persistent grant outlives its lease, another does not")
	}
}

func TestLevelFallsAfterItsDwell(t *testing.T) {
	for _, c := range []struct {
		bytes int64
		level schemas.PressureLevel
		falls []time.Duration // from one level to the next
	}{
		{750 * mib, "moderate", []time.Duration{3 * time.Second}},
		{900 * mib, "high", []time.Duration{3 * time.Second, 3 * time.Second}},
		{1000 * mib, "critical", []time.Duration{10 * time.Second, 3 * time.Second, 3 * time.Second}},
	} {
		h := openTimed(t, nil)
		g := h.allocate(schemas.AllocateRequest{SizeBytes: c.bytes})
		h.pass(0)
		if l := h.level(); l != c.level {
			t.Fatalf("%d MiB of 1 GiB are %s, not %s", c.bytes/mib, l, c.level)
		}
		h.pass(time.Minute) // used all the time: it does not fall
		h.deallocate(g.AllocationID)
		h.pass(0)
		levels := []schemas.PressureLevel{"low", "moderate", "high", "critical"}
		for i, d := range c.falls {
			from, to := levels[len(c.falls)-i], levels[len(c.falls)-i-1]
			h.pass(d - time.Millisecond)
			if l := h.level(); l != from {
				t.Fatalf("from %s: fallen to %s a millisecond early", from, l)
			}
			h.pass(time.Millisecond)
			if l := h.level(); l != to {
				t.Fatalf("after its dwell %s is %s, not %s", from, l, to)
			}
		}
	}
}

func TestReminderEachSecondWhileRequestsStarve(t *testing.T) {
	h := openTimed(t, nil)
	h.allocate(schemas.AllocateRequest{SizeBytes: 1024 * mib})
	h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "starving", Wait: time.Hour,
		Data: &schemas.AllocateRequest{SizeBytes: 8 * mib, TimeoutSeconds: ptr[int64](3600)}})
	h.pass(0)
	for n := uint64(1); n <= 3; n++ {
		h.pass(time.Second)
		e := h.events.await(t, "a reminder", func(e schemas.Event) bool {
			p, ok := e.Data.(*schemas.Pressure)
			return ok && e.Event == schemas.EventPressureReminder && p.ReminderSequence == n
		})
		if p := e.Data.(*schemas.Pressure); p.DeficitBytes != 8*mib || p.PressureLevel != "critical" || p.Sequence == 0 || p.UsedMemory != 1024*mib {
			t.Fatalf("reminder %+v", p)
		}
	}
}

func TestQueueDeadlineToTheSecond(t *testing.T) {
	h := openTimed(t, nil)
	h.allocate(schemas.AllocateRequest{SizeBytes: 1024 * mib})
	r := h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "q", Wait: time.Hour, Data: &schemas.AllocateRequest{SizeBytes: 8 * mib, TimeoutSeconds: ptr[int64](30)}})
	h.pass(0)
	h.pass(30*time.Second - 1)
	if len(r) != 0 {
		t.Fatalf("answered early: %+v", <-r)
	}
	h.pass(1)
	if a := <-r; a.err == nil || a.err.Code != schemas.CodeOutOfMemory || a.err.Details["shortfall_bytes"] != int64(8*mib) {
		t.Fatalf("answered %+v", a)
	}
}

// queued fills the device, queues a request whose client is told so after a second, and
// makes room.
func (h *timed) queued(id string) string {
	h.t.Helper()
	all := h.allocate(schemas.AllocateRequest{SizeBytes: 1024 * mib})
	r := h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: id, Chosen: true, Wait: time.Second,
		Data: &schemas.AllocateRequest{SizeBytes: 8 * mib, TimeoutSeconds: ptr[int64](30)}})
	h.pass(0) // its timers are set
	h.pass(time.Second)
	p, ok := (<-r).data.(*schemas.Pending)
	if !ok || p.Status != schemas.StatusQueued || p.Position != 1 {
		h.t.Fatalf("pending %+v", p)
	}
	h.deallocate(all.AllocationID)
	h.events.await(h.t, "the queued grant", func(e schemas.Event) bool {
		b, ok := e.Data.(*schemas.AllocationBatch)
		return ok && b.Items[0].Event == schemas.EventAllocated && b.Items[0].RequestID == id
	})
	h.pass(0)
	return p.OperationID
}

func TestQueuedGrantIsTakenBackAfterAMinute(t *testing.T) {
	h := openTimed(t, nil)
	op := h.queued("never fetched")
	used := func() int64 {
		return call[*schemas.GetStatusReply](t, h.house, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: "gpu-0"}).MemoryInfo.UsedMemory
	}
	h.pass(59 * time.Second)
	if used() != 8*mib {
		t.Fatal("taken back early")
	}
	h.pass(time.Second)
	if i := h.item(schemas.EventExpired, ""); i.GrantedBytes != 8*mib || used() != 0 {
		t.Fatalf("expired %+v, used %d", i, used())
	}
	r := call[*schemas.GetOperationReply](t, h.house, schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: op})
	if r.Operation.Status != schemas.StatusFailed || r.Operation.Error.ErrorCode != schemas.CodeStaleHandle {
		t.Fatalf("operation %+v", r.Operation)
	}
}

func TestFetchedGrantStays(t *testing.T) {
	h := openTimed(t, nil)
	op := h.queued("fetched")
	h.pass(59 * time.Second)
	r := call[*schemas.GetOperationReply](t, h.house, schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: op})
	g, ok := r.Operation.Result.(*schemas.AllocateReply)
	if !ok || g.Handle == nil || !g.Handle.ClaimExpiresAt.Equal(h.clock.Wall().Add(time.Minute)) {
		t.Fatalf("operation %+v", r.Operation)
	}
	h.pass(time.Hour)
	if !h.there(g.AllocationID) {
		t.Fatal("a grant that was fetched was taken back")
	}
}

func TestOutcomesAreRememberedForTenMinutes(t *testing.T) {
	h := openTimed(t, nil)
	ask := func() *schemas.AllocateReply {
		a := <-h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "once", Chosen: true, Digest: [32]byte{1}, Data: &schemas.AllocateRequest{SizeBytes: 4 * mib}})
		if a.err != nil {
			t.Fatal(a.err)
		}
		return a.data.(*schemas.AllocateReply)
	}
	first := ask()
	h.pass(10*time.Minute - time.Second)
	if r := ask(); !r.Replayed || r.AllocationID != first.AllocationID || r.Handle == nil {
		t.Fatalf("after ten minutes %+v", r)
	}
	a := <-h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "once", Chosen: true, Digest: [32]byte{2}, Data: &schemas.AllocateRequest{SizeBytes: 8 * mib}})
	if a.err == nil || a.err.Code != schemas.CodeRequestIDReused {
		t.Fatalf("other content: %+v", a)
	}
	for range 3 { // the housekeeping comes every few seconds
		h.pass(5 * time.Second)
	}
	if r := ask(); r.Replayed || r.AllocationID == first.AllocationID {
		t.Fatalf("after more than ten minutes %+v", r)
	}
}

// socket stands for a session's connection.
type socket struct{ closed chan struct{} }

func (s *socket) Revoke(string, time.Duration, string) {}
func (s *socket) Close()                               { close(s.closed) }

// hello opens or resumes a session of this process.
func (h *timed) hello(m dataplane.Hello) (dataplane.Welcome, error) {
	h.t.Helper()
	return h.helloOn(&socket{make(chan struct{})}, m)
}

// helloOn is hello on a connection of the test's own.
func (h *timed) helloOn(conn dataplane.Conn, m dataplane.Hello) (dataplane.Welcome, error) {
	h.t.Helper()
	start, err := fdwire.StartTime(os.Getpid())
	if err != nil {
		h.t.Fatal(err)
	}
	fd, err := pidfd(os.Getpid())
	if err != nil {
		h.t.Fatal(err)
	}
	type end struct {
		w   dataplane.Welcome
		err error
	}
	done := make(chan end, 1)
	desk := h.DataDesk(func() string { return "nats://here" })
	desk.Hello(fdwire.Peer{PID: os.Getpid(), UID: uint32(os.Getuid()), StartTime: start, PidFD: fd}, m, conn,
		func(w dataplane.Welcome, err error) {
			if l, ok := conn.(*listener); ok {
				l.hears("welcome")
			}
			done <- end{w, err}
		})
	e := <-done
	return e.w, e.err
}

// mapped redeems a claim for a single segment and returns the client's descriptor.
func (h *timed) mapped(session, claim string) *os.File {
	h.t.Helper()
	files := make(chan *os.File, 1)
	h.DataDesk(func() string { return "" }).Map(session, claim, dataplane.ReadWrite, func(m *dataplane.Mapping, err error) {
		if err != nil {
			h.t.Error(err)
			files <- nil
			return
		}
		files <- m.Segments[0].File
	})
	return <-files
}

func (h *timed) unmap(session, id string) {
	h.t.Helper()
	done := make(chan error, 1)
	h.DataDesk(func() string { return "" }).Unmap(session, id, func(err error) { done <- err })
	if err := <-done; err != nil {
		h.t.Error(err)
	}
}

// After a take-over a session has half a minute to come back. What is bound to it is kept
// so long, and for good if it comes.
func TestSessionsAreWaitedForAfterATakeOver(t *testing.T) {
	for _, comes := range []bool{true, false} {
		first := openTimed(t, nil)
		w, err := first.hello(dataplane.Hello{Client: "test"})
		if err != nil {
			t.Fatal(err)
		}
		// A reservation has no memory that would have to outlive the house.
		g := first.allocate(schemas.AllocateRequest{SizeBytes: 8 * mib, Class: schemas.ClassReservation, SessionID: w.SessionID})
		first.close()
		h := openTimed(t, first)
		if r := h.Restored(); r.Grants != 1 || r.Sessions != 1 || r.GrantedBytes != 0 && r.GrantedBytes != 8*mib {
			t.Fatalf("restored %+v", r)
		}
		h.pass(29 * time.Second)
		if !h.there(g.AllocationID) {
			t.Fatal("its session was not waited for")
		}
		if comes {
			again, err := h.hello(dataplane.Hello{Client: "test", SessionID: w.SessionID, ResumeToken: w.ResumeToken})
			if err != nil || !again.Resumed || again.SessionID != w.SessionID {
				t.Fatalf("resumed %+v, %v", again, err)
			}
		}
		for range 3 {
			h.pass(5 * time.Second)
		}
		if h.there(g.AllocationID) != comes {
			t.Fatalf("the session comes back: %v; its grant is there: %v", comes, !comes)
		}
		h.close()
	}
}

func TestResumeNeedsTheToken(t *testing.T) {
	h := openTimed(t, nil)
	w, err := h.hello(dataplane.Hello{Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.hello(dataplane.Hello{Client: "thief", SessionID: w.SessionID, ResumeToken: "guessed"}); err == nil {
		t.Fatal("resumed without the token")
	}
}

func TestClaimExpiresAfterAMinute(t *testing.T) {
	h := openTimed(t, nil)
	w, err := h.hello(dataplane.Hello{Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	redeem := func(claim string) error {
		done := make(chan error, 1)
		h.DataDesk(func() string { return "" }).Map(w.SessionID, claim, dataplane.ReadWrite, func(m *dataplane.Mapping, err error) {
			if m != nil {
				for _, s := range m.Segments {
					s.File.Close()
				}
			}
			done <- err
		})
		return <-done
	}
	g := h.allocate(schemas.AllocateRequest{SizeBytes: 4 * mib})
	h.pass(time.Minute)
	if err := redeem(g.Handle.Claim); err == nil {
		t.Fatal("a claim was redeemed after a minute")
	}
	fresh := call[*schemas.GetHandleReply](t, h.house, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: g.AllocationID})
	h.pass(59 * time.Second)
	if err := redeem(fresh.Handle.Claim); err != nil {
		t.Fatal(err)
	}
	if err := redeem(fresh.Handle.Claim); err == nil {
		t.Fatal("a claim was redeemed twice")
	}
}
