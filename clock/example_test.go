package clock_test

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// A test moves time by hand: what is due has happened when Advance returns.
func ExampleManual() {
	c := clock.NewManual(0, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	c.AfterFunc(time.Minute, func() { fmt.Println("expired at", c.Wall().Format(time.TimeOnly)) })
	c.Advance(59 * time.Second)
	fmt.Println("not yet")
	c.Advance(time.Second)
	// Output:
	// not yet
	// expired at 03:05:05
}
