package clock_test

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

func TestManualRunsTimersInOrder(t *testing.T) {
	c := clock.NewManual(1000, time.Unix(0, 0))
	var got []string
	c.AfterFunc(2*time.Second, func() { got = append(got, "b") })
	stopped := c.AfterFunc(time.Second, func() { got = append(got, "never") })
	c.AfterFunc(time.Second, func() {
		got = append(got, "a")
		c.AfterFunc(500*time.Millisecond, func() { got = append(got, "nested") })
	})
	if !stopped.Stop() || stopped.Stop() {
		t.Fatal("Stop must succeed once")
	}
	c.Advance(2 * time.Second)
	if want := "a nested b"; join(got) != want {
		t.Fatalf("timers ran as %q, want %q", join(got), want)
	}
	if c.Now() != clock.Instant(1000).Add(2*time.Second) || !c.Wall().Equal(time.Unix(2, 0)) {
		t.Fatalf("now %d wall %v", c.Now(), c.Wall())
	}
}

func TestRealClockMovesForward(t *testing.T) {
	c := clock.Real()
	a := c.Now()
	if b := c.Now(); b < a || a == 0 {
		t.Fatalf("boot time went from %d to %d", a, b)
	}
}

func join(s []string) string {
	out := ""
	for i, v := range s {
		if i > 0 {
			out += " "
		}
		out += v
	}
	return out
}

func BenchmarkNow(b *testing.B) {
	c := clock.Real()
	for b.Loop() {
		c.Now()
	}
}

// Time that two move at once goes forward by what each moves, or by the more, but never back.
func TestManualNeverGoesBack(t *testing.T) {
	c := clock.NewManual(0, time.Unix(0, 0))
	c.AfterFunc(time.Second, func() { c.Advance(time.Minute) })
	c.Advance(2 * time.Second)
	if now := c.Now(); now != clock.Instant(61*time.Second) {
		t.Errorf("the clock shows %v", time.Duration(now))
	}
	if _, wall := c.Both(); !wall.Equal(time.Unix(61, 0)) {
		t.Errorf("the time of day is %v", wall)
	}
}
