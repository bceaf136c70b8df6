package ledger_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/schemas"
)

// crowd is a full device and those who wait for it.
type crowd struct {
	*ledgertest.Machine
	t *rapid.T
	n int // requests so far
}

func newCrowd(t *rapid.T) *crowd {
	cfg := ledgertest.Settings(1000 * page)
	cfg.Warm, cfg.MaxQueue = nil, 1000
	m, err := ledgertest.NewMachine(cfg, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{Machine: m, t: t}
	heavy := 3.0
	c.must(m.Call(func() { m.Core.SetQuota(ledger.QuotaChange{Tenant: "green", Weight: &heavy}, m.Now) }))
	c.must(m.Call(func() {
		m.Core.Allocate(&ledger.Request{Ref: "all", Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassReservation, Size: 1000 * page}, m.Now)
	}))
	return c
}

func (c *crowd) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crowd) request(what string, patience time.Duration) *ledger.Request {
	c.n++
	return &ledger.Request{Ref: c.n, Owner: ledger.Owner{Tenant: rapid.SampledFrom([]string{"red", "green", "blue"}).Draw(c.t, what+"'s tenant")},
		Class: ledger.ClassReservation, Size: rapid.Int64Range(1, 200).Draw(c.t, what+"'s pages") * page, Priority: rapid.IntRange(0, 3).Draw(c.t, what+"'s priority"),
		Patience: patience}
}

func (c *crowd) some(what string, patience time.Duration) *ledger.Request {
	r := c.request(what, patience)
	c.must(c.Call(func() { c.Core.Allocate(r, c.Now) }))
	return r
}

// refs is who waits, in order.
func (c *crowd) refs() (refs []any) {
	c.Core.Waiting(func(_ int, r *ledger.Request) { refs = append(refs, r.Ref) })
	return refs
}

// A hundred who wait are granted in the order of the line, which get_queue tells, whatever
// the portions in which memory comes back.
func TestAHundredWaitersAreServedInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCrowd(t)
		c.must(c.Call(func() {
			for range 100 {
				c.Core.Allocate(c.request("waiter", time.Hour), c.Now)
			}
		}))
		told := c.refs()
		c.Heard = c.Heard[:0]
		for rounds := 0; len(c.refs()) > 0; rounds++ {
			live := c.Grants()
			g := live[rapid.IntRange(0, len(live)-1).Draw(t, "who lets go")]
			c.must(c.Call(func() {
				c.Core.Release(ledger.ReleaseRequest{Grant: g.ID, Tenant: g.Owner.Tenant, Why: ledger.WhyDeallocated}, c.Now)
			}))
		}
		var served []any
		for _, o := range c.Heard {
			if o.Kind == ledger.OutcomeGranted {
				served = append(served, o.Ref)
			}
		}
		if !slices.Equal(served, told) {
			t.Fatalf("served %v, told %v", served, told)
		}
	})
}

// Who is cancelled or whose time is over leaves nothing: neither bytes nor his mark on the
// order of those who stay.
func TestCancelAndDeadlineLeaveNoTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCrowd(t)
		for range rapid.IntRange(0, 30).Draw(t, "who stay") {
			c.some("who stays", time.Hour)
		}
		figures, order, stats := c.Core.Figures(), c.refs(), c.Core.Stats()
		var gone []*ledger.Request
		for range rapid.IntRange(1, 60).Draw(t, "who go") {
			gone = append(gone, c.some("who goes", time.Minute))
		}
		for _, r := range gone {
			if rapid.Bool().Draw(t, "cancelled") {
				c.must(c.Call(func() { c.Core.Cancel(r.Ticket(), schemas.Errorf(schemas.CodeCancelled, "by its client"), c.Now) }))
			}
		}
		c.must(c.Advance(time.Minute))
		if got := c.Core.Figures(); got != figures {
			t.Fatalf("the figures are %+v, were %+v", got, figures)
		}
		if got := c.refs(); fmt.Sprint(got) != fmt.Sprint(order) {
			t.Fatalf("the order is %v, was %v", got, order)
		}
		now := c.Core.Stats()
		if now.Refusals -= int64(len(gone)); now != stats {
			t.Fatalf("the counts are %+v, were %+v", now, stats)
		}
	})
}
