package sim

import (
	"sync"
	"time"
)

// Faults is the list of what is to go wrong. The zero value is a device in perfect
// order. It is safe for use by several goroutines.
type Faults struct {
	mu          sync.Mutex
	create      countdown
	copying     countdown
	copyErr     error
	slowRelease time.Duration
	hold        bool
	lost        bool
}

// countdown fires once, at its n-th call.
type countdown int

func (c *countdown) fire() bool {
	if *c == 0 {
		return false
	}
	*c--
	return *c == 0
}

// FailCreate makes the n-th Create from now fail with device.ErrOutOfMemory; 1 is
// the next, 0 none.
func (f *Faults) FailCreate(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.create = countdown(n)
}

// FailCopy makes the n-th Fill, Copy, Clear, Read or Write from now fail with err, before it
// touches a byte; 1 is the next, 0 none.
func (f *Faults) FailCopy(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.copying, f.copyErr = countdown(n), err
}

// SlowRelease makes the bytes of every segment destroyed from now on stay used for
// d, as of a process whose teardown takes its time.
func (f *Faults) SlowRelease(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slowRelease = d
}

// HoldRelease makes Released answer false while on, whoever holds the segment.
func (f *Faults) HoldRelease(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = on
}

// Lose makes the device be lost, for good: every call but Destroy and Close fails
// with device.ErrLost.
func (f *Faults) Lose() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = true
}

func (f *Faults) createFails() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.create.fire()
}

func (f *Faults) copyFails() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.copying.fire() {
		return f.copyErr
	}
	return nil
}

func (f *Faults) releaseDelay() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.slowRelease
}

func (f *Faults) holdsRelease() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hold
}

func (f *Faults) isLost() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}
