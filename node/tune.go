package node

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// gcPercent lets the heap grow to three times what lives before it is collected: a node's
// live heap is a few megabytes, and collecting it costs more than it holds.
const gcPercent = 200

// Tune sets what concerns the process as a whole; a program that is a node calls it once,
// before Open.
func Tune(c *Config) {
	p := &places{base: runtime.NumCPU()}
	p.add(0)
	c.Blocking = p.add
	debug.SetGCPercent(gcPercent)
	lowerOOMScore()
}

// places are those of the Go scheduler. A worker that sits in a long system call (reading a
// file, making pages) holds one until the scheduler notices, up to 10 ms later; with one more
// for each while it is at it, commands never wait for one. More than there are processors at
// other times makes every hand-over between goroutines wake another thread, which the
// commands of an otherwise idle node pay for (docs/decisions/0013).
type places struct {
	base int

	mu    sync.Mutex
	extra int
}

// add takes note of so many goroutines more, or fewer, that block. Any goroutine may call
// it; the change stops the process for some ten microseconds.
func (p *places) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.extra += n
	runtime.GOMAXPROCS(p.base + p.extra)
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
