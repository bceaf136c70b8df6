package pressure_test

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/pressure"
)

func Example() {
	now := clock.Instant(0)
	e, err := pressure.New(pressure.Config{}, now)
	if err != nil {
		fmt.Println(err)
		return
	}
	show := func(c pressure.Change, changed bool) {
		if changed {
			fmt.Printf("%v: %s → %s (%s), %d MiB to release\n", time.Duration(c.At), c.From, c.To, c.Cause, c.Target>>20)
		}
	}

	show(e.Step(pressure.Figures{Limit: 1 << 30, Used: 880 << 20}, pressure.CauseGrant, now))
	now = now.Add(time.Second)
	show(e.Step(pressure.Figures{Limit: 1 << 30, Used: 660 << 20}, pressure.CauseRelease, now))
	for at, due := e.Next(); due; at, due = e.Next() {
		show(e.Tick(at)) // a shell sets a timer for it
	}
	// Output:
	// 0s: low → high (grant), 60 MiB to release
	// 4s: high → moderate (dwell), 0 MiB to release
	// 7s: moderate → low (dwell), 0 MiB to release
}
