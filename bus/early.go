package bus

import (
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// mostEarly is how many commands wait for the service to be whole; those beyond it are taken
// at once.
const mostEarly = 1024

// early keeps the commands that come before the server has taken every subscription: whoever
// had one of them answered could find nobody to take the next, of another action.
type early struct {
	open    atomic.Bool
	mu      sync.Mutex
	waiting []func()
}

// keep keeps a copy of m for take; false if commands are taken by now. It never waits: the
// connection of some links is read by the goroutine that calls it.
func (e *early) keep(m *nats.Msg, take func(*nats.Msg)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open.Load() || len(e.waiting) == mostEarly {
		return false
	}
	c := &nats.Msg{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: append([]byte(nil), m.Data...)}
	if m.Header != nil {
		c.Header = make(nats.Header, len(m.Header))
		for k, v := range m.Header {
			c.Header[k] = append([]string(nil), v...)
		}
	}
	e.waiting = append(e.waiting, func() { take(c) })
	return true
}

// release has what was kept taken, in the order of its arrival and before anything later.
func (e *early) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, take := range e.waiting {
		take()
	}
	e.waiting = nil
	e.open.Store(true)
}
