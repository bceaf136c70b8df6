//go:build linux

package cuda

import (
	"runtime"

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

// stop ends the thread, which must have nothing to do any more.
func (t *thread) stop() {
	close(t.jobs)
	<-t.ended
}
