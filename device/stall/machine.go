package stall

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/internal/epoll"
)

// machine is the Kernel of this machine: an epoll of everything that can fire, which itself
// sits in Go's poller.
type machine struct {
	set *epoll.Set

	mu     sync.Mutex
	closed bool
	next   int32
	live   map[int32]*source
}

// source is one descriptor that fires. drain says that each event must be read away.
type source struct {
	fd    int
	more  []int // descriptors that live as long
	drain bool
	fired func(error)
}

var _ Kernel = (*machine)(nil)

func openMachine() (*machine, error) {
	m := &machine{live: map[int32]*source{}}
	var err error
	if m.set, err = epoll.Open(m.fire); err != nil {
		return nil, err
	}
	return m, nil
}

// ReadFile implements Kernel.
func (m *machine) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

// Trigger implements Kernel.
func (m *machine) Trigger(path, spec string, fired func(error)) (func(), error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if _, err := unix.Write(fd, append([]byte(spec), 0)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return m.add(&source{fd: fd, fired: fired}, unix.EPOLLPRI)
}

// Changed implements Kernel.
func (m *machine) Changed(path string, fired func(error)) (func(), error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return m.add(&source{fd: fd, drain: true, fired: fired}, unix.EPOLLIN)
}

// PressureLevel implements Kernel.
func (m *machine) PressureLevel(dir, level string, fired func(error)) (func(), error) {
	levels, err := unix.Open(filepath.Join(dir, "memory.pressure_level"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(levels)
		return nil, err
	}
	s := &source{fd: fd, more: []int{levels}, drain: true, fired: fired}
	control := fmt.Sprintf("%d %d %s", fd, levels, level)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(control), 0); err != nil {
		s.close()
		return nil, err
	}
	return m.add(s, unix.EPOLLIN)
}

func (s *source) close() {
	unix.Close(s.fd)
	for _, fd := range s.more {
		unix.Close(fd)
	}
}

func (m *machine) add(s *source, events uint32) (func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		s.close()
		return nil, os.ErrClosed
	}
	m.next++
	key := m.next
	if err := m.set.Add(s.fd, events|unix.EPOLLET, key); err != nil {
		s.close()
		return nil, err
	}
	m.live[key] = s
	return func() { m.forget(key) }, nil
}

func (m *machine) forget(key int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.live[key]; ok {
		delete(m.live, key)
		s.close() // which takes it out of the set: it has no other descriptor
	}
}

// Close implements Kernel.
func (m *machine) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	err := m.set.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, s := range m.live {
		delete(m.live, key)
		s.close()
	}
	return err
}

func (m *machine) fire(e unix.EpollEvent) {
	m.mu.Lock()
	s, ok := m.live[e.Fd]
	if ok && s.drain {
		var away [4096]byte
		for {
			if n, err := unix.Read(s.fd, away[:]); n <= 0 || err != nil {
				break
			}
		}
	}
	m.mu.Unlock()
	switch {
	case !ok:
	case e.Events&unix.EPOLLERR != 0:
		m.forget(e.Fd)
		s.fired(errors.New("the kernel has ended it"))
	default:
		s.fired(nil)
	}
}
