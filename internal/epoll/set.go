package epoll

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Set is a set of descriptors. It owns none of them.
type Set struct {
	file *os.File
	raw  syscall.RawConn
	done chan struct{}
	end  func() error
}

// Open makes a set whose events are told to fired.
func Open(fired func(unix.EpollEvent)) (*Set, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	s := &Set{file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{})}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, err
	}
	s.end = sync.OnceValue(s.file.Close)
	go s.run(fired)
	return s, nil
}

// Add has events of a descriptor told, with key in their field Fd. A descriptor leaves the
// set by Remove, or when the last descriptor of what it refers to is closed.
func (s *Set) Add(fd int, events uint32, key int32) error {
	event := unix.EpollEvent{Events: events, Fd: key}
	var result error
	err := s.raw.Control(func(epfd uintptr) { result = unix.EpollCtl(int(epfd), unix.EPOLL_CTL_ADD, fd, &event) })
	return errors.Join(err, os.NewSyscallError("epoll_ctl", result))
}

// Remove takes a descriptor out, which may not be in the set any more. What has fired may
// still be told.
func (s *Set) Remove(fd int) {
	_ = s.raw.Control(func(epfd uintptr) { _ = unix.EpollCtl(int(epfd), unix.EPOLL_CTL_DEL, fd, nil) })
}

// Close ends the set and waits for a callback that runs. Further calls do the same.
func (s *Set) Close() error {
	err := s.end()
	<-s.done
	return err
}

func (s *Set) run(fired func(unix.EpollEvent)) {
	defer close(s.done)
	var events [16]unix.EpollEvent
	for {
		n := 0
		err := s.raw.Read(func(epfd uintptr) bool {
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
			fired(e)
		}
	}
}
