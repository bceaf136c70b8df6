package places

import (
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// Config describes the process.
type Config struct {
	// All is how many places there are when one is not enough, at least 1.
	All int
	// Set sets the number of places. It is called with the lock held, one call at a time.
	Set func(n int)
	// Look reads the figures of the process; At is filled in by Places.
	Look  func() Look
	Clock clock.Clock
}

// Places governs one process. Its methods may be called from any goroutine.
type Places struct {
	cfg Config

	mu     sync.Mutex
	core   governor
	extra  int // goroutines that sit in long system calls
	set    int
	timer  clock.Timer
	closed bool
}

// Open sets all places and begins to look.
func Open(c Config) *Places {
	p := &Places{cfg: c}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.apply()
	if c.All > 1 {
		p.core.last = p.look()
		p.timer = c.Clock.AfterFunc(lookOften, p.tick)
	}
	return p
}

// Add takes note of so many goroutines more (n > 0) or fewer that sit in long system calls
// (reading a file, making pages). Each would hold a place until the scheduler notices, up to
// 10 ms later; there is one more for it meanwhile, so that commands never wait for one. With
// 0 it takes note of one that sits in a call of less than a millisecond or so: that needs no
// place more, but more than one.
func (p *Places) Add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.extra += n
	p.core.more()
	p.apply()
}

// Close ends the looking and leaves all places.
func (p *Places) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.core.more()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.apply()
}

func (p *Places) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	again := p.core.step(p.look())
	if p.extra > 0 {
		// One place beside those that block would be none when one of them comes back from its
		// call: measured, the p99 of an allocate beside a large load was half as long again.
		// There is nothing to decide until they are done, so looks are rare.
		p.core.more()
		again = lookRarely
	}
	p.apply()
	p.timer = p.cfg.Clock.AfterFunc(again, p.tick)
}

func (p *Places) look() Look {
	l := p.cfg.Look()
	l.At = time.Duration(p.cfg.Clock.Now())
	return l
}

// apply sets the places if they are others than before.
func (p *Places) apply() {
	n := p.cfg.All
	if p.core.few {
		n = 1
	}
	if n += p.extra; n != p.set {
		p.set = n
		p.cfg.Set(n)
	}
}
