package node

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// gcPercent lets the heap grow to three times what lives before it is collected: a node's
// live heap is a few megabytes, and collecting it costs more than it holds.
const gcPercent = 200

// Tune sets what concerns the process as a whole; a program that is a node calls it once,
// before Open. Workers that sit in long system calls (reading a file, making pages) hold a
// place of the Go scheduler until it notices, up to 10 ms later; with a place more for
// each of them, commands never wait for one.
func Tune(c *Config) {
	runtime.GOMAXPROCS(runtime.NumCPU() + c.LoadWorkers)
	debug.SetGCPercent(gcPercent)
	lowerOOMScore()
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
