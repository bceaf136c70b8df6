//go:build linux

package hostram_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/device/hostram"
)

func driverAt(t *testing.T, root string) *hostram.Driver {
	t.Helper()
	d, err := hostram.New(hostram.Config{ID: "ram-0", Root: root, Figures: func() (hostmem.Figures, error) {
		return hostmem.Figures{MemTotal: 1 << 30, MemAvailable: 1 << 30}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestUsedByReadsWhatTheKernelCannotDrop(t *testing.T) {
	root := t.TempDir()
	file := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, "proc", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file("10/smaps_rollup", "7f00-7fff ---p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPss: 900 kB\nPss_Anon: 500 kB\nPss_File: 400 kB\nPss_Shmem: 0 kB\n")
	// 11 maps 300 kB of shared memory, of which 200 are ours.
	file("11/smaps_rollup", "7f00-7fff ---p 00000000 00:00 0 [rollup]\nPss_Anon: 50 kB\nPss_File: 1 kB\nPss_Shmem: 300 kB\n")
	file("11/smaps", "7f00-7f10 rw-s 00000000 00:01 7 /memfd:isobar ram-0 (deleted)\nSize: 400 kB\nPss: 200 kB\nPss_Dirty: 200 kB\n"+
		"aa00-aa10 rw-s 00000000 00:01 8 /dev/shm/other\nPss: 100 kB\n")
	// 12 is another user's on an old kernel.
	file("12/status", "Name:\tx\nRssAnon:\t  70 kB\nRssFile:\t 9 kB\nRssShmem:\t 9 kB\n")
	d := driverAt(t, root)
	for _, c := range []struct {
		pids []int
		want int64
	}{{[]int{10}, 500}, {[]int{11}, 150}, {[]int{12}, 70}, {[]int{10, 11, 12}, 720}, {[]int{99}, 0}, {nil, 0}} {
		got, err := d.UsedBy(c.pids)
		if err != nil || got != c.want<<10 {
			t.Errorf("%v use %d kB, want %d: %v", c.pids, got>>10, c.want, err)
		}
	}
	file("13/smaps_rollup", "Pss_Anon: many kB\n")
	if _, err := d.UsedBy([]int{13}); err == nil || !strings.Contains(err.Error(), "strange line") {
		t.Errorf("a strange file: %v", err)
	}
}

// What this process itself takes is seen in the kernel's own files.
func TestUsedByOfARealProcess(t *testing.T) {
	d := driverAt(t, "")
	before, err := d.UsedBy([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	const bytes = 32 << 20
	mem, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	after, err := d.UsedBy([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if grew := after - before; grew < bytes/2 {
		t.Errorf("took %d bytes, seen are %d more", bytes, grew)
	}
}
