package pressure

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// Releasing what ToReach says, and no byte less, lets the level fall that far.
func TestToReachIsEnoughAndNoMore(t *testing.T) {
	const limit = 1 << 30
	start := clock.Instant(time.Hour)
	for _, used := range []int64{0, limit * 66 / 100, limit * 75 / 100, limit * 90 / 100, limit * 99 / 100} {
		for to := Low; to <= Critical; to++ {
			for _, less := range []int64{0, 1} {
				e, err := New(Config{}, start)
				if err != nil {
					t.Fatal(err)
				}
				e.Step(Figures{Limit: limit, Used: used}, CauseGrant, start)
				was, need := e.Level(), e.ToReach(to)
				if was <= to {
					if need != 0 {
						t.Errorf("at %s, %d bytes to reach %s", was, need, to)
					}
					continue
				}
				now := start.Add(time.Second)
				e.Step(Figures{Limit: limit, Used: used - need + less}, CauseRelease, now)
				for range 4 {
					now = now.Add(time.Minute)
					e.Tick(now)
				}
				if fell := e.Level() <= to; fell != (less == 0) {
					t.Errorf("from %s with %d of %d bytes released the level is %s, wanted %s", was, need-less, used, e.Level(), to)
				}
			}
		}
	}
}

func TestToReachHeedsADeficit(t *testing.T) {
	e, err := New(Config{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	e.Step(Figures{Limit: 1000, Used: 100, Deficit: 300}, CauseGrant, 1)
	if e.Level() != High || e.ToReach(Moderate) != 300 || e.ToReach(High) != 0 {
		t.Errorf("at %s: %d bytes to moderate, %d to high", e.Level(), e.ToReach(Moderate), e.ToReach(High))
	}
}
