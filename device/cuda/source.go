//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blockBytes is what O_DIRECT wants offsets, sizes and addresses to be multiples of.
const blockBytes = 4 << 10

// source is a file that lanes read into their chunks. What is in the page cache is copied from
// there; what is not is read past it (O_DIRECT), by as many lanes as there are at once: that
// costs the processor no copy, and throws nothing out of the cache.
type source struct {
	file *os.File
	// plain is set where reading past the cache is not to be had; stuck where its pages cannot be
	// registered. memory is a file all of which lies in main memory.
	plain, stuck atomic.Bool
	memory       bool
	open         sync.Once
	direct       *os.File
}

// newSource reads a file.
func newSource(f *os.File) *source { return &source{file: f} }

// memory is a source that lies in main memory.
func memory(f *os.File) *source {
	s := newSource(f)
	s.plain.Store(true)
	s.memory = true
	return s
}

func (s *source) close() {
	if s.direct != nil {
		_ = s.direct.Close() // it was only read
	}
}

// read reads n bytes from off into room, which is blockBytes larger at both ends, and returns
// where they are. Fewer bytes come with an error.
func (s *source) read(room []byte, off, n int64) ([]byte, error) {
	if !s.plain.Load() && s.cold(off, n) {
		if b := s.past(room, off, n); b != nil {
			return b, nil
		}
	}
	got, err := s.file.ReadAt(room[:n], off)
	switch {
	case int64(got) == n:
		err = nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return room[:got], err
}

// past reads past the cache, all or nothing: whatever is wrong, an ordinary read says it better.
func (s *source) past(room []byte, off, n int64) []byte {
	s.open.Do(s.reopen)
	if s.plain.Load() {
		return nil
	}
	lo := off / blockBytes * blockBytes
	hi := (off + n + blockBytes - 1) / blockBytes * blockBytes
	got, err := s.direct.ReadAt(room[:hi-lo], lo)
	if errors.Is(err, unix.EINVAL) && got == 0 {
		s.plain.Store(true) // the file system or its blocks are otherwise
	}
	if int64(got) < off+n-lo {
		return nil
	}
	return room[off-lo:][:n]
}

// reopen opens the file a second time, with flags of its own: the descriptor may be shared.
func (s *source) reopen() {
	err := s.control(func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_ACCMODE == unix.O_WRONLY {
			err = unix.EBADF // who gave it may not read it
		}
		if err == nil {
			s.direct, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_DIRECT, 0)
		}
		return err
	})
	if err != nil {
		s.plain.Store(true)
	}
}

// probeBytes is how much of a piece is looked at to tell whether it is in the cache.
const probeBytes = 256 << 10

// cached tells whether all of a range is in the page cache.
func (s *source) cached(off, n int64) bool {
	return s.memory || s.pages(off, n) >= n
}

// cold tells whether most of the beginning of a piece is not in the page cache. Who may not know
// is told that it is there.
func (s *source) cold(off, n int64) bool {
	n = min(n, probeBytes)
	there := s.pages(off, n)
	return there == 0 || there > 0 && there < n/2
}

// pages is how many bytes of the pages that a range lies in are in the page cache; negative: who
// may not know.
func (s *source) pages(off, n int64) int64 {
	lo := off / pageBytes * pageBytes
	n = (off + n - lo + pageBytes - 1) / pageBytes * pageBytes
	var there int64
	err := s.control(func(fd int) (err error) {
		if there, err = cachedPages(fd, lo, n); errors.Is(err, unix.ENOSYS) {
			there, err = residentPages(fd, lo, n)
		}
		return err
	})
	if err != nil {
		return -1
	}
	return there * pageBytes
}

// cachedPages asks the kernel (Linux 6.5).
func cachedPages(fd int, off, n int64) (int64, error) {
	var out unix.Cachestat_t
	err := unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, &out, 0)
	return int64(out.Cache), err
}

// residentPages asks it by way of a mapping that nobody touches.
func residentPages(fd int, off, n int64) (pages int64, err error) {
	b, err := unix.Mmap(fd, off, int(n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(b)) }()
	there := make([]byte, n/pageBytes)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&there[0]))); errno != 0 {
		return 0, errno
	}
	for _, t := range there {
		pages += int64(t & 1)
	}
	return pages, nil
}

// control runs a system call on the file's descriptor.
func (s *source) control(call func(fd int) error) error {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = call(int(fd)) }); err != nil {
		return err
	}
	return inner
}
