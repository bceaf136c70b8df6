package catalog_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
)

// took brings a model to a device in so long, after it waited so long for room.
func (b *bench) took(name string, queued, took time.Duration) (*catalog.Copy, uuid.UUID) {
	b.t.Helper()
	b.load("load", catalog.LoadRequest{Path: name, Name: name})
	cp := b.last()
	b.inspected(cp, name)
	b.now.Boot = b.now.Boot.Add(queued)
	b.grants++
	id := uuid.UUID{15: byte(b.grants)}
	b.do(func() { b.c.Granted(cp, id, 4096, nil, queued, b.now) })
	b.now.Boot = b.now.Boot.Add(took)
	b.filled(cp)
	b.sealed(cp)
	b.said = nil
	return cp, id
}

// waits is how long a stranger would wait for what was just loaded.
func (b *bench) waits(priority int) time.Duration {
	b.t.Helper()
	plan, whose := b.c.Plan(catalog.Want{Device: "ram-0", Bytes: 1, Whose: "red", For: &catalog.Newcomer{Priority: priority}}, b.now.Boot)
	if len(whose) != 1 {
		b.t.Fatalf("%d victims", len(whose))
	}
	if plan.Until == 0 {
		return 0
	}
	return plan.Until.Sub(b.now.Boot)
}

// What is kept because it was just loaded is kept for as long as its load took, without the wait
// for room, which is no part of its cost either. When it was read that is over, but for a pause.
func TestGraceOfALoad(t *testing.T) {
	b := newBench(t, 1<<20)
	cp, id := b.took("m", time.Hour, 4*time.Second)
	if cp.Took != 4*time.Second || cp.Cost != 4*time.Second {
		t.Errorf("it took %v, and costs %v", cp.Took, cp.Cost)
	}
	if w := b.waits(0); w != 4*time.Second {
		t.Errorf("kept for %v", w)
	}
	if w := b.waits(1); w != 0 {
		t.Errorf("kept from a higher priority for %v", w)
	}
	b.now.Boot = b.now.Boot.Add(time.Second)
	reader := ledger.Reader{Model: "m", Grant: id, Session: "s1", Tenant: "red"}
	b.do(func() { b.c.Mapped(reader, b.now) })
	b.now.Boot = b.now.Boot.Add(time.Second)
	reader.Gone = true
	b.do(func() { b.c.Mapped(reader, b.now) })
	if w := b.waits(0); w != 500*time.Millisecond {
		t.Errorf("after its reader let go it is kept for %v", w)
	}
	b.now.Boot = b.now.Boot.Add(1900 * time.Millisecond)
	reader.Gone = false
	b.do(func() { b.c.Mapped(reader, b.now) })
	reader.Gone = true
	b.do(func() { b.c.Mapped(reader, b.now) })
	if w := b.waits(0); w != 100*time.Millisecond {
		t.Errorf("after another one it is kept for %v", w)
	}
	b.now.Boot = b.now.Boot.Add(100 * time.Millisecond)
	if w := b.waits(0); w != 0 {
		t.Errorf("after its grace it is kept for %v", w)
	}
}

// Who is known to be worth more waits only until it can have been mapped.
func TestWhoIsWorthMore(t *testing.T) {
	b := newBench(t, 1<<20)
	dear, _ := b.took("dear", 0, time.Minute)
	b.do(func() { b.c.Evict(dear, "for the test", b.now) })
	b.do(func() { b.c.Released(dear.Grant, 4096, 0, true, b.now) })
	b.said = nil
	b.took("cheap", 0, 3*time.Second)
	for name, want := range map[string]time.Duration{"dear": eviction.MinGrace, "unknown": 3 * time.Second, "": 3 * time.Second} {
		plan, _ := b.c.Plan(catalog.Want{Device: "ram-0", Bytes: 1, Whose: "red", For: &catalog.Newcomer{Model: name}}, b.now.Boot)
		if got := plan.Until.Sub(b.now.Boot); got != want {
			t.Errorf("%q waits for %v, not %v", name, got, want)
		}
	}
	if plan, _ := b.c.Plan(catalog.Want{Device: "ram-0", Bytes: 1, Whose: "red"}, b.now.Boot); plan.Until != 0 {
		t.Error("what nobody waits for waits")
	}
}
