package seam

import (
	"errors"
	"runtime"
	"sync"
)

// Refusals of Tell. They are returned as they are, so == works.
var (
	// ErrBusy says that the lane is full: try later, or tell the client so.
	ErrBusy = errors.New("mailbox lane full")
	// ErrStopped says that the receiver will take no more messages.
	ErrStopped = errors.New("actor stopped")
	// ErrOverflow says that the System lane hit its cap: somebody starts work
	// without taking credit for the answer. It is a defect, not a load.
	ErrOverflow = errors.New("system lane overflow")
)

// fairness is how many messages a turn delivers before it offers its processor
// to other goroutines.
const fairness = 256

// mailbox holds what was told and not yet delivered. All of its state is
// guarded by one mutex that is held for a few instructions at a time and never
// while a receiver runs.
//
// It is scheduled or idle. The push that finds it idle makes it scheduled and
// must cause exactly one turn; the turn that finds nothing more makes it idle,
// in the same critical section in which it saw that, so no wake-up is lost and
// none is given twice.
type mailbox struct {
	deliver  func(msg any) // runs the receiver; may panic
	control  func(msg any) // runs the library's own lifecycle messages
	schedule func()        // causes one turn on the actor's goroutine
	failed   func(v any)   // a panic came out of deliver or control; runs while recovering

	mu        sync.Mutex
	lanes     [laneCount]ring
	lifecycle []any // the library's own messages, before every lane
	passed    int   // messages of higher lanes since a query last went or none waited
	scheduled bool
	closed    bool // nothing more is taken from senders
	dead      bool // nothing at all is delivered any more; stays scheduled for ever
}

// push enqueues msg. wake is true when the caller must cause a turn.
func (m *mailbox) push(l Lane, msg any) (wake bool, err error) {
	m.mu.Lock()
	switch {
	case m.closed:
		m.mu.Unlock()
		return false, ErrStopped
	case !m.lanes[l].push(msg):
		m.mu.Unlock()
		return false, ErrBusy
	}
	wake = !m.scheduled
	m.scheduled = true
	m.mu.Unlock()
	return wake, nil
}

// pushLifecycle enqueues one of the library's own messages: never refused, few.
func (m *mailbox) pushLifecycle(msg any) {
	m.mu.Lock()
	m.lifecycle = append(m.lifecycle, msg)
	wake := !m.scheduled
	m.scheduled = true
	m.mu.Unlock()
	if wake {
		m.schedule()
	}
}

// close refuses and forgets everything but lifecycle messages. It reports
// false when that had happened before.
func (m *mailbox) close() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.closed = true
	for i := range m.lanes {
		m.lanes[i].clear()
	}
	return true
}

func (m *mailbox) depth() (d [laneCount]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.lanes {
		d[i] = m.lanes[i].n
	}
	return d
}

// next takes the message that is due. When there is none the mailbox is idle
// on return, and the caller must not touch it again before a turn is caused.
func (m *mailbox) next() (msg any, lifecycle, ok bool) {
	m.mu.Lock()
	switch {
	case m.dead:
	case len(m.lifecycle) > 0:
		msg, lifecycle, ok = m.lifecycle[0], true, true
		m.lifecycle[0] = nil
		if m.lifecycle = m.lifecycle[1:]; len(m.lifecycle) == 0 {
			m.lifecycle = nil
		}
	default:
		if lane := m.due(); lane != nil {
			msg, ok = lane.pop(), true
		} else {
			m.scheduled = false
		}
	}
	m.mu.Unlock()
	return msg, lifecycle, ok
}

// due chooses the lane to deliver from, nil if all are empty.
func (m *mailbox) due() *ring {
	queries := &m.lanes[QueryLane]
	if queries.n == 0 || m.passed < QueryQuota {
		for l := SystemLane; l < QueryLane; l++ {
			if m.lanes[l].n > 0 {
				if queries.n > 0 {
					m.passed++
				}
				return &m.lanes[l]
			}
		}
	}
	m.passed = 0
	if queries.n > 0 {
		return queries
	}
	return nil
}

// kill ends delivery for good. Only the running turn may call it.
func (m *mailbox) kill() {
	m.close()
	m.mu.Lock()
	m.dead = true
	m.lifecycle = nil
	m.mu.Unlock()
}

// turn delivers until nothing is left, whatever panics on the way. Only who
// holds the schedule may call it.
func (m *mailbox) turn() {
	for left := int(^uint(0) >> 1); m.run(&left); {
		runtime.Gosched()
	}
}

// turnOf delivers at most n messages and leaves the rest to the actor's own
// goroutine. Only who holds the schedule may call it.
func (m *mailbox) turnOf(n int) {
	for m.run(&n) {
		if n <= 0 {
			m.schedule()
			return
		}
	}
}

// run delivers until the mailbox is idle or dead, in which case it reports
// false, or until left is used up, a fair share is done, or a panic ended it.
func (m *mailbox) run(left *int) (more bool) {
	more = true
	clean := false
	defer func() {
		if !clean {
			m.failed(recover())
		}
	}()
	for range fairness {
		if *left <= 0 {
			break
		}
		msg, lifecycle, ok := m.next()
		if !ok {
			more = false
			break
		}
		*left--
		if lifecycle {
			m.control(msg)
		} else {
			m.deliver(msg)
		}
	}
	clean = true
	return more
}
