package fdwire

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
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
	file *os.File
	raw  syscall.RawConn
	done chan struct{}

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
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watcher: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watcher: %w", err)
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}), live: map[int32]watch{}}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		_ = w.file.Close()
		return nil, fmt.Errorf("watcher: %w", err)
	}
	go w.run()
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
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: key}
	var result error
	err = w.raw.Control(func(epfd uintptr) { result = unix.EpollCtl(int(epfd), unix.EPOLL_CTL_ADD, fd, &event) })
	if err == nil {
		err = result
	}
	if err != nil {
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
	_ = w.raw.Control(func(epfd uintptr) { _ = unix.EpollCtl(int(epfd), unix.EPOLL_CTL_DEL, one.fd, nil) })
	_ = unix.Close(one.fd)
	return one.gone
}

// Close ends all watches without calling back, and waits for a callback that runs.
func (w *Watcher) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		<-w.done
		return nil
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
	err := w.file.Close()
	<-w.done
	return err
}

func (w *Watcher) run() {
	defer close(w.done)
	var events [16]unix.EpollEvent
	for {
		n := 0
		err := w.raw.Read(func(epfd uintptr) bool {
			for {
				var err error
				if n, err = unix.EpollWait(int(epfd), events[:], 0); !errors.Is(err, unix.EINTR) {
					return n > 0 || err != nil
				}
			}
		})
		if err != nil {
			return // closed
		}
		for _, e := range events[:max(n, 0)] {
			if gone := w.forget(e.Fd); gone != nil {
				gone()
			}
		}
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
