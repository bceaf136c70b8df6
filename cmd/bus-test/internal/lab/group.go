package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// group is a control group of this package's own.
type group struct {
	version int
	dir     string
}

// hierarchy finds where groups with a memory limit can be made.
func hierarchy(root string) (version int, dir string, err error) {
	for _, v2 := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
		dir := filepath.Join(root, v2)
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err == nil && strings.Contains(" "+strings.TrimSpace(string(text))+" ", " memory ") {
			return 2, dir, nil
		}
	}
	dir = filepath.Join(root, "sys/fs/cgroup/memory")
	if _, err := os.Stat(filepath.Join(dir, "memory.limit_in_bytes")); err != nil {
		return 0, "", errors.New("no control groups with a memory controller are mounted at /sys/fs/cgroup")
	}
	return 1, dir, nil
}

// newGroup makes a group with a limit.
func newGroup(root, name string, limit int64) (*group, error) {
	version, top, err := hierarchy(root)
	if err != nil {
		return nil, err
	}
	g := &group{version: version, dir: filepath.Join(top, name)}
	if version == 2 {
		// Already so below systemd; refused where processes are in the way.
		_ = os.WriteFile(filepath.Join(top, "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("a control group for the experiment: %w (run as root)", err)
	}
	file := "memory.max"
	if version == 1 {
		file = "memory.limit_in_bytes"
	}
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.FormatInt(limit, 10)), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("its limit: %w", err), os.Remove(g.dir))
	}
	return g, nil
}

// kills is how many processes the kernel has killed in the group for want of memory.
func (g *group) kills() (int64, error) {
	file := "memory.events"
	if g.version == 1 {
		file = "memory.oom_control"
	}
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == "oom_kill" {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s counts no kills (Linux before 4.13?)", file)
}

// stalled is the group's own PSI, where it has one: how long some of it waited.
func (g *group) stalled() string {
	text, err := os.ReadFile(filepath.Join(g.dir, "memory.pressure"))
	if err != nil {
		return "-"
	}
	line, _, _ := strings.Cut(string(text), "\n")
	_, total, _ := strings.Cut(line, "total=")
	n, err := strconv.ParseInt(strings.TrimSpace(total), 10, 64)
	if err != nil {
		return "-"
	}
	return fmt.Sprintf("%.0f ms", float64(n)/1000)
}

// pids are the processes in the group.
func (g *group) pids() []int {
	text, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var out []int
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 && pid != os.Getpid() {
			out = append(out, pid)
		}
	}
	return out
}

// end kills what is left in the group, which this package put there, and removes it. It
// gives up when the kernel takes long.
func (g *group) end(pause func()) error {
	var err error
	for range 100 {
		for _, pid := range g.pids() {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone by now
		}
		if err = os.Remove(g.dir); err == nil {
			return nil
		}
		pause()
	}
	return fmt.Errorf("the group %s cannot be removed: %w", g.dir, err)
}
