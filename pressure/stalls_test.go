package pressure

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

func TestStallsCountForAWhile(t *testing.T) {
	var s Stalls
	at := func(ms int) clock.Instant { return clock.Instant(time.Duration(ms) * time.Millisecond) }
	expect := func(ms int, level Level, next int) {
		t.Helper()
		if got := s.Level(at(ms)); got != level {
			t.Errorf("at %d ms: %s, want %s", ms, got, level)
		}
		if got, ok := s.Next(at(ms)); ok != (next > 0) || ok && got != at(next) {
			t.Errorf("at %d ms: next %v %v, want %d ms", ms, got, ok, next)
		}
	}
	expect(0, Low, 0)
	s.Note("a", High, time.Second, at(0))
	s.Note("b", Critical, time.Second, at(500))
	expect(500, Critical, 1000)
	expect(1000, Critical, 1500)
	s.Note("b", High, time.Second, at(1200)) // does not lower what b said
	expect(1200, Critical, 1500)
	s.Note("b", High, time.Second, at(1500))
	expect(1500, High, 2500)
	expect(2500, Low, 0)
	if s.Deaf() {
		t.Error("nobody is lost")
	}
	s.Lost("a")
	if !s.Deaf() {
		t.Error("a is lost")
	}
	s.Note("a", Low, 0, at(3000))
	if s.Deaf() {
		t.Error("a is back")
	}
}

// While the kernel complains the level stays; the dwell begins when it is silent.
func TestAStallRaisesAndHolds(t *testing.T) {
	e, err := New(Config{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := Figures{Limit: 1000, Used: 600, Reclaimable: 400, Stall: High}
	c, ok := e.Step(f, CauseForeign, 0)
	if !ok || c.To != High || c.Cause != CauseStall || c.Target != 50 {
		t.Fatalf("change %+v %v", c, ok)
	}
	if e.Band() != (Band{}) {
		t.Error("a band although the kernel complains")
	}
	if _, ok := e.Next(); ok {
		t.Error("it would fall although the kernel complains")
	}
	f.Stall = Critical
	if c, ok := e.Step(f, CauseForeign, 1); !ok || c.To != Critical || c.Cause != CauseStall {
		t.Fatalf("change %+v %v", c, ok)
	}
	f.Stall = Low
	now := clock.Instant(time.Minute)
	e.Step(f, CauseForeign, now)
	if s := e.State(); s.Target != 0 {
		t.Errorf("the target is %d although nothing is tight", s.Target)
	}
	if at, ok := e.Next(); !ok || at != now.Add(10*time.Second) {
		t.Errorf("it falls at %v %v", at, ok)
	}
	// A share that calls for more has its own cause.
	f.Stall, f.Used = High, 960
	e, _ = New(Config{}, 0)
	if c, _ := e.Step(f, CauseForeign, now); c.To != Critical || c.Cause != CauseForeign {
		t.Errorf("change %+v", c)
	}
}
