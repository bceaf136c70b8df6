package stall

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/hostmem"
)

// Kernel is what the sources need of the machine. fired is called with nil for each event,
// and once with an error when there will be no more; it does not block.
type Kernel interface {
	ReadFile(path string) ([]byte, error)
	// Trigger arms a PSI trigger, such as "some 50000 500000".
	Trigger(path, spec string, fired func(error)) (stop func(), err error)
	// Changed hears of every change of a file's content.
	Changed(path string, fired func(error)) (stop func(), err error)
	// PressureLevel hears of a level of a version 1 group's memory.pressure_level.
	PressureLevel(dir, level string, fired func(error)) (stop func(), err error)
	Close() error
}

// Config says what is to be heard.
type Config struct {
	// Root is put before /proc; "" means "/".
	Root string
	// Groups are the control groups, usually hostmem.Reader.Groups.
	Groups []hostmem.Group
	// Kernel nil is this machine's, Clock nil the real one.
	Kernel Kernel
	Clock  clock.Clock
	// Report takes the signals.
	Report func(device.Signal)
}

// retryAfter is the pause before a lost source is asked for again, and pollPeriod that
// between two readings of a PSI file that has no triggers.
const (
	retryAfter = 10 * time.Second
	pollPeriod = time.Second
)

// share is the part of time, one in so many, that counts as waiting for memory.
const share = 10

// windows are those of PSI triggers, the best first.
var windows = [...]time.Duration{500 * time.Millisecond, 2 * time.Second}

// Watch hears sources until it is closed.
type Watch struct {
	c       Config
	sources []string

	mu     sync.Mutex
	closed bool
	timers map[*clock.Timer]struct{}
	stops  []func()
}

// Open begins to listen. A machine without any source is not an error: Sources is then empty.
func Open(c Config) (*Watch, error) {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Kernel == nil {
		k, err := openMachine()
		if err != nil {
			return nil, fmt.Errorf("stall: %w", err)
		}
		c.Kernel = k
	}
	w := &Watch{c: c, timers: map[*clock.Timer]struct{}{}}
	w.psi(filepath.Join(c.Root, "proc/pressure/memory"))
	for _, g := range c.Groups {
		if g.Version == 1 {
			w.levels(g.Dir)
			continue
		}
		w.psi(filepath.Join(g.Dir, "memory.pressure"))
		w.events(g.Dir)
	}
	return w, nil
}

// Sources names what can be heard.
func (w *Watch) Sources() []string { return w.sources }

// Close ends all reports and waits for one that is being made.
func (w *Watch) Close() error {
	w.mu.Lock()
	w.closed = true
	for t := range w.timers {
		(*t).Stop()
	}
	stops := w.stops
	w.stops = nil
	w.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	return w.c.Kernel.Close()
}

// say reports a signal, unless the watch is closed.
func (w *Watch) say(s device.Signal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.c.Report(s)
	}
}

// after calls f once, unless the watch is closed by then.
func (w *Watch) after(d time.Duration, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	t := new(clock.Timer)
	*t = w.c.Clock.AfterFunc(d, func() {
		w.mu.Lock()
		delete(w.timers, t)
		closed := w.closed
		w.mu.Unlock()
		if !closed {
			f()
		}
	})
	w.timers[t] = struct{}{}
}

// keep notes how a source is ended.
func (w *Watch) keep(stop func()) {
	w.mu.Lock()
	closed := w.closed
	if !closed {
		w.stops = append(w.stops, stop)
	}
	w.mu.Unlock()
	if closed {
		stop()
	}
}

// source arms one source, and again whenever it has been lost. first is what arming it the
// first time came to: absent sources are not missed.
func (w *Watch) source(name string, arm func(lost func(error)) error) bool {
	var again func()
	lost := func(err error) {
		w.say(device.Signal{Source: name, Lost: true, Reason: err.Error()})
		w.after(retryAfter, again)
	}
	again = func() {
		if err := arm(lost); err != nil {
			w.after(retryAfter, again)
			return
		}
		w.say(device.Signal{Source: name, Reason: "it can be heard again"})
	}
	if err := arm(lost); err != nil {
		return false
	}
	w.sources = append(w.sources, name)
	return true
}

// psi listens to a PSI file.
func (w *Watch) psi(path string) {
	if _, err := w.c.Kernel.ReadFile(path); err != nil {
		return // not built into the kernel, or switched off
	}
	armed := w.source(path, func(lost func(error)) error {
		var err error
		for _, window := range windows {
			if err = w.triggers(path, window, lost); err == nil {
				return nil
			}
			if !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrPermission) {
				break
			}
		}
		return err
	})
	if !armed {
		w.sources = append(w.sources, path)
		w.poll(path, 0, 0, w.c.Clock.Now())
	}
}

// triggers arms both triggers of a PSI file, or none.
func (w *Watch) triggers(path string, window time.Duration, lost func(error)) error {
	var stops []func()
	once := sync.OnceFunc(func() { lost(fmt.Errorf("%s: the kernel has dropped the trigger", path)) })
	for _, k := range [...]struct {
		kind     string
		severity device.Severity
	}{{"some", device.Tight}, {"full", device.Dire}} {
		spec := fmt.Sprintf("%s %d %d", k.kind, (window / share).Microseconds(), window.Microseconds())
		stop, err := w.c.Kernel.Trigger(path, spec, func(err error) {
			if err != nil {
				once()
				return
			}
			w.stalled(path, k.kind, k.severity, window)
		})
		if err != nil {
			for _, stop := range stops {
				stop()
			}
			return fmt.Errorf("%s: trigger %q: %w", path, spec, err)
		}
		stops = append(stops, stop)
	}
	for _, stop := range stops {
		w.keep(stop)
	}
	return nil
}

func (w *Watch) stalled(path, kind string, severity device.Severity, window time.Duration) {
	// The kernel fires once a window at most: two windows of silence are silence.
	w.say(device.Signal{Source: path, Severity: severity, Hold: 2 * window,
		Reason: fmt.Sprintf("%s tasks waited for memory a tenth of %v", kind, window)})
}

// poll reads a PSI file that gives no triggers, and again and again.
func (w *Watch) poll(path string, some, full time.Duration, since clock.Instant) {
	text, err := w.c.Kernel.ReadFile(path)
	now := w.c.Clock.Now()
	var s, f time.Duration
	if err == nil {
		s, f, err = totals(text)
	}
	if err != nil {
		w.say(device.Signal{Source: path, Lost: true, Reason: err.Error()})
		w.after(retryAfter, func() { w.poll(path, 0, 0, w.c.Clock.Now()) })
		return
	}
	passed := now.Sub(since)
	switch {
	case some == 0 || passed <= 0: // the first reading says nothing yet
		w.say(device.Signal{Source: path, Reason: "it is read each second: the kernel gives no triggers"})
	case (f-full)*share >= passed:
		w.stalled(path, "full", device.Dire, pollPeriod)
	case (s-some)*share >= passed:
		w.stalled(path, "some", device.Tight, pollPeriod)
	}
	w.after(pollPeriod, func() { w.poll(path, s+1, f, now) }) // one more: zero is «not read yet»
}
