package actors

import "sync"

// crew is the goroutines that work for an actor. The zero value is ready.
type crew struct {
	mu  sync.Mutex
	off bool
	wg  sync.WaitGroup
}

// join runs work on a goroutine of its own; once the crew is off it does not, and says so.
func (c *crew) join(work func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return false
	}
	c.wg.Go(work)
	return true
}

// callOff waits for those who are at work, and lets nobody join any more.
func (c *crew) callOff() {
	c.mu.Lock()
	c.off = true
	c.mu.Unlock()
	c.wg.Wait()
}
