package history_test

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/history"
)

func Example() {
	h := history.New(history.Config{Devices: 1})
	at := clock.Instant(time.Hour)
	for i := range int64(4) {
		h.Add("gpu-0", history.Point{At: at.Add(time.Duration(i) * time.Second), Used: 100 * i}, history.Counters{Grants: 3 * i})
	}
	for _, p := range h.Series("gpu-0", 0, 2*time.Second) {
		fmt.Println(p.Used, p.Peak, p.Grown.Grants)
	}
	// Output:
	// 100 100 3
	// 300 300 6
}
