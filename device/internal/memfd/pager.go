//go:build linux

package memfd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// chunkBytes is the work between two looks at the context: some 5 ms. Larger
// chunks measured no faster.
const chunkBytes = 16 << 20

// manyMakers is how many threads make pages fastest: on 16 processors 4, 8 and 16 of them made
// 19, 30 and 21 GB/s (MADV_COLLAPSE of 32 MiB a call, Linux 6.18, 2026-11-22).
const manyMakers = 8

// hugeWay is how huge pages are had.
type hugeWay uint8

const (
	noHuge hugeWay = iota
	// byAdvice: the machine's shmem_enabled setting lets a mapping ask for them.
	byAdvice
	// byCollapse: MADV_COLLAPSE makes them whatever the setting says (Linux 6.1),
	// from a single present page per huge page; the rest of it comes zeroed.
	byCollapse
)

// pager makes the pages of files real.
//
// Measured on a small machine (2 cores, Linux 6.18, shmem_enabled=never), 2026-11,
// 1 GiB, one thread, GB/s: MADV_POPULATE_WRITE on 4 KiB pages 2.9; fallocate 8.6,
// because it leaves the zeroing to the first touch; MADV_COLLAPSE 6 to 8.6 with the
// zeroing, and whoever maps a huge page afterwards faults once for 2 MiB instead of
// 512 times. So: huge pages by collapse, the rest by fallocate.
type pager struct {
	way       hugeWay
	hugeBytes int64
	// note says why there are no huge pages, "" when there are.
	note string
	// makers bounds how many make many at once.
	makers chan struct{}
	// missed counts the bytes that should have got huge pages and did not.
	missed atomic.Int64
}

// newPager finds out by trying how huge pages can be had. sys is where sysfs is.
func newPager(sys string, want bool) *pager {
	p := &pager{makers: make(chan struct{}, manyMakers)}
	if !want {
		p.note = "huge pages are turned off in the configuration"
		return p
	}
	text, err := os.ReadFile(filepath.Join(sys, "kernel/mm/transparent_hugepage/hpage_pmd_size"))
	size, errSize := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || errSize != nil || size <= 0 || size > chunkBytes || chunkBytes%size != 0 {
		p.note = "the kernel has no transparent huge pages of a size that helps; small pages are used"
		return p
	}
	p.hugeBytes = size
	for _, way := range []hugeWay{byCollapse, byAdvice} {
		p.way = way
		if p.tryOne() {
			return p
		}
	}
	p.way = noHuge
	p.note = "no huge pages for shared memory: small pages are used, slower to make, map and give back; " +
		"use Linux 6.1 or later, or: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"
	return p
}

// tryOne makes one huge page and checks that it came.
func (p *pager) tryOne() bool {
	f, err := newFile("isobar-probe", p.hugeBytes, true)
	if err != nil {
		return false
	}
	defer f.Close()
	w, err := openWindow(f, 0, p.hugeBytes, p.hugeBytes, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return false
	}
	defer w.close()
	if p.way == byCollapse {
		return p.collapse(f, w.bytes, 0) == nil // success is the kernel's word for it
	}
	if unix.Madvise(w.bytes, unix.MADV_HUGEPAGE) != nil || unix.Madvise(w.bytes, unix.MADV_POPULATE_WRITE) != nil {
		return false
	}
	return pmdMapped(w.bytes)
}

// pmdMapped looks into smaps whether the mapping at b is of huge pages.
func pmdMapped(b []byte) bool {
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return false
	}
	head := fmt.Sprintf("\n%x-", uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	_, entry, found := strings.Cut("\n"+string(text), head)
	if !found {
		return false
	}
	_, figure, found := strings.Cut(entry, "ShmemPmdMapped:")
	fields := strings.Fields(figure)
	return found && len(fields) > 0 && fields[0] != "0"
}

// collapse turns the window, huge-page aligned and mapping f from off, into huge
// pages; what is written already stays.
func (p *pager) collapse(f *os.File, b []byte, off int64) error {
	// The kernel skips a range without any page: give each its first.
	for o := int64(0); o < int64(len(b)); o += p.hugeBytes {
		if err := fallocate(f, off+o, int64(os.Getpagesize())); err != nil {
			return err
		}
	}
	return unix.Madvise(b, unix.MADV_COLLAPSE)
}

// fallocate makes the small pages that are missing in a range. The kernel undoes
// its part of a call that fails or is interrupted.
func fallocate(f *os.File, off, n int64) error {
	defer runtime.KeepAlive(f)
	for {
		err := unix.Fallocate(int(f.Fd()), 0, off, n)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("populate %d bytes: %w", n, noRoom(err))
		}
		return nil
	}
}

// populate makes every page of a file of total bytes real, and calls progress
// after each chunk.
func (p *pager) populate(ctx context.Context, f *os.File, total int64, progress func() error) error {
	for off := int64(0); off < total; off += chunkBytes {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(chunkBytes, total-off)
		huge := p.hugePart(n)
		if huge > 0 && !p.makeHuge(f, off, huge) {
			huge = 0
		}
		if huge < n {
			if err := fallocate(f, off+huge, n-huge); err != nil {
				return err
			}
		}
		if err := progress(); err != nil {
			return err
		}
	}
	return nil
}

// hugePart is how many of n bytes can be huge pages.
func (p *pager) hugePart(n int64) int64 {
	if p.way == noHuge {
		return 0
	}
	return n / p.hugeBytes * p.hugeBytes
}

// makeHuge makes huge pages of a range of f; off and n are multiples of their
// size. It reports whether all of them came; what did not is left to small pages.
func (p *pager) makeHuge(f *os.File, off, n int64) bool {
	w, err := openWindow(f, off, n, p.hugeBytes, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		p.missed.Add(n)
		return false
	}
	defer w.close()
	return p.makeHugeIn(f, w.bytes, off)
}

// makeHugeIn is makeHuge where b, aligned, maps the range already.
func (p *pager) makeHugeIn(f *os.File, b []byte, off int64) bool {
	if p.make(f, b, off) != nil {
		p.missed.Add(int64(len(b)))
		return false
	}
	return true
}

// makeManyIn is makeHugeIn for who makes many, on many threads: by one call, since with every call
// the kernel has all processors hand in the pages that they are at, which on a large machine takes
// longer than making one. Where not all of them come they are tried one by one, up to the first
// that does not.
func (p *pager) makeManyIn(f *os.File, b []byte, off int64) {
	p.makers <- struct{}{}
	defer func() { <-p.makers }()
	if p.make(f, b, off) == nil {
		return
	}
	for at := int64(0); at < int64(len(b)); at += p.hugeBytes {
		if !p.makeHugeIn(f, b[at:at+p.hugeBytes], off+at) {
			return
		}
	}
}

func (p *pager) make(f *os.File, b []byte, off int64) error {
	if p.way == byCollapse {
		return p.collapse(f, b, off)
	}
	if err := unix.Madvise(b, unix.MADV_HUGEPAGE); err != nil {
		return err
	}
	return unix.Madvise(b, unix.MADV_POPULATE_WRITE)
}
