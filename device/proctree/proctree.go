package proctree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Process names a process for ever.
type Process struct {
	PID int
	// Start is field 22 of /proc/PID/stat: clock ticks since boot.
	Start uint64
}

// Entry is what a table knows of a process.
type Entry struct {
	Parent int // its pid; 0 is none
	Start  uint64
}

// Table is one look at all processes, by pid.
type Table map[int]Entry

// Read looks at all processes below a /proc folder. Those that end meanwhile are left out.
func Read(proc string) (Table, error) {
	pfs, err := procfs.NewFS(proc)
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	procs, err := pfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	t := make(Table, len(procs))
	for _, p := range procs {
		if s, err := p.Stat(); err == nil && s.State != "Z" && s.State != "X" {
			t[p.PID] = Entry{Parent: s.PPID, Start: s.Starttime}
		}
	}
	return t, nil
}

// Open gives a running process's pidfd and what it is called for ever. The error wraps
// os.ErrProcessDone where there is no such process.
func Open(proc string, pid int) (*os.File, Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			err = os.ErrProcessDone
		}
		return nil, Process{}, fmt.Errorf("pid %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd "+strconv.Itoa(pid))
	fail := func(err error) (*os.File, Process, error) {
		f.Close()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			err = os.ErrProcessDone
		}
		return nil, Process{}, fmt.Errorf("pid %d: %w", pid, err)
	}
	// Read after the pidfd is held: it is the start of the process that the pidfd means,
	// if that still runs afterwards.
	if _, err := os.Stat(filepath.Join(proc, strconv.Itoa(pid))); err != nil {
		return fail(err)
	}
	pfs, err := procfs.NewFS(proc)
	if err != nil {
		return fail(err)
	}
	p, err := pfs.Proc(pid)
	if err != nil {
		return fail(err)
	}
	s, err := p.Stat()
	if err != nil {
		return fail(err)
	}
	if err := unix.PidfdSendSignal(fd, 0, nil, 0); errors.Is(err, unix.ESRCH) {
		return fail(err)
	}
	return f, Process{PID: pid, Start: s.Starttime}, nil
}

// Tree is a process and all that descends from it.
type Tree struct {
	root    Process
	members map[int]uint64
}

// New is a tree of its root alone.
func New(root Process) *Tree {
	return &Tree{root: root, members: map[int]uint64{root.PID: root.Start}}
}

// Update takes a look: exited members leave, children of members join.
func (t *Tree) Update(now Table) {
	for pid, start := range t.members {
		if e, ok := now[pid]; !ok || e.Start != start {
			delete(t.members, pid)
		}
	}
	children := map[int][]int{}
	for pid, e := range now {
		children[e.Parent] = append(children[e.Parent], pid)
	}
	next := make([]int, 0, len(t.members))
	for pid := range t.members {
		next = append(next, pid)
	}
	for len(next) > 0 {
		pid := next[len(next)-1]
		next = next[:len(next)-1]
		for _, c := range children[pid] {
			if _, known := t.members[c]; !known {
				t.members[c] = now[c].Start
				next = append(next, c)
			}
		}
	}
}

// PIDs lists the members, in order of their pids.
func (t *Tree) PIDs() []int {
	out := make([]int, 0, len(t.members))
	for pid := range t.members {
		out = append(out, pid)
	}
	sort.Ints(out)
	return out
}
