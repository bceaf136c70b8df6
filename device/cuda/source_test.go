//go:build linux

package cuda

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// coldFile is a file of so many bytes of which nothing is in the page cache, where the file
// system can do that.
func coldFile(t *testing.T, n int) (f *os.File, content []byte, isCold bool) {
	t.Helper()
	content = make([]byte, n)
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "weights"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	pages, err := residentPages(int(f.Fd()), 0, int64(n))
	if err != nil {
		t.Fatal(err)
	}
	return f, content, pages == 0
}

// room is memory at an address that O_DIRECT takes.
func room(t *testing.T, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n+2*blockBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

// A file is read exactly wherever it lies; what is not in the page cache does not come there.
func TestSourceReadsPastTheCache(t *testing.T) {
	const n = 1 << 20
	const size = n + 4567
	f, content, isCold := coldFile(t, size)
	buf := room(t, n)
	s := newSource(f)
	defer s.close()
	if isCold && !s.cold(0, n) {
		t.Error("a file that is not in the cache is taken for one that is")
	}
	for _, c := range []struct{ off, n int64 }{
		{0, n}, {1, n}, {4095, 2}, {4097, 4096}, {size - 1, 1}, {size - 5000, 5000}, {511, 0}, {4566, n},
	} {
		b, err := s.read(buf, c.off, c.n)
		if err != nil || !bytes.Equal(b, content[c.off:c.off+c.n]) {
			t.Errorf("%d bytes at %d: %d bytes, %v", c.n, c.off, len(b), err)
		}
	}
	if s.plain.Load() || !isCold {
		t.Log("this file system is not read past the cache")
	} else if pages, err := residentPages(int(f.Fd()), 0, n); err != nil || pages != 0 {
		t.Errorf("%d pages came into the cache, %v", pages, err)
	}
	for _, off := range []int64{size - 1, size, size + 100_000} {
		if b, err := s.read(buf, off, 5000); !errors.Is(err, io.ErrUnexpectedEOF) || int64(len(b)) != max(0, size-off) {
			t.Errorf("beyond the end: %d bytes at %d, %v", len(b), off, err)
		}
	}
}

// What is in the cache is taken from there; both ways of asking say the same.
func TestSourceReadsTheCache(t *testing.T) {
	const n = 1 << 20
	f, content, _ := coldFile(t, n)
	if _, err := io.ReadAll(io.NewSectionReader(f, 0, n)); err != nil {
		t.Fatal(err)
	}
	s := newSource(f)
	defer s.close()
	if s.cold(0, n) {
		t.Error("a file that was just read is taken for one that is not in the cache")
	}
	b, err := s.read(room(t, n), 3, n-3)
	if err != nil || !bytes.Equal(b, content[3:]) || s.direct != nil {
		t.Errorf("%d bytes, %v; opened for reading past the cache: %v", len(b), err, s.direct != nil)
	}
	resident, err := residentPages(int(f.Fd()), 0, n)
	if err != nil {
		t.Fatal(err)
	}
	if cached, err := cachedPages(int(f.Fd()), 0, n); !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) && (err != nil || cached != resident) {
		t.Errorf("%d pages are cached (%v), %d resident", cached, err, resident)
	}
}

// Who gives a file that he may only write does not get it read.
func TestSourceOfAFileForWriting(t *testing.T) {
	f, _, _ := coldFile(t, 1<<20)
	w, err := os.OpenFile(f.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s := newSource(w)
	defer s.close()
	if b, err := s.read(room(t, 4096), 0, 4096); err == nil || len(b) != 0 || s.direct != nil {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
}
