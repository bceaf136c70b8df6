package heap

import (
	"math"
	"testing"
	"time"
)

// A pool of 64 segments beyond its floor shrinks by half in a half-life, whatever the pace
// at which it is looked at, never by much at once, and in the end to the floor.
func TestAPoolWanesInACurve(t *testing.T) {
	for _, pace := range []time.Duration{100 * time.Millisecond, time.Second, 2500 * time.Millisecond} {
		h := New(Config{})
		for i := range 80 {
			h.Add(SegmentID(i+1), mib, "", i%2 == 0)
		}
		h.Add(100, 64*mib, "", true)
		keep := func(bytes int64) int {
			if bytes == mib {
				return 16
			}
			return 1
		}
		w := Wane{HalfLife: 10 * time.Second}
		at := map[time.Duration]int64{}
		for now := pace; now <= 2*time.Minute; now += pace {
			before := h.Surplus(keep)
			ids := h.Waning(w.Due(before, pace), keep, math.MaxInt)
			for _, id := range ids {
				info, _ := h.Segment(id)
				w.Gone(info.Bytes)
				h.Remove(id)
			}
			if share := 1 - math.Exp2(-float64(pace)/float64(w.HalfLife)); float64(len(ids)) > 64*share+1.5 {
				t.Errorf("pace %v: %d segments went at %v", pace, len(ids), now)
			}
			at[now] = h.Surplus(keep)
		}
		for _, c := range []struct {
			after time.Duration
			want  int64
		}{{10 * time.Second, 32}, {20 * time.Second, 16}, {40 * time.Second, 4}, {110 * time.Second, 0}} {
			if got := at[c.after] / mib; got < c.want-1 || got > c.want+1 {
				t.Errorf("pace %v: %d segments over the floor after %v, want %d", pace, got, c.after, c.want)
			}
		}
		if h.IdleOf(mib) != 16 || h.IdleOf(64*mib) != 1 {
			t.Errorf("pace %v: %d and %d segments are left of 16 and 1", pace, h.IdleOf(mib), h.IdleOf(64*mib))
		}
		if err := h.Check(); err != nil {
			t.Fatal(err)
		}
	}
}

// What is dirty goes before what is clean, and a large segment when half of it is due.
func TestWaningBeginsWithTheDirty(t *testing.T) {
	h := New(Config{})
	h.Add(1, mib, "", true)
	h.Add(2, mib, "", false)
	h.Add(3, 4*mib, "", true)
	none := func(int64) int { return 0 }
	if ids := h.Waning(mib, none, 9); len(ids) != 1 || ids[0] != 2 {
		t.Errorf("went %v, want 2", ids)
	}
	if ids := h.Waning(2*mib, none, 9); len(ids) != 1 || ids[0] != 3 {
		t.Errorf("went %v, want 3", ids)
	}
	if ids := h.Waning(mib/2-1, none, 9); len(ids) != 0 {
		t.Errorf("went %v, want none", ids)
	}
	if ids := h.Waning(6*mib, none, 2); len(ids) != 2 || ids[0] != 3 || ids[1] != 2 {
		t.Errorf("went %v, want 3 and 2", ids)
	}
}

// What is not given back when it is due stays due, however much of the pool is used
// meanwhile, and never more than there is.
func TestWhatIsDueStaysDue(t *testing.T) {
	w := Wane{HalfLife: time.Second}
	if got := w.Due(100, time.Second); got != 50 {
		t.Errorf("%d are due, want 50", got)
	}
	if got := w.Due(100, time.Second); got != 75 {
		t.Errorf("%d are due when none went, want 75", got)
	}
	if got := w.Due(40, 0); got != 40 {
		t.Errorf("%d are due of 40, want 40", got)
	}
	w.Gone(64)
	if got := w.Due(0, time.Hour); got != 0 {
		t.Errorf("%d are due of nothing", got)
	}
}
