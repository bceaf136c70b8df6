package places_test

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/node/places"
)

// A process at rest is given one place; work that blocks brings the others back, and one of
// its own.
func Example() {
	c := clock.NewManual(0, time.Unix(0, 0))
	p := places.Open(places.Config{All: 8, Clock: c, Set: func(n int) { fmt.Println(n, "places") }, Look: func() places.Look { return places.Look{} }})
	for range 10 {
		c.Advance(time.Millisecond)
	}
	p.Add(1)
	p.Close()
	// Output:
	// 8 places
	// 1 places
	// 9 places
}
