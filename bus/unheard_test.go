package bus

import (
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

func TestUnheard(t *testing.T) {
	c := clock.NewManual(0, time.Unix(0, 0))
	u := newUnheard("p.", c)
	undone := map[string]int{}
	watch := func(name string) string { return u.watch(func() { undone[name]++ }, c.Now()) }

	a, b := watch("a"), watch("b")
	u.report(a)
	u.report(a)
	if undone["a"] != 1 || undone["b"] != 0 {
		t.Errorf("undone %v", undone)
	}
	// The place in the ring is no secret; the rest of the token is.
	seq, _, _ := strings.Cut(b, "-")
	for _, forged := range []string{seq + "-0", seq, seq + "-", b + "0", "p.zz-" + b[len(seq)+1:], "q." + b[2:], "p.-", ""} {
		u.report(forged)
	}
	if undone["b"] != 0 {
		t.Error("a forged token was believed")
	}
	u.forget(b)
	u.report(b)
	if undone["b"] != 0 {
		t.Error("a forgotten answer was undone")
	}
	// Ten seconds later it counts as heard.
	late := watch("late")
	c.Advance(unheardFor - 2*unheardSweep)
	fresh := watch("fresh")
	c.Advance(3 * unheardSweep)
	u.report(late)
	u.report(fresh)
	if undone["late"] != 0 || undone["fresh"] != 1 {
		t.Errorf("undone %v", undone)
	}
	c.Advance(2 * unheardFor)
	if u.ring != nil || u.sweeping {
		t.Error("an idle ring is kept")
	}
	// It is bounded: the oldest goes.
	first := watch("first")
	for range unheardMax {
		u.watch(func() {}, c.Now())
	}
	second := watch("second")
	u.report(first)
	u.report(second)
	if undone["first"] != 0 || undone["second"] != 1 || len(u.ring) != unheardMax {
		t.Errorf("undone %v, ring of %d", undone, len(u.ring))
	}
	u.close()
	u.report(second)
}
