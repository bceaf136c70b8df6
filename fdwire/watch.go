package fdwire

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/internal/epoll"
)

// ExitWatcher tells when processes end. Watcher is the real one; tests inject
// their own.
type ExitWatcher interface {
	// Watch calls gone once when the process of pidfd has ended, at once if it has
	// already. gone must not block. stop ends the watch; gone may be running
	// while it returns. pidfd may be closed at any time without effect on the
	// watch.
	Watch(pidfd *os.File, gone func()) (stop func(), err error)
}

// Watcher is an ExitWatcher: an epoll of pidfds that itself sits in Go's poller.
type Watcher struct {
	set *epoll.Set

	mu     sync.Mutex
	closed bool
	next   int32
	live   map[int32]watch
}

type watch struct {
	fd   int // our own duplicate
	gone func()
}

// NewWatcher starts a watcher.
func NewWatcher() (*Watcher, error) {
	w := &Watcher{live: map[int32]watch{}}
	var err error
	if w.set, err = epoll.Open(w.ended); err != nil {
		return nil, fmt.Errorf("watcher: %w", err)
	}
	return w, nil
}

// Watch implements ExitWatcher.
func (w *Watcher) Watch(pidfd *os.File, gone func()) (func(), error) {
	fd, err := dup(pidfd)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", pidfd.Name(), err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", pidfd.Name(), os.ErrClosed)
	}
	for {
		w.next++
		if _, taken := w.live[w.next]; !taken {
			break
		}
	}
	key := w.next
	if err := w.set.Add(fd, unix.EPOLLIN|unix.EPOLLONESHOT, key); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", pidfd.Name(), err)
	}
	w.live[key] = watch{fd: fd, gone: gone}
	return func() { w.forget(key) }, nil
}

// forget ends a watch and returns its callback, nil if it ended before.
func (w *Watcher) forget(key int32) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	one, ok := w.live[key]
	if !ok {
		return nil
	}
	delete(w.live, key)
	// A pidfd's description may have other descriptors, so closing ours would
	// not take it out of the set.
	w.set.Remove(one.fd)
	_ = unix.Close(one.fd)
	return one.gone
}

// Close ends all watches without calling back, and waits for a callback that runs.
func (w *Watcher) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return w.set.Close()
	}
	w.closed = true
	keys := make([]int32, 0, len(w.live))
	for key := range w.live {
		keys = append(keys, key)
	}
	w.mu.Unlock()
	for _, key := range keys {
		w.forget(key)
	}
	return w.set.Close()
}

func (w *Watcher) ended(e unix.EpollEvent) {
	if gone := w.forget(e.Fd); gone != nil {
		gone()
	}
}

// dup duplicates f's descriptor, close-on-exec.
func dup(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, result := -1, error(nil)
	if err := raw.Control(func(old uintptr) {
		fd, result = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	return fd, result
}
