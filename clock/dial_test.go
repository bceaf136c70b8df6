package clock_test

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// jittery is a clock whose time of day is read a little later each time.
type jittery struct {
	*clock.Manual
	late time.Duration
}

func (j *jittery) Both() (clock.Instant, time.Time) {
	now, wall := j.Manual.Both()
	j.late += time.Microsecond
	return now, wall.Add(j.late)
}

func TestAnInstantIsOneTimeOfDay(t *testing.T) {
	c := &jittery{Manual: clock.NewManual(1000, time.Unix(50, 0))}
	d := clock.NewDial(c)
	end := c.Now().Add(time.Minute)
	first := d.At(end)
	if off := first.Sub(time.Unix(110, 0)); off < 0 || off > time.Millisecond {
		t.Fatalf("a minute after 00:00:50 is %v", first)
	}
	c.Advance(time.Second)
	if again := d.At(end); !again.Equal(first) {
		t.Errorf("the same instant is %v and then %v", first, again)
	}
	c.late += time.Hour // somebody sets the clock
	if set := d.At(end); set.Sub(first) < time.Hour-time.Second {
		t.Errorf("after the clock was set by an hour the instant is %v, before %v", set, first)
	}
}
