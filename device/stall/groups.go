package stall

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isobar-project/isobar/device"
)

// eventHold is how long an event of a control group counts: reclaim at a limit comes in
// bursts, and the next one is a second away at most while it lasts.
const eventHold = 2 * time.Second

// cacheShare is how little page cache is hardly any: a 32nd of what a group uses.
const cacheShare = 32

// events listens to memory.events of a version 2 group.
func (w *Watch) events(dir string) {
	path := filepath.Join(dir, "memory.events")
	if _, err := w.counters(path); err != nil {
		return // the root of the hierarchy has none
	}
	w.source(path, func(lost func(error)) error {
		var mu sync.Mutex
		last, err := w.counters(path)
		if err != nil {
			return err
		}
		over := false
		stop, err := w.c.Kernel.Changed(path, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			if over {
				return
			}
			var next map[string]int64
			if err == nil {
				next, err = w.counters(path)
			}
			if err != nil {
				over = true
				lost(err)
				return
			}
			w.compare(dir, path, last, next)
			last = next
		})
		if err == nil {
			w.keep(stop)
		}
		return err
	})
}

// compare says what rose from one reading of memory.events to the next.
func (w *Watch) compare(dir, path string, last, next map[string]int64) {
	rose := func(key string) int64 { return next[key] - last[key] }
	say := func(severity device.Severity, format string, args ...any) {
		w.say(device.Signal{Source: path, Severity: severity, Hold: eventHold, Reason: fmt.Sprintf(format, args...)})
	}
	switch {
	case rose("oom_kill") > 0:
		say(device.Dire, "the kernel killed %d processes for want of memory", rose("oom_kill"))
	case rose("oom") > 0:
		say(device.Dire, "an allocation failed at memory.max")
	case rose("max") <= 0 && rose("high") <= 0 || !w.hardlyAnyCache(dir, "memory.current", "file", "shmem"):
	case rose("max") > 0:
		say(device.Dire, "memory.max was hit %d times, with hardly any page cache left", rose("max"))
	default:
		say(device.Tight, "memory.high was crossed %d times, with hardly any page cache left", rose("high"))
	}
}

// levels listens to memory.pressure_level of a version 1 group.
func (w *Watch) levels(dir string) {
	path := filepath.Join(dir, "memory.pressure_level")
	w.source(path, func(lost func(error)) error {
		var stops []func()
		once := sync.OnceFunc(func() { lost(fmt.Errorf("%s: the group is gone", path)) })
		for _, l := range [...]struct {
			name     string
			severity device.Severity
		}{{"medium", device.Tight}, {"critical", device.Dire}} {
			stop, err := w.c.Kernel.PressureLevel(dir, l.name, func(err error) {
				switch {
				case err != nil:
					once()
				case l.severity == device.Dire || w.hardlyAnyCache(dir, "memory.usage_in_bytes", "total_cache", "total_shmem"):
					w.say(device.Signal{Source: path, Severity: l.severity, Hold: eventHold, Reason: "memory.pressure_level is " + l.name})
				}
			})
			if err != nil {
				for _, stop := range stops {
					stop()
				}
				return err
			}
			stops = append(stops, stop)
		}
		for _, stop := range stops {
			w.keep(stop)
		}
		return nil
	})
}

// hardlyAnyCache reports whether a group has next to nothing left that the kernel could
// drop. Where that cannot be read, it does not know, and says so by yes.
func (w *Watch) hardlyAnyCache(dir, usageFile, cacheKey, shmemKey string) bool {
	text, err := w.c.Kernel.ReadFile(filepath.Join(dir, usageFile))
	if err != nil {
		return true
	}
	usage, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return true
	}
	stat, err := w.counters(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return true
	}
	return (stat[cacheKey]-stat[shmemKey])*cacheShare < usage
}

// counters reads a file of lines such as "high 12".
func (w *Watch) counters(path string) (map[string]int64, error) {
	text, err := w.c.Kernel.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: strange line %q", path, strings.TrimSpace(line))
		}
		out[key] = n
	}
	return out, nil
}

// totals reads the times of a PSI file: how long some and all tasks have waited so far.
func totals(text []byte) (some, full time.Duration, err error) {
	for line := range strings.Lines(string(text)) {
		kind, rest, _ := strings.Cut(line, " ")
		_, total, ok := strings.Cut(rest, "total=")
		n, bad := strconv.ParseInt(strings.TrimSpace(total), 10, 64)
		if !ok || bad != nil || n < 0 || n > 1<<52 {
			return 0, 0, fmt.Errorf("strange line %q of a pressure file", strings.TrimSpace(line))
		}
		switch kind {
		case "some":
			some = time.Duration(n) * time.Microsecond
		case "full":
			full = time.Duration(n) * time.Microsecond
		}
	}
	return some, full, nil
}
