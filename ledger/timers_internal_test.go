package ledger

import (
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/admission"
	"github.com/isobar-project/isobar/clock"
)

func TestTimersFallDueInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h timers
		ats := rapid.SliceOf(rapid.Int64Range(0, 50)).Draw(t, "ats")
		for _, at := range ats {
			h.set(timer{at: clock.Instant(at)})
		}
		odd := func(x timer) bool { return x.at%2 == 1 }
		n := len(ats)
		if rapid.Bool().Draw(t, "sweep") {
			h.keep(odd)
			n = 0
			for _, at := range ats {
				n += int(at % 2)
			}
		}
		last := clock.Instant(-1)
		for ; ; n-- {
			next, ok := h.next()
			x, due := h.due(50)
			if ok != due || ok && next != x.at {
				t.Fatalf("next %d %v, due %d %v", next, ok, x.at, due)
			}
			if !ok {
				break
			}
			if x.at < last {
				t.Fatalf("%d after %d", x.at, last)
			}
			last = x.at
		}
		if n != 0 {
			t.Fatalf("%d timers are missing", n)
		}
	})
}

// Leases of grants that are long gone must not pile up.
func TestTimersThatAreOverAreSweptOut(t *testing.T) {
	d := &Device{grants: map[uuid.UUID]*Grant{}, line: admission.NewLine[*Request](func(string) float64 { return 1 })}
	live := &Grant{LeaseEnds: 7}
	d.grants[uuid.UUID{1}] = live
	d.at(timer{at: 7, kind: timerLease, grant: uuid.UUID{1}})
	for i := range 10 * minSweep {
		d.at(timer{at: clock.Instant(1000 + i), kind: timerLease, grant: uuid.UUID{2}})
	}
	if len(d.timers.h) > minSweep {
		t.Fatalf("%d timers are kept", len(d.timers.h))
	}
	if at, _ := d.timers.next(); at != 7 {
		t.Fatalf("the next is at %d", at)
	}
}
