package bench

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// barePiece is what a thread of the bare loop takes at a time, hugePage the size of a huge
// page on the machines that have them here.
const (
	barePiece = 8 * mib
	hugePage  = 2 * mib
)

func lines(text []byte) iter.Seq[string] { return strings.Lines(string(text)) }

// hugePages finds out whether shared memory can get huge pages by collapsing, which is how
// the node's driver of main memory gets them.
func hugePages() bool {
	m, err := newBareMemory(hugePage)
	if err != nil {
		return false
	}
	defer m.close()
	return m.populate(0, hugePage, true) == nil
}

// barePread is the loop that a load is compared with: threads that take a piece each, make
// its pages and pread the file into them. The mapping and the memfd are made within the time.
func barePread(path string, threads int, huge bool) (time.Duration, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	m, err := newBareMemory((st.Size() + hugePage - 1) / hugePage * hugePage)
	if err != nil {
		return 0, err
	}
	defer m.close()
	var next atomic.Int64
	errs := make([]error, threads)
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			for errs[i] == nil {
				off := next.Add(barePiece) - barePiece
				if off >= st.Size() {
					return
				}
				if errs[i] = m.populate(off, min(barePiece, int64(len(m.bytes))-off), huge); errs[i] != nil {
					return
				}
				n := min(barePiece, st.Size()-off)
				if got, err := f.ReadAt(m.bytes[off:off+n], off); int64(got) != n {
					errs[i] = fmt.Errorf("read %d of %d bytes: %w", got, n, errors.Join(err, io.ErrUnexpectedEOF))
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(begun)
	return took, errors.Join(errs...)
}

// bareMemory is a memfd, mapped at an address that huge pages can have.
type bareMemory struct {
	fd    int
	bytes []byte
	base  unsafe.Pointer
	size  uintptr
}

func newBareMemory(n int64) (*bareMemory, error) {
	fd, err := unix.MemfdCreate("bus-test", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	m := &bareMemory{fd: fd, size: uintptr(n + hugePage)}
	if err := unix.Ftruncate(fd, n); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if m.base, err = unix.MmapPtr(-1, 0, nil, m.size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE); err != nil {
		unix.Close(fd)
		return nil, err
	}
	skip := uintptr(hugePage) - 1 - (uintptr(m.base)-1)%hugePage
	p, err := unix.MmapPtr(fd, 0, unsafe.Add(m.base, skip), uintptr(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		m.close()
		return nil, err
	}
	m.bytes = unsafe.Slice((*byte)(p), n)
	return m, nil
}

// populate makes the pages of a range.
func (m *bareMemory) populate(off, n int64, huge bool) error {
	if !huge {
		return unix.Fallocate(m.fd, 0, off, n)
	}
	for o := off; o < off+n; o += hugePage {
		if err := unix.Fallocate(m.fd, 0, o, int64(os.Getpagesize())); err != nil {
			return err
		}
	}
	err := unix.Madvise(m.bytes[off:off+n], unix.MADV_COLLAPSE)
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) {
		// The kernel has no huge page left, or one is in use: small ones do, as in the node.
		return unix.Fallocate(m.fd, 0, off, n)
	}
	return err
}

func (m *bareMemory) close() {
	_ = unix.MunmapPtr(m.base, m.size)
	_ = unix.Close(m.fd)
}
