package places

import (
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"
)

// latencies is the runtime's histogram of how long goroutines were ready before they ran.
const latencies = "/sched/latencies:seconds"

// tracked: the runtime takes the time of every eighth transition of a goroutine only
// (gTrackingPeriod in runtime/proc.go, Go 1.26).
const tracked = 8

// Process returns a reader of this process's figures, for one goroutine at a time. It
// allocates at its first call only.
func Process() func() Look {
	sample := []metrics.Sample{{Name: latencies}}
	return func() Look {
		var l Look
		metrics.Read(sample)
		if sample[0].Value.Kind() == metrics.KindFloat64Histogram {
			l.Waited, l.Runs = total(sample[0].Value.Float64Histogram())
		}
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err == nil {
			l.Used = time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
		return l
	}
}

// total is the sum of a histogram of seconds, each bucket counted at its lower bound, and of
// its counts.
func total(h *metrics.Float64Histogram) (sum time.Duration, count uint64) {
	seconds := 0.0
	for i, n := range h.Counts {
		if n == 0 {
			continue
		}
		if low := h.Buckets[i]; low > 0 {
			seconds += low * float64(n)
		}
		count += n
	}
	return time.Duration(tracked * seconds * float64(time.Second)), tracked * count
}
