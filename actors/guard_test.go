package actors_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// reader is a device that a model is read into at 4 MiB a second of the clock's time.
type reader struct {
	device.Driver
	clock *clock.Manual
	// turns, if not nil, are those who would read: time passes for them when they are let.
	turns chan func()
}

func (r *reader) Fill(ctx context.Context, seg device.Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	done := make(chan struct{})
	turn := func() {
		r.clock.Advance(time.Duration(n) * time.Second / (4 * mib))
		close(done)
	}
	if r.turns == nil {
		turn()
	} else {
		r.turns <- turn
	}
	<-done
	return r.Driver.Fill(ctx, seg, off, f, fileOff, n)
}

// narrow is a house whose device holds one of the models that model writes, each of 4 MiB and
// a second's loading.
func narrow(t *testing.T, turns chan func(), change ...func(*actors.Config)) *timed {
	t.Helper()
	return openTimed(t, nil, append(change, func(c *actors.Config) {
		manual := c.Clock.(*clock.Manual)
		d, err := sim.New(sim.Config{ID: "gpu-0", Bytes: 6 * mib, Clock: manual})
		if err != nil {
			t.Fatal(err)
		}
		c.Devices = []actors.DeviceConfig{{Driver: &reader{d, manual, turns}, ReliefOff: true}}
	})...)
}

func (h *timed) written(name string) string {
	h.t.Helper()
	path := filepath.Join(h.roots, name+".safetensors")
	if _, err := os.Stat(path); err != nil {
		if err := weightstest.Sized(4*mib, 1).WriteSafetensors(path); err != nil {
			h.t.Fatal(err)
		}
	}
	return path
}

// wants sends a load of a model that waits for room for two minutes.
func (h *timed) wants(name string, priority int) reply {
	h.t.Helper()
	return h.send(&actors.Command{Action: schemas.ActionLoadModel, RequestID: "load-" + name, Wait: time.Hour,
		Data: &schemas.LoadModelRequest{Name: name, Path: h.written(name), Priority: priority, TimeoutSeconds: ptr[int64](120)}})
}

// queue is who waits for the device.
func (h *timed) queue() []schemas.Waiting {
	h.t.Helper()
	return call[*schemas.GetQueueReply](h.t, h.house, schemas.ActionGetQueue, &schemas.GetQueueRequest{DeviceID: "gpu-0"}).Waiting
}

// guarded waits until somebody waits for what was just loaded.
func (h *timed) guarded() schemas.Waiting {
	h.t.Helper()
	for late := time.After(20 * time.Second); ; {
		if q := h.queue(); len(q) > 0 && strings.Contains(q[0].WaitsFor, "just loaded") {
			return q[0]
		}
		select {
		case <-late:
			h.t.Fatalf("nobody waits for what was just loaded: %+v", h.queue())
		default:
		}
	}
}

func (h *timed) got(r reply) *schemas.LoadModelReply {
	h.t.Helper()
	select {
	case a := <-r:
		if a.err != nil {
			h.t.Fatal(a.err)
		}
		return a.data.(*schemas.LoadModelReply)
	case <-time.After(20 * time.Second):
		h.t.Fatalf("it still waits: %+v", h.queue())
		return nil
	}
}

// loader is a service that loads a model, maps it a moment later, works with it and lets go,
// again and again. A device that holds one model has two of them.
type loader struct {
	name    string
	session string
	reply   reply
	claim   string // to be redeemed
	grant   string // mapped
	asked   clock.Instant
	longest time.Duration
	served  int
	loads   int
	vain    int // loads whose model it could not map any more
	fresh   bool
}

// move does what the service does next, and reports whether there was anything to do.
func (l *loader) move(h *timed) bool {
	h.t.Helper()
	again := func() {
		l.asked, l.claim, l.grant = h.clock.Now(), "", ""
		l.reply = h.wants(l.name, 0)
	}
	switch {
	case l.grant != "":
		// It asks again a moment later: who waits for the memory has it first.
		h.unmap(l.session, l.grant)
		l.served++
		l.reply, l.claim, l.grant = nil, "", ""
	case l.claim != "":
		mapped := make(chan string, 1)
		h.DataDesk(func() string { return "" }).Map(l.session, l.claim, dataplane.ReadOnly, func(m *dataplane.Mapping, err error) {
			if err != nil {
				mapped <- ""
				return
			}
			for _, s := range m.Segments {
				s.File.Close()
			}
			mapped <- m.AllocationID
		})
		if l.grant = <-mapped; l.grant == "" {
			if l.fresh {
				l.vain++
			}
			again()
			return true
		}
		l.longest = max(l.longest, h.clock.Now().Sub(l.asked))
	case l.reply == nil:
		again()
	default:
		select {
		case a := <-l.reply:
			switch {
			case a.err == nil:
			case a.err.Code == schemas.CodeBusy: // it is just going
				l.reply = h.wants(l.name, 0)
				return false
			default:
				l.vain, l.loads = l.vain+1, l.loads+1 // it was gone before there was a claim
				again()
				return true
			}
			r := a.data.(*schemas.LoadModelReply)
			if l.claim, l.fresh = r.Handle.Claim, r.SourceTier == schemas.TierDisk; l.fresh {
				l.loads++
			}
		default:
			return false
		}
	}
	return true
}

// settle lets everything happen for which no time passes: afterwards whoever has asked is answered,
// or waits in line. Who would read does so, in its time, when nobody else is at anything: who is
// still on the way into the line would have stood there for that time.
func (h *timed) settle(turns chan func(), late <-chan time.Time, all ...*loader) {
	h.t.Helper()
	for {
		h.pass(0)
		asked := 0
		for _, l := range all {
			if l.reply != nil && l.claim == "" && l.grant == "" && len(l.reply) == 0 {
				asked++
			}
		}
		reading := len(turns) // before the queue: who goes from there to here is not counted twice
		waiting := len(h.queue())
		switch {
		case asked <= waiting:
			return
		case asked <= waiting+reading:
			(<-turns)()
		}
		select {
		case <-late:
			h.t.Fatalf("%+v, %+v", all, h.queue())
		default:
		}
	}
}

// alternate has two loaders work until both were served so often and there were turns enough, or
// models were loaded so often.
func alternate(t *testing.T, served, loads int, change ...func(*actors.Config)) (a, b *loader) {
	t.Helper()
	turns, over := make(chan func(), 4), make(chan struct{})
	t.Cleanup(func() { close(over) })
	h := narrow(t, turns, change...)
	a, b = &loader{name: "a"}, &loader{name: "b"}
	for _, l := range []*loader{a, b} {
		w, err := h.hello(dataplane.Hello{Client: l.name})
		if err != nil {
			h.t.Fatal(err)
		}
		l.session = w.SessionID
	}
	late := time.After(time.Minute)
	for (a.served < served || b.served < served || a.loads+b.loads < 6) && a.loads+b.loads < loads {
		h.settle(turns, late, a, b)
		moved := a.move(h)
		if moved = b.move(h) || moved || len(h.queue()) > 0; moved {
			h.clock.Advance(5 * time.Millisecond)
		}
	}
	go func() { // the house closes when nobody waits for a turn
		for {
			select {
			case turn := <-turns:
				turn()
			case <-over:
				return
			}
		}
	}()
	return a, b
}

// Two services load in turn what does not fit together. With the guard each works with what
// it loaded for as long as the loading took, and waits no longer than that for the other.
// Without it each has the other's model evicted before it was ever mapped.
func TestTwoLoadersTakeTurns(t *testing.T) {
	a, b := alternate(t, 40, 60)
	t.Logf("with the guard %d + %d loads, %d + %d served, longest waits %v and %v", a.loads, b.loads, a.served, b.served, a.longest, b.longest)
	for _, l := range []*loader{a, b} {
		// Its load, the other's, and as long as the other stays; and what the two do takes 5 ms each time.
		if most := 3*time.Second + 250*time.Millisecond; l.served < 40 || l.vain > 0 || l.longest > most {
			t.Errorf("with the guard: %+v", l)
		}
	}
	if loads := a.loads + b.loads; loads < 4 || loads > (a.served+b.served)/8 {
		t.Errorf("with the guard %d loads for %d uses", loads, a.served+b.served)
	}
	a, b = alternate(t, 40, 12, func(c *actors.Config) { c.GuardOff = true })
	t.Logf("without it %d + %d loads, %d + %d served, %d + %d in vain", a.loads, b.loads, a.served, b.served, a.vain, b.vain)
	if a.served+b.served > a.loads+b.loads {
		t.Errorf("without the guard: %+v, %+v: then what is it for?", a, b)
	}
}

// A request that waits for what was just loaded says so wherever one looks, is served the
// moment that the grace is over, and leaves nothing behind where it is given up.
func TestWhoWaitsForWhatWasJustLoadedIsTold(t *testing.T) {
	h := narrow(t, nil)
	h.got(h.wants("a", 0))
	h.pass(eviction.MinGrace)
	plan := func(data *schemas.LoadModelRequest) schemas.Plan {
		a := <-h.send(&actors.Command{Action: schemas.ActionLoadModel, RequestID: "dry", DryRun: true, Data: data})
		if a.err != nil {
			t.Fatal(a.err)
		}
		return a.data.(*schemas.DryRunReply).Plan
	}
	load := &schemas.LoadModelRequest{Name: "b", Path: h.written("b"), TimeoutSeconds: ptr[int64](120)}
	if p := plan(load); p.Outcome != schemas.PlanQueued || !strings.Contains(p.Reason, "model a was just loaded") || p.EstimatedMs != 750 || len(p.Evict) != 1 {
		t.Errorf("the dry run says %+v", p)
	}
	at := *load
	at.TimeoutSeconds = nil
	if p := plan(&at); p.Outcome != schemas.PlanRefused || len(p.Evict) != 0 {
		t.Errorf("the dry run of one that does not queue says %+v", p)
	}
	e := h.fails(schemas.CodeOutOfMemory, schemas.ActionLoadModel, &at)
	if e.Details["retry_after_ms"] != int64(750) || !strings.Contains(e.Message, "model a was just loaded") || !strings.Contains(e.Message, "higher priority") {
		t.Errorf("refused: %v %+v", e, e.Details)
	}

	before := h.queue()
	given := h.wants("b", 0)
	op := h.guarded().OperationID
	o := call[*schemas.GetOperationReply](t, h.house, schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: op}).Operation
	if !strings.Contains(o.Reason, "just loaded") || o.EstimatedMs < 750 || o.Position != 1 {
		t.Errorf("the operation is %+v", o)
	}
	call[*schemas.CancelOperationReply](t, h.house, schemas.ActionCancelOperation, &schemas.CancelOperationRequest{OperationID: op})
	if r := <-given; r.err == nil {
		t.Fatal("it was not given up")
	}
	h.pass(time.Minute)
	if q := h.queue(); len(q) != len(before) || len(h.lies("a")) != 1 {
		t.Errorf("after the cancellation %+v wait, a lies on %v", q, h.lies("a"))
	}

	h.got(h.wants("b", 0)) // a's grace is long over
	late := h.send(&actors.Command{Action: schemas.ActionLoadModel, RequestID: "late", Wait: time.Hour,
		Data: &schemas.LoadModelRequest{Name: "c", Path: h.written("c"), TimeoutSeconds: ptr[int64](120)}})
	h.guarded()
	h.pass(999 * time.Millisecond)
	h.guarded()
	h.clock.Advance(time.Millisecond)
	if r := h.got(late); len(r.Evicted) != 1 || r.Evicted[0].Model != "b" {
		t.Errorf("%+v", r.Evicted)
	}
}

// A higher priority waits for nothing that was just loaded; nor does pressure, nor a client's order.
func TestWhoDoesNotWaitForWhatWasJustLoaded(t *testing.T) {
	h := narrow(t, nil)
	h.got(h.wants("a", 0))
	if r := h.got(h.wants("b", 1)); len(r.Evicted) != 1 {
		t.Errorf("%+v", r.Evicted)
	}
	waits := h.wants("c", 0)
	h.guarded()
	call[*schemas.UnloadModelReply](t, h.house, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "b"})
	h.got(waits)
	r := call[*schemas.ModelOptimizeReply](t, h.house, schemas.ActionModelOptimize, &schemas.ModelOptimizeRequest{DeviceID: "gpu-0", MinMemoryToFree: ptr[int64](mib), TargetPressureLevel: schemas.PressureCritical})
	if len(r.ModelsUnloaded) != 1 {
		t.Errorf("%+v", r)
	}
}

// A request whose patience is over before the grace is refused with the word when to come again.
func TestPatienceShorterThanTheGrace(t *testing.T) {
	h := narrow(t, nil)
	if err := weightstest.Sized(6*mib, 1).WriteSafetensors(filepath.Join(h.roots, "a.safetensors")); err != nil {
		t.Fatal(err)
	}
	h.got(h.wants("a", 0)) // which takes a second and a half
	short := h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "short", Wait: time.Hour,
		Data: &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 4 * mib, TimeoutSeconds: ptr[int64](1)}})
	h.guarded()
	h.pass(time.Second)
	a := <-short
	if a.err == nil || a.err.Code != schemas.CodeOutOfMemory || a.err.Details["retry_after_ms"] != int64(500) {
		t.Fatalf("%+v %v", a.data, a.err)
	}
	if len(h.lies("a")) != 1 {
		t.Error("the model went for nothing")
	}
}
