package ledger_test

import (
	"math"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
)

// resting is a device whose client has just given so many segments of 64 KiB back, all at once.
// The pool's bound is what they are, and the warm classes keep so many of them.
func resting(t *testing.T, segments, keep int) (*ledgertest.Machine, func(err error)) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg := ledgertest.Settings(int64(segments) * 8 * 64 << 10)
	cfg.PoolBytes = int64(segments) * 64 << 10
	cfg.Warm = []ledger.WarmClass{{Bytes: 64 << 10, Keep: keep}}
	m, err := ledgertest.NewMachine(cfg, 4<<20)
	must(err)
	for i := range segments {
		must(m.Call(func() {
			m.Core.Allocate(&ledger.Request{Ref: i, Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassScratch, Size: 64 << 10}, m.Now)
		}))
		must(m.Settle())
	}
	m.Now.Boot = m.Now.Boot.Add(time.Hour) // a long rest gives nothing back that was in use
	for _, g := range m.Grants() {
		must(m.Call(func() { m.Core.Release(ledger.ReleaseRequest{Grant: g.ID, Tenant: "red"}, m.Now) }))
	}
	must(m.Settle())
	return m, must
}

// next carries out what the device wants at its next moment; ok is false where it wants to be
// woken no more.
func next(m *ledgertest.Machine, must func(error)) (at clock.Instant, ok bool) {
	if at, ok = m.Core.Next(); !ok {
		return 0, false
	}
	must(m.Advance(max(0, at.Sub(m.Now.Boot))))
	must(m.Settle())
	return at, true
}

// An idle pool shrinks by half in each half-life, step by step, to what the warm classes keep.
// Then nothing wakes the device any more.
func TestAnIdlePoolWanesAndThenSleeps(t *testing.T) {
	const segments, keep = 64, 6
	m, must := resting(t, segments, keep)
	begun := m.Now.Boot
	surplus := func() int64 { return (m.Core.Figures().Pooled - keep*64<<10) / (64 << 10) }
	if got := surplus(); got != segments {
		t.Fatalf("%d segments are over the floor when the rest begins, want %d", got, segments)
	}
	wakes := 0
	for {
		before := surplus()
		at, ok := next(m, must)
		if !ok {
			break
		}
		if wakes++; wakes > 1000 {
			t.Fatalf("the device is woken again and again: now at %v, with %d segments over its floor", at.Sub(begun), surplus())
		}
		if gone := before - surplus(); gone > segments/8 {
			t.Errorf("%d segments go at %v: that is a cliff", gone, at.Sub(begun))
		}
		want := float64(segments) * math.Exp2(-at.Sub(begun).Seconds()/10)
		if got := float64(surplus()); math.Abs(got-want) > 3 {
			t.Errorf("%v segments are over the floor after %v, want about %.0f", got, at.Sub(begun), want)
		}
	}
	if got := surplus(); got != 0 {
		t.Errorf("%d segments over the floor stay for ever", got)
	}
	// One look in an eighth of a half-life, for as many half-lives as it takes, and the clearing.
	if most := 8*14 + segments; wakes > most {
		t.Errorf("woken %d times, want %d at most", wakes, most)
	}
}

// A device that is asked for memory all the time gives nothing back; one that rests between
// bursts does so as long as it rests.
func TestAPoolAtWorkDoesNotWane(t *testing.T) {
	m, must := resting(t, 40, 4)
	pooled := func() int64 { return m.Core.Figures().Pooled / (64 << 10) }
	work := func(pause time.Duration, times int) {
		for i := range times {
			must(m.Call(func() {
				m.Core.Allocate(&ledger.Request{Ref: i, Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassScratch, Size: 64 << 10}, m.Now)
			}))
			must(m.Settle())
			must(m.Call(func() {
				m.Core.Release(ledger.ReleaseRequest{Grant: m.Final[i].Grant.ID, Tenant: "red"}, m.Now)
			}))
			must(m.Advance(pause))
			must(m.Settle())
		}
	}
	work(50*time.Millisecond, 300)
	if got := pooled(); got != 44 {
		t.Errorf("%d segments of 44 are left after work without a pause", got)
	}
	work(time.Second, 60)
	if got := pooled(); got > 12 {
		t.Errorf("%d segments are left after a minute with one request a second", got)
	}
}

// On a device so small that the classes exceed the pool's bound, what is given back is not
// made anew: the classes keep what the bound has room for, and no more.
func TestTheFloorFitsTheBound(t *testing.T) {
	cfg := ledgertest.Settings(1 << 20)
	cfg.PoolBytes = 100 << 10
	cfg.Warm = []ledger.WarmClass{{Bytes: 64 << 10, Keep: 4}, {Bytes: 16 << 10, Keep: 8}}
	m, err := ledgertest.NewMachine(cfg, 1<<20)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	must(m.Advance(0))
	must(m.Settle())
	for i := range 4 {
		must(m.Call(func() {
			m.Core.Allocate(&ledger.Request{Ref: i, Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassScratch, Size: 64 << 10}, m.Now)
		}))
		must(m.Settle())
	}
	for _, g := range m.Grants() {
		must(m.Call(func() { m.Core.Release(ledger.ReleaseRequest{Grant: g.ID, Tenant: "red"}, m.Now) }))
	}
	must(m.Settle())
	made := 0
	for wakes := 0; ; wakes++ {
		if _, ok := next(m, must); !ok {
			break
		}
		if wakes > 200 {
			t.Fatal("the device is woken again and again")
		}
	}
	for _, s := range m.Segments {
		made += int(s.Bytes)
	}
	if want := 64<<10 + 2*16<<10; made != want || m.Core.Figures().Pooled != int64(want) {
		t.Errorf("%d bytes are kept of a bound of %d, want %d", made, cfg.PoolBytes, want)
	}
}
