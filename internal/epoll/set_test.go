package epoll_test

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/internal/epoll"
)

// counter makes an eventfd, which is ready when it counts something.
func counter(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func count(t *testing.T, fd int) {
	t.Helper()
	if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
}

func TestWhatFiresIsTold(t *testing.T) {
	told := make(chan unix.EpollEvent, 8)
	s, err := epoll.Open(func(e unix.EpollEvent) { told <- e })
	if err != nil {
		t.Fatal(err)
	}
	first, second := counter(t), counter(t)
	for key, fd := range []int{first, second} {
		if err := s.Add(fd, unix.EPOLLIN|unix.EPOLLONESHOT, int32(key)+7); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(first, unix.EPOLLIN, 9); !errors.Is(err, unix.EEXIST) {
		t.Errorf("added twice: %v", err)
	}
	if err := s.Add(-1, unix.EPOLLIN, 9); !errors.Is(err, unix.EBADF) {
		t.Errorf("added what is none: %v", err)
	}
	s.Remove(first)
	s.Remove(first)
	count(t, first)
	count(t, second)
	select {
	case e := <-told:
		if e.Fd != 8 || e.Events != unix.EPOLLIN {
			t.Errorf("told %+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was told")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if len(told) > 0 {
		t.Errorf("told %+v too", <-told)
	}
	if err := s.Add(second, unix.EPOLLIN, 1); err == nil {
		t.Error("added to a set that is closed")
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}
