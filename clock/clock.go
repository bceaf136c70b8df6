// Package clock is the only place where the project meets time.
//
// Deadlines are Instants: nanoseconds of CLOCK_BOOTTIME, which runs on while
// the machine sleeps, never jumps with the wall clock, and means the same to a
// node and to the one that takes over from it on the same boot. Wall-clock times
// are for people and for the wire; nothing is decided by them.
//
// Pure cores take an Instant as a parameter. Shells take a Clock, so that tests
// drive time by hand with Manual and never sleep.
package clock

import (
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Instant is a point in time: nanoseconds since the machine booted.
type Instant int64

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from o to i.
func (i Instant) Sub(o Instant) time.Duration { return time.Duration(i - o) }

// Clock tells time and calls back. All methods may be called from any goroutine.
type Clock interface {
	Now() Instant
	// Wall is the time of day, UTC.
	Wall() time.Time
	// Both is Now and Wall of the same moment, by one look instead of two.
	Both() (Instant, time.Time)
	// AfterFunc calls f once in its own goroutine when d has passed.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a pending AfterFunc.
type Timer interface {
	// Stop reports whether it prevented the call.
	Stop() bool
}

// realClock reads the boot-time clock by way of the monotonic one, which the machine
// gives without a system call, and looks again at their difference now and then: it
// changes when the machine has slept.
type realClock struct {
	base  time.Time    // when boot and base were taken together
	ahead atomic.Int64 // boot time at base, corrected by later looks
	next  atomic.Int64 // nanoseconds after base at which to look again
}

// lookAgain is how long a sleep of the machine may go unnoticed.
const lookAgain = time.Second

// Real is the machine's clock.
func Real() Clock {
	c := &realClock{base: time.Now()}
	c.ahead.Store(boottime())
	c.next.Store(int64(lookAgain))
	return c
}

func boottime() int64 {
	var ts unix.Timespec
	// CLOCK_BOOTTIME exists since Linux 2.6.39 and cannot fail with a valid pointer.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano()
}

func (c *realClock) Now() Instant { return c.instant(time.Since(c.base)) }

func (c *realClock) Both() (Instant, time.Time) {
	t := time.Now()
	return c.instant(t.Sub(c.base)), t.UTC()
}

// instant is the boot time at so long after base, which is now.
func (c *realClock) instant(now time.Duration) Instant {
	since := int64(now)
	if next := c.next.Load(); since >= next && c.next.CompareAndSwap(next, since+int64(lookAgain)) {
		// Never backwards: the two clocks are not read at one instant.
		if ahead := boottime() - int64(time.Since(c.base)); ahead > c.ahead.Load() {
			c.ahead.Store(ahead)
		}
	}
	return Instant(c.ahead.Load() + since)
}

func (*realClock) Wall() time.Time { return time.Now().UTC() }

func (*realClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// Manual is a clock that moves only when told to.
type Manual struct {
	mu      sync.Mutex
	now     Instant
	wall    time.Time
	pending []*manualTimer
	seq     int
}

// NewManual starts at the given instant and time of day.
func NewManual(now Instant, wall time.Time) *Manual {
	return &Manual{now: now, wall: wall.UTC()}
}

// Now implements Clock.
func (m *Manual) Now() Instant {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Wall implements Clock.
func (m *Manual) Wall() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wall
}

// Both implements Clock.
func (m *Manual) Both() (Instant, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now, m.wall
}

// AfterFunc implements Clock. f runs inside the Advance that reaches it, on the
// caller's goroutine.
func (m *Manual) AfterFunc(d time.Duration, f func()) Timer {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq++
	t := &manualTimer{clock: m, at: m.now.Add(d), seq: m.seq, f: f}
	m.pending = append(m.pending, t)
	return t
}

// Advance moves time by d and runs, in order, every timer that falls due,
// including those that the timers themselves set. Several goroutines may.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	end := m.now.Add(d)
	for {
		sort.Slice(m.pending, func(i, j int) bool {
			a, b := m.pending[i], m.pending[j]
			return a.at < b.at || a.at == b.at && a.seq < b.seq
		})
		if len(m.pending) == 0 || m.pending[0].at > end {
			break
		}
		t := m.pending[0]
		m.pending = m.pending[1:]
		m.reach(t.at)
		m.mu.Unlock()
		t.f()
		m.mu.Lock()
	}
	m.reach(end)
	m.mu.Unlock()
}

// reach moves time forward, never back: somebody else may have moved it further meanwhile.
func (m *Manual) reach(i Instant) {
	if i > m.now {
		m.wall, m.now = m.wall.Add(i.Sub(m.now)), i
	}
}

type manualTimer struct {
	clock *Manual
	at    Instant
	seq   int
	f     func()
}

func (t *manualTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	for i, p := range t.clock.pending {
		if p == t {
			t.clock.pending = append(t.clock.pending[:i], t.clock.pending[i+1:]...)
			return true
		}
	}
	return false
}
