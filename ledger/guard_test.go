package ledger_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/schemas"
)

// The shortest and the longest grace of what was just loaded.
const minGrace, maxGrace = 250 * time.Millisecond, 5 * time.Second

// optimizer plays the part of the pool and of the optimizer: it knows until when each model
// is kept because it was just loaded, and answers wants as they do.
type optimizer struct {
	*ledgertest.Machine
	t     *rapid.T
	until map[uuid.UUID]clock.Instant
	loads int
}

// answer answers the wants that there are.
func (o *optimizer) answer() {
	for len(o.Wants) > 0 {
		w := o.Wants[0]
		o.Wants = o.Wants[1:]
		left := w.Bytes
		guard := ledger.Guard{}
		var victims []uuid.UUID
		for _, g := range o.Grants() {
			if g.Class != ledger.ClassWeights || left <= 0 {
				continue
			}
			known, ok := o.Core.Grant(g.ID)
			if !ok || known.Status != ledger.StatusActive || len(known.Mappers) > 0 {
				continue
			}
			left -= known.Granted
			victims = append(victims, g.ID)
			if until := o.until[g.ID]; until > o.Now.Boot && until > guard.Until {
				guard.Until, guard.Models = until, []string{g.Model}
			}
		}
		guard.Short = left > 0
		switch {
		case guard.Until != 0:
			o.must(o.Call(func() { o.Core.Guarded(w.Ticket, guard, o.Now) }))
			continue
		}
		for _, id := range victims {
			o.must(o.Call(func() {
				o.Core.Release(ledger.ReleaseRequest{Grant: id, Tenant: "red", Why: ledger.WhyEvicted, Evict: true}, o.Now)
			}))
		}
		o.must(o.Settle())
		o.must(o.Call(func() {
			if left > 0 {
				o.Core.NoRoom(w.Ticket, o.Now)
			} else {
				o.Core.LookAgain(o.Now)
			}
		}))
	}
}

func (o *optimizer) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
	for _, x := range o.Heard {
		if x.Kind == ledger.OutcomeGranted && x.Grant.Class == ledger.ClassWeights {
			took := time.Duration(rapid.Int64Range(0, int64(8*time.Second)).Draw(o.t, "took"))
			o.until[x.Grant.ID] = o.Now.Boot.Add(min(maxGrace, max(minGrace, took)))
			o.loads++
		}
	}
	o.Heard = o.Heard[:0]
}

// rest has everything done that needs no time to pass.
func (o *optimizer) rest() {
	for {
		o.must(o.Settle())
		if len(o.Wants) == 0 {
			return
		}
		o.answer()
	}
}

// Whoever is the head of the line, and waits for nothing but what was just loaded, is served
// when the grace of the last load before him is over: nobody passes him meanwhile, whatever
// others ask, give up or fail to get. The timer alone brings that about.
func TestAGuardedHeadIsServedWithinTheGrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := ledgertest.NewMachine(ledgertest.Settings(limit), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		o := &optimizer{Machine: m, t: t, until: map[uuid.UUID]clock.Instant{}}
		n := 0
		var waiting []*ledger.Request
		ask := func(patience time.Duration) *ledger.Request {
			n++
			r := &ledger.Request{Ref: n, Owner: ledger.Owner{Tenant: "red", UID: 7}, Class: ledger.ClassWeights, Model: fmt.Sprint("m", n), Unclaimed: true, Patience: patience,
				Segments: []int64{rapid.Int64Range(1, 10).Draw(t, "size") * (limit / 10)}}
			if rapid.IntRange(0, 4).Draw(t, "kind") == 0 {
				r.Class, r.Size, r.Segments, r.Model, r.Unclaimed = ledger.ClassScratch, rapid.Int64Range(1, 5).Draw(t, "pages")*4096, nil, "", false
				r.Lease = time.Second
			}
			o.must(o.Call(func() { o.Core.Allocate(r, o.Now) }))
			o.rest()
			return r
		}
		// How long the same request has been the head.
		var head *ledger.Request
		var since clock.Instant
		look := func() {
			t.Helper()
			var now *ledger.Request
			o.Core.Waiting(func(i int, r *ledger.Request) {
				if i == 1 {
					now = r
				}
			})
			if now != head {
				head, since = now, o.Now.Boot
			}
			if over := o.Now.Boot.Sub(since); head != nil && over > maxGrace+time.Second {
				t.Fatalf("request %d has been the head for %v: %s", head.Ticket(), over, head.Reason())
			}
		}
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1, 2:
				waiting = append(waiting, ask(rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "patience")))
			case 3:
				if len(waiting) > 0 {
					r := rapid.SampledFrom(waiting).Draw(t, "who is cancelled")
					o.must(o.Call(func() { o.Core.Cancel(r.Ticket(), schemas.Errorf(schemas.CodeCancelled, "by its client"), o.Now) }))
				}
			default:
				o.must(o.Advance(time.Duration(rapid.Int64Range(1, 700).Draw(t, "ms")) * time.Millisecond))
			}
			o.rest()
			look()
		}
		for range 20 * len(waiting) { // everybody is served, or was refused, by the timers alone
			o.must(o.Advance(500 * time.Millisecond))
			o.rest()
			look()
		}
		for _, r := range waiting {
			if k := o.Final[r.Ref].Kind; k == ledger.OutcomeQueued || k == 0 {
				t.Fatalf("request %d still waits: %s", r.Ticket(), r.Reason())
			}
		}
	})
}

// full is a device that a model fills which was just loaded.
func full(t *testing.T) *ledgertest.Machine {
	t.Helper()
	cfg := ledgertest.Settings(limit)
	cfg.Warm = nil
	m, err := ledgertest.NewMachine(cfg, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	r := &ledger.Request{Ref: "a", Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassWeights, Model: "a", Unclaimed: true, Segments: segments(900000)}
	if err := m.Call(func() { m.Core.Allocate(r, m.Now) }); err != nil {
		t.Fatal(err)
	}
	if err := m.Settle(); err != nil {
		t.Fatal(err)
	}
	return m
}

// A request that waits for what was just loaded leaves no trace when it is given up or its
// time is over, and a refusal says when to come again.
func TestAGuardLeavesNoTrace(t *testing.T) {
	for _, c := range []struct {
		name     string
		patience time.Duration
		end      func(m *ledgertest.Machine, t ledger.Ticket)
		code     schemas.Code
		retry    any
	}{
		{"cancelled", time.Hour, func(m *ledgertest.Machine, t ledger.Ticket) {
			m.Core.Cancel(t, schemas.Errorf(schemas.CodeCancelled, "by its client"), m.Now)
		}, schemas.CodeCancelled, nil},
		{"too late", time.Second, func(*ledgertest.Machine, ledger.Ticket) {}, schemas.CodeOutOfMemory, int64(2000)},
		{"does not queue", 0, func(*ledgertest.Machine, ledger.Ticket) {}, schemas.CodeOutOfMemory, int64(3000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := full(t)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			r := &ledger.Request{Ref: "b", Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassReservation, Size: limit / 2, Patience: c.patience}
			must(m.Call(func() { m.Core.SetReclaimable(limit, m.Now) }))
			before := m.Core.Figures()
			must(m.Call(func() { m.Core.Allocate(r, m.Now) }))
			if len(m.Wants) != 1 {
				t.Fatalf("%d wants", len(m.Wants))
			}
			w := m.Wants[0]
			m.Wants = nil
			must(m.Call(func() {
				m.Core.Guarded(w.Ticket, ledger.Guard{Until: m.Now.Boot.Add(3 * time.Second), Models: []string{"a"}}, m.Now)
			}))
			if e, waits := m.Core.Expect(r.Ticket(), m.Now); waits && e.At != m.Now.Boot.Add(3*time.Second) && c.patience > 3*time.Second {
				t.Errorf("expected at %v", e.At)
			}
			must(m.Call(func() { c.end(m, r.Ticket()) }))
			must(m.Advance(time.Second))
			o := m.Final["b"]
			if o.Kind != ledger.OutcomeRefused || !errors.Is(o.Err, schemas.Errorf(c.code, "")) || o.Err.Details["retry_after_ms"] != c.retry {
				t.Errorf("%+v %v", o, o.Err)
			}
			must(m.Advance(10 * time.Second))
			if len(m.Wants) != 0 || m.Core.Figures() != before {
				t.Errorf("%d wants; %+v, was %+v", len(m.Wants), m.Core.Figures(), before)
			}
		})
	}
}
