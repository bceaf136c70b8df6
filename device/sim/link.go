package sim

import (
	"context"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// link is the way to the device: so many bytes a second, one transfer after the
// other.
type link struct {
	clock     clock.Clock
	bandwidth int64 // bytes a second, 0: no time at all
	latency   time.Duration

	mu   sync.Mutex
	free clock.Instant // when the transfers so far are through
}

// enter waits for the latency of one call.
func (l *link) enter(ctx context.Context) error { return l.wait(ctx, l.latency) }

// pass waits until n bytes are through, or the context ends; it reports which.
func (l *link) pass(ctx context.Context, n int64) error {
	var wait time.Duration
	if l.bandwidth > 0 && n > 0 {
		l.mu.Lock()
		now := l.clock.Now()
		l.free = max(l.free, now).Add(time.Duration(float64(n) / float64(l.bandwidth) * float64(time.Second)))
		wait = l.free.Sub(now)
		l.mu.Unlock()
	}
	return l.wait(ctx, wait)
}

func (l *link) wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	through := make(chan struct{})
	timer := l.clock.AfterFunc(d, func() { close(through) })
	select {
	case <-through:
		return nil
	case <-ctx.Done():
		timer.Stop()
		return ctx.Err()
	}
}
