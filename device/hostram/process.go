//go:build linux

package hostram

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

var _ device.ProcessUser = (*Driver)(nil)

// ourFiles is how the kernel names mappings of this project's memory.
const ourFiles = "/memfd:isobar"

// UsedBy implements device.ProcessUser: the pages of processes that the kernel cannot
// drop, which are anonymous and shared memory, without ours. A page that several
// processes map counts for each in proportion (the kernel's PSS), so that a tree that
// shares pages among itself counts them once; what it shares with strangers counts
// in part. Of a process of another user, where the node is not root, only anonymous pages
// are seen, and those shared since a fork count several times.
func (d *Driver) UsedBy(pids []int) (int64, error) {
	proc := filepath.Join("/", d.c.Root, "proc")
	var sum int64
	for _, pid := range pids {
		n, err := usedBy(filepath.Join(proc, strconv.Itoa(pid)))
		if err != nil {
			return 0, fmt.Errorf("%s: what pid %d uses: %w", d.c.ID, pid, err)
		}
		sum += n
	}
	return sum, nil
}

func usedBy(dir string) (int64, error) {
	fields, err := kilobytes(filepath.Join(dir, "smaps_rollup"), "Pss_Anon:", "Pss_Shmem:")
	switch {
	case exited(err):
		return 0, nil
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist):
		fields, err = kilobytes(filepath.Join(dir, "status"), "RssAnon:")
		if exited(err) || errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return fields["RssAnon:"], err
	case err != nil:
		return 0, err
	}
	used := fields["Pss_Anon:"] + fields["Pss_Shmem:"]
	if fields["Pss_Shmem:"] == 0 {
		return used, nil
	}
	ours, err := mapsOfOurs(filepath.Join(dir, "smaps"))
	if exited(err) || errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return max(0, used-ours), err
}

// exited tells that the process ended before, or while, it was looked at.
func exited(err error) bool { return errors.Is(err, unix.ESRCH) }

// kilobytes reads lines such as "RssAnon:   123 kB" and gives them in bytes.
func kilobytes(path string, names ...string) (map[string]int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		for _, name := range names {
			rest, ok := strings.CutPrefix(line, name)
			if !ok {
				continue
			}
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil || n < 0 || n > 1<<50 {
				return nil, fmt.Errorf("%s: strange line %q", path, strings.TrimSpace(line))
			}
			out[name] += n << 10
		}
	}
	return out, nil
}

// mapsOfOurs sums the proportional share of this project's memory in a smaps file: for
// each mapping a line of its addresses and file, then lines such as "Pss:   123 kB".
func mapsOfOurs(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var sum int64
	ours := false
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line != "" && line[0] >= '0' && line[0] <= 'f' && !(line[0] >= 'A' && line[0] <= 'Z') {
			ours = strings.Contains(line, ourFiles)
			continue
		}
		rest, ok := strings.CutPrefix(line, "Pss:")
		if !ok || !ours {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: strange line %q", path, line)
		}
		sum += n << 10
	}
	return sum, lines.Err()
}
