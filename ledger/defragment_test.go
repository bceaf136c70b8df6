package ledger_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
)

// small asks for a block that shares its segment with others.
func (h *history) small() { h.block(256, 1000, 3000, 5000) }

func (h *history) block(sizes ...int64) {
	h.n++
	r := &ledger.Request{Ref: h.n, Size: rapid.SampledFrom(sizes).Draw(h.t, "size"), Class: ledger.ClassScratch,
		Owner: ledger.Owner{Tenant: rapid.SampledFrom([]string{"red", "red", "red", "blue"}).Draw(h.t, "tenant"), UID: 7}, Patience: time.Second}
	h.owed[r.Ref] = r
	h.must(h.Call(func() { h.Core.Allocate(r, h.Now) }))
}

// scatter makes many small grants and ends most.
func (h *history) scatter() {
	for range rapid.IntRange(8, 25).Draw(h.t, "grants") {
		h.small()
	}
	h.must(h.Settle())
	for _, g := range h.Grants() {
		if rapid.IntRange(0, 2).Draw(h.t, "ends") > 0 {
			h.must(h.Call(func() {
				h.Core.Release(ledger.ReleaseRequest{Grant: g.ID, Tenant: g.Owner.Tenant, Why: ledger.WhyDeallocated}, h.Now)
			}))
		}
	}
}

// order defragments while everything else goes on: what is moved is moved whole, once, and
// comes back in the end. It returns how many were moved.
func (h *history) order() (moved int) {
	r := ledger.DefragmentRequest{Ref: "defragment", MaxBytes: rapid.SampledFrom([]int64{5000, limit}).Draw(h.t, "budget")}
	h.must(h.Call(func() { h.Core.Defragment(r, h.Now) }))
	for range rapid.IntRange(0, 30).Draw(h.t, "steps") {
		switch rapid.IntRange(0, 9).Draw(h.t, "step") {
		case 0:
			h.small()
		case 1:
			h.mapIt()
		case 2:
			h.release()
		case 3:
			h.hold()
		default:
			h.work()
		}
		moved += h.moves()
	}
	return moved
}

// moves is how many grants the last call into the core has moved.
func (h *history) moves() (n int) {
	for _, e := range h.Events {
		if e.Kind == ledger.EventMoved {
			n++
		}
	}
	return n
}

func TestDefragmentHistories(t *testing.T) {
	moved := 0
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t, 1<<20)
		h.scatter()
		moved += h.order()
		h.end()
	})
	if moved == 0 {
		t.Error("nothing was moved: the test shows nothing")
	}
}

// fill has blocks granted one after the other, and takes what the device has beside them.
func (h *history) fill() {
	for range 14 {
		h.block(3000, 5000)
		h.must(h.Settle()) // while a segment is being made the next block does not know of it
	}
	h.n++
	rest := &ledger.Request{Ref: h.n, Size: h.Core.Figures().Largest, Class: ledger.ClassReservation, Owner: ledger.Owner{Tenant: "blue"}}
	h.owed[rest.Ref] = rest
	h.must(h.Call(func() { h.Core.Allocate(rest, h.Now) }))
	h.must(h.Settle())
}

// thin ends about half of the grants.
func (h *history) thin() {
	for _, g := range h.Grants() {
		if rapid.Bool().Draw(h.t, "ends") {
			h.must(h.Call(func() {
				h.Core.Release(ledger.ReleaseRequest{Grant: g.ID, Tenant: g.Owner.Tenant, Why: ledger.WhyDeallocated}, h.Now)
			}))
		}
	}
}

// crowd has blocks freed and granted on a device that has no other memory left, with all that
// goes on beside it. It returns how many were moved to make room for others.
func (h *history) crowd() (moved int) {
	h.thin()
	for range rapid.IntRange(4, 20).Draw(h.t, "steps") {
		if len(h.Tasks) == 0 {
			h.block(7000, 10000, 12000)
		}
		switch rapid.IntRange(0, 9).Draw(h.t, "step") {
		case 0, 1, 2:
			h.block(3000, 7000, 10000, 12000)
		case 3:
			h.release()
		case 5:
			if rapid.IntRange(0, 3).Draw(h.t, "mapped") == 0 {
				h.mapIt()
			}
		case 6:
			h.must(h.Advance(time.Second))
		default:
			h.work()
		}
		moved += h.moves()
	}
	return moved
}

func TestCrowdedHistories(t *testing.T) {
	moved := 0
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t, 1<<20)
		h.fill()
		moved += h.crowd()
		h.end()
	})
	t.Logf("%d grants were moved", moved)
	if moved == 0 {
		t.Error("nothing was moved: the test shows nothing")
	}
}

// A crash at any store while blocks are moved together leaves each grant in one place.
func TestCrowdedCrash(t *testing.T) {
	seen := 0
	rapid.Check(t, func(t *rapid.T) {
		if rapid.IntRange(0, 7).Draw(t, "one of eight") > 0 {
			return // it takes long
		}
		h := newHistory(t, 48<<10)
		h.fill()
		h.thin()
		c := &crashes{lives: 397}
		c.watch(h)
		h.block(10000)
		for range 8 {
			h.work()
		}
		seen += c.seen
	})
	t.Logf("%d crashes", seen)
}

// A crash at any store of a defragmentation leaves each grant in one place.
func TestDefragmentCrash(t *testing.T) {
	seen := 0
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t, 48<<10)
		c := &crashes{lives: 97}
		h.scatter()
		c.watch(h)
		h.order()
		seen += c.seen
	})
	t.Logf("%d crashes", seen)
}

// Whoever maps a grant while its block is being moved keeps the place it had.
func TestMapDuringAMove(t *testing.T) {
	m, err := ledgertest.NewMachine(ledgertest.Settings(limit), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	do := func(f func()) {
		t.Helper()
		if err := m.Call(f); err != nil {
			t.Fatal(err)
		}
	}
	owner := ledger.Owner{Tenant: "red", UID: 7}
	var claims []string
	for i := range 7 {
		do(func() {
			m.Core.Allocate(&ledger.Request{Ref: i, Size: 4000, Owner: owner, Class: ledger.ClassScratch}, m.Now)
		})
		if err := m.Settle(); err != nil {
			t.Fatal(err)
		}
		claims = append(claims, m.Final[i].Claim)
	}
	grants := map[int]*ledgertest.Live{}
	for i := range claims {
		for _, l := range m.Live {
			if l.Claim == claims[i] {
				grants[i] = l
			}
		}
	}
	last := grants[6] // alone in its segment once those beside it have gone
	for i := range 6 {
		if i != 1 && i != 2 {
			do(func() {
				m.Core.Release(ledger.ReleaseRequest{Grant: grants[i].ID, Tenant: "red", Why: ledger.WhyDeallocated}, m.Now)
			})
		}
	}
	do(func() {
		if err := m.Core.Defragment(ledger.DefragmentRequest{Ref: "d", MaxBytes: 4096}, m.Now); err != nil {
			t.Fatal(err)
		}
	})
	var vacate *ledgertest.Task
	for _, task := range m.Tasks {
		if task.Kind == ledger.JobVacate {
			vacate = task
		}
	}
	if vacate == nil || vacate.Ranges[0].Segment != last.Segments[0] {
		t.Fatalf("tasks %+v do not move grant %v", m.Tasks, last)
	}
	before := fmt.Sprint(last.Segments)
	do(func() {
		if err := m.Core.Map(ledger.MapRequest{Session: "s1", PID: 1001, UID: 7, Digest: ledger.DigestOf(claims[6]), Mode: ledger.ReadWrite}, m.Now); err != nil {
			t.Fatal(err)
		}
	})
	if err := m.Settle(); err != nil {
		t.Fatal(err)
	}
	g, _ := m.Core.Grant(last.ID)
	if got := fmt.Sprintf("[%d]", g.Blocks[0].Segment); got != before {
		t.Errorf("a grant that is mapped was moved from %s to %s", before, got)
	}
	if o := m.Final["d"].Defragmented; o.Moved != 0 || o.Released != 0 || o.Stopped {
		t.Errorf("the defragmentation says %+v", o)
	}
	do(func() {
		if err := m.Core.Unmap("s1", last.ID, m.Now); err != nil {
			t.Fatal(err)
		}
	})
	m.LetGo("s1", last.Segments)
	do(func() { m.Core.Defragment(ledger.DefragmentRequest{Ref: "d", MaxBytes: 4096}, m.Now) })
	if err := m.Settle(); err != nil {
		t.Fatal(err)
	}
	if o := m.Final["d"].Defragmented; o.Moved != 4096 || o.Released != 16<<10 || o.Segments != 1 {
		t.Errorf("once it is let go, the defragmentation says %+v", o)
	}
}
