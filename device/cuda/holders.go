//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// Holders implements device.Driver. Who maps a segment cannot be told apart on a GPU from who
// merely uses the GPU: besides the processes that have the descriptor open, every process with
// a context on the device is named, and MappedBytes is what NVML charges it with, at most the
// segment's size. While we hold the segment that charge is ours, and theirs 0. So the list may
// have too many, never too few; without NVML it cannot be had (device.ErrUnsupported).
func (d *Driver) Holders(ds device.Segment, except ...int) ([]device.Holder, error) {
	s, done, err := d.begin("find holders", ds)
	if err != nil {
		return nil, err
	}
	defer done()
	list, err := d.processes()
	if err != nil {
		return nil, fmt.Errorf("%s: find holders: %w", d.c.ID, err)
	}
	found := map[int]*device.Holder{}
	for _, p := range list {
		found[p.PID] = &device.Holder{PID: p.PID, MappedBytes: min(max(0, p.Bytes), s.bytes)}
	}
	proc := filepath.Join(d.c.Root, "proc")
	pfs, err := procfs.NewFS(proc)
	if err != nil {
		return nil, fmt.Errorf("find holders: open proc: %w", err)
	}
	procs, err := pfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("find holders: list processes: %w", err)
	}
	self := os.Getpid()
	var original unix.Stat_t
	if err := unix.Fstat(int(s.file.Fd()), &original); err != nil {
		return nil, fmt.Errorf("find holders: %w", err)
	}
	for _, p := range procs {
		if p.PID == self || slices.Contains(except, p.PID) {
			continue
		}
		has, err := hasOpen(filepath.Join(proc, strconv.Itoa(p.PID), "fd"), p.PID, &original, int(s.file.Fd()))
		if err != nil {
			return nil, fmt.Errorf("find holders: %w", err)
		}
		if has && found[p.PID] == nil {
			found[p.PID] = &device.Holder{PID: p.PID}
		}
		h := found[p.PID]
		if h == nil {
			continue
		}
		h.Open = has
		stat, err := p.Stat()
		if err != nil {
			delete(found, p.PID) // it ended between the two looks
			continue
		}
		h.StartTime, h.Command = stat.Starttime, stat.Comm
	}
	var out []device.Holder
	for pid, h := range found {
		if pid != self && !slices.Contains(except, pid) {
			out = append(out, *h)
		}
	}
	slices.SortFunc(out, func(a, b device.Holder) int { return a.PID - b.PID })
	return out, nil
}

// hasOpen tells whether a process has the original's open file description among its
// descriptors. Where the kernel does not compare descriptions, one of the same file counts.
func hasOpen(dir string, pid int, original *unix.Stat_t, fd int) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read descriptors: %w", err)
	}
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, e.Name()), &st) != nil || st.Dev != original.Dev || st.Ino != original.Ino {
			continue
		}
		theirs, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		order, err := compare(os.Getpid(), fd, pid, theirs)
		if order == 0 && !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.ESRCH) {
			return true, nil
		}
	}
	return false, nil
}
