package actors

import (
	"runtime"
	"sync"

	"github.com/isobar-project/isobar/schemas"
)

// workers are the goroutines of one device that may block: a control goroutine, locked
// to its OS thread because GPU contexts need that; copy goroutines, which make, clear and
// fill memory; one that puts into the vault; and reapers for what may take long and nobody waits for. Work is only
// ever given by the device's actor, which takes credit for the answer, so the queues are
// bounded by what the device has in flight.
type workers struct {
	control, copies, reaper line
	vault                   line // puts into the vault, many at a time
	wg                      sync.WaitGroup
}

func newWorkers(copies, reapers int) *workers {
	w := &workers{}
	for _, l := range []*line{&w.control, &w.copies, &w.reaper, &w.vault} {
		l.cond.L = &l.mu
	}
	w.start(&w.control, 1, true)
	w.start(&w.copies, max(1, copies), false)
	w.start(&w.reaper, max(1, reapers), false)
	w.start(&w.vault, 1, false)
	return w
}

// reapers is how many segments of a device are destroyed at once. A GPU's driver may hang over
// one; the kernel is busy with main memory as long as it frees it.
func reapers(kind schemas.DeviceType) int {
	if kind == schemas.DeviceTypeRAM {
		return 1
	}
	return 8
}

func (w *workers) start(l *line, n int, lock bool) {
	for range n {
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			if lock {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
			}
			for {
				job, ok := l.take()
				if !ok {
					return
				}
				job()
			}
		}()
	}
}

// close lets the workers finish what they are at and ends them; what waits is dropped.
func (w *workers) close() {
	for _, l := range []*line{&w.control, &w.copies, &w.reaper, &w.vault} {
		l.close()
	}
	w.wg.Wait()
}

// line is an unbounded queue of jobs.
type line struct {
	mu     sync.Mutex
	cond   sync.Cond
	jobs   []func()
	closed bool
}

func (l *line) put(job func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.jobs = append(l.jobs, job)
	l.cond.Signal()
}

func (l *line) take() (func(), bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.jobs) == 0 && !l.closed {
		l.cond.Wait()
	}
	if l.closed {
		return nil, false
	}
	job := l.jobs[0]
	l.jobs[0] = nil
	l.jobs = l.jobs[1:]
	return job, true
}

func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.jobs = true, nil
	l.cond.Broadcast()
}
