//go:build linux

package memfd

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// fileID tells one memfd from every other on this boot.
type fileID struct{ dev, ino uint64 }

// holders walks proc and finds who maps or opens the file, except this process and
// the given ones. Processes that end meanwhile, and those of other users that we
// may not look into, are left out.
func holders(proc string, id fileID, except []int) ([]device.Holder, error) {
	pfs, err := procfs.NewFS(proc)
	if err != nil {
		return nil, fmt.Errorf("open proc: %w", err)
	}
	procs, err := pfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	self := os.Getpid()
	var found []device.Holder
	for _, p := range procs {
		if p.PID == self || slices.Contains(except, p.PID) {
			continue
		}
		dir := filepath.Join(proc, strconv.Itoa(p.PID))
		mapped, err := mappedBytes(filepath.Join(dir, "maps"), id)
		if err != nil {
			return nil, err
		}
		open, err := hasOpen(filepath.Join(dir, "fd"), id)
		if err != nil {
			return nil, err
		}
		if mapped == 0 && !open {
			continue
		}
		stat, err := p.Stat()
		if err != nil {
			continue // it ended between the two looks
		}
		found = append(found, device.Holder{PID: p.PID, StartTime: stat.Starttime, Command: stat.Comm, MappedBytes: mapped, Open: open})
	}
	return found, nil
}

// gone is true of errors that mean: not there any more, or not ours to see.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ESRCH)
}

// mappedBytes sums the address ranges of a maps file that belong to the memfd.
// Lines look like "7f00-7f10 rw-s 00000000 00:01 1027 /memfd:x (deleted)".
func mappedBytes(path string, id fileID) (int64, error) {
	f, err := os.Open(path)
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read mappings: %w", err)
	}
	defer f.Close()
	dev := fmt.Sprintf("%02x:%02x", unix.Major(id.dev), unix.Minor(id.dev))
	ino := strconv.FormatUint(id.ino, 10)
	var total int64
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), ino) {
			continue
		}
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 || fields[3] != dev || fields[4] != ino {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		a, errA := strconv.ParseUint(from, 16, 64)
		b, errB := strconv.ParseUint(to, 16, 64)
		if errA != nil || errB != nil || b < a {
			return 0, fmt.Errorf("read mappings: %s: strange range %q", path, fields[0])
		}
		total += int64(b - a)
	}
	if err := lines.Err(); err != nil && !gone(err) {
		return 0, fmt.Errorf("read mappings: %w", err)
	}
	return total, nil
}

func hasOpen(dir string, id fileID) (bool, error) {
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read descriptors: %w", err)
	}
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, e.Name()), &st); err == nil && st.Dev == id.dev && st.Ino == id.ino {
			return true, nil
		}
	}
	return false, nil
}
