//go:build linux

package cuda

import (
	"runtime"
	"sync"

	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// thread is an OS thread on which the GPU's context is current. It does one thing after the
// other, for whoever asks.
type thread struct {
	jobs  chan func()
	ended chan struct{}
}

// startThread makes one.
func startThread(cu *api.CUDA, ctx api.Context) (*thread, error) {
	t := &thread{jobs: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(t.ended)
		err := onThread(cu, ctx, func() error {
			ready <- nil
			for job := range t.jobs {
				job()
			}
			return nil
		})
		if err != nil {
			ready <- err
		}
	}()
	if err := <-ready; err != nil {
		<-t.ended
		return nil, err
	}
	return t, nil
}

// onThread runs f locked to the goroutine's thread, with the context current. The thread is
// given back without one.
func onThread(cu *api.CUDA, ctx api.Context, f func() error) error {
	runtime.LockOSThread()
	if err := cu.SetCurrent(ctx); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err := f()
	if cu.SetCurrent(0) != nil {
		return err // stays locked: the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func() error) error {
	done := make(chan error, 1)
	t.jobs <- func() { done <- f() }
	return <-done
}

// control makes, maps and imports, and takes samples: one after the other, so that a sample's figures
// belong together. That is done on the thread of who asks: to wake another one, and be woken by it,
// takes as long as the driver's calls do.
type control struct {
	cu  *api.CUDA
	ctx api.Context
	mu  sync.Mutex
}

// do runs f with the GPU's context current, when nobody else's f runs.
func (c *control) do(f func() error) error {
	return c.alone(func() error { return onThread(c.cu, c.ctx, f) })
}

// alone is do without the context.
func (c *control) alone(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f()
}

// stop ends the thread, which must have nothing to do any more.
func (t *thread) stop() {
	close(t.jobs)
	<-t.ended
}
