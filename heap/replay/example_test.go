package replay_test

import (
	"fmt"

	"github.com/isobar-project/isobar/heap/replay"
)

// How much more than its peak of live bytes does a training step need?
func Example() {
	step := replay.Synthetic(1)[0]
	for percent := int64(100); ; percent++ {
		if step.Fits(step.Peak * percent / 100) {
			fmt.Println(percent <= 125)
			return
		}
	}
	// Output: true
}
