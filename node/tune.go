package node

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/internal/fdroom"
	"github.com/isobar-project/isobar/node/places"
)

// gcPercent lets the heap grow to three times what lives before it is collected: a node's
// live heap is a few megabytes, and collecting it costs more than it holds.
const gcPercent = 200

// Tune sets what concerns the process as a whole; a program that is a node calls it once,
// before Open.
func Tune(c *Config) {
	c.Blocking = places.Open(places.Config{
		All: runtime.GOMAXPROCS(0), Set: func(n int) { runtime.GOMAXPROCS(n) }, Look: places.Process(), Clock: clock.Real(),
	}).Add
	debug.SetGCPercent(gcPercent)
	// Nobody can ask for the profile of allocations that a library has kept: it costs a
	// hundredth of a busy node's time.
	runtime.MemProfileRate = 0
	lowerOOMScore()
	_ = fdroom.Make(fdroom.Enough) // without it the node waits later
}

// lowerOOMScore makes the kernel look elsewhere first when memory runs out: the node
// holds everybody's. Where that is not permitted nothing changes.
func lowerOOMScore() {
	old, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil || strings.HasPrefix(string(old), "-") {
		return
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-800"), 0)
}
