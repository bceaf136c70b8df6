package hostmem

import (
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// Node is a NUMA node with memory.
type Node struct {
	ID int
	// TotalBytes is what it has.
	TotalBytes int64
	// Processors is false for memory that is nobody's own: behind a bus, or a GPU's.
	Processors bool
}

// maxNodes bounds the numbers of nodes: the kernel's own largest configuration has 1024.
const maxNodes = 1024

// nodeDir is where the kernel describes nodes.
const nodeDir = "sys/devices/system/node"

// Nodes lists the nodes that have memory which this process may use: its cpuset may leave
// some out. A machine that is none of several nodes has one, or, on a kernel without NUMA,
// none.
func Nodes(c Config) ([]Node, error) {
	dir := filepath.Join(c.root(), nodeDir)
	memory, err := nodeList(filepath.Join(dir, "has_memory"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	processors, err := nodeList(filepath.Join(dir, "has_cpu"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	allowed, err := allowedNodes(c.root())
	if err != nil {
		return nil, err
	}
	var out []Node
	for _, id := range memory {
		if allowed != nil && !slices.Contains(allowed, id) {
			continue
		}
		m, err := readNode(c.root(), id)
		if err != nil {
			return nil, err
		}
		if m.total > 0 {
			out = append(out, Node{ID: id, TotalBytes: m.total, Processors: slices.Contains(processors, id)})
		}
	}
	return out, nil
}

// allowedNodes are those of this process's cpuset; nil where the kernel knows none.
func allowedNodes(root string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/status"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, rest, found := strings.Cut(string(text), "Mems_allowed_list:")
	if !found {
		return nil, nil
	}
	line, _, _ := strings.Cut(rest, "\n")
	return parseList(line)
}

func nodeList(path string) ([]int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := parseList(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// parseList reads numbers as the kernel lists them: 0-1,8.
func parseList(s string) ([]int, error) {
	out := []int{}
	s = strings.TrimSpace(s)
	if s == "" {
		return out, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(low)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(high)
		}
		if err != nil || from < 0 || to < from || to >= maxNodes {
			return nil, fmt.Errorf("strange list %q", s)
		}
		for n := from; n <= to; n++ {
			out = append(out, n)
		}
	}
	return out, nil
}

// nodeMemory is a node's meminfo, in bytes.
type nodeMemory struct{ total, free, file, reclaimable int64 }

func readNode(root string, id int) (nodeMemory, error) {
	path := filepath.Join(root, nodeDir, fmt.Sprintf("node%d", id), "meminfo")
	text, err := os.ReadFile(path)
	if err != nil {
		return nodeMemory{}, fmt.Errorf("read NUMA node %d: %w", id, err)
	}
	var m nodeMemory
	wanted := map[string]*int64{"MemTotal:": &m.total, "MemFree:": &m.free, "Active(file):": &m.file, "Inactive(file):": &m.file,
		"SReclaimable:": &m.reclaimable}
	known := false
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line) // Node 0 MemTotal: 123 kB
		if len(f) < 4 || wanted[f[2]] == nil {
			continue
		}
		n, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil || n < 0 || n > 1<<50 {
			return nodeMemory{}, fmt.Errorf("%s: strange line %q", path, strings.TrimSpace(line))
		}
		*wanted[f[2]] += n << 10
		known = known || f[2] == "MemTotal:"
	}
	if !known {
		return nodeMemory{}, fmt.Errorf("%s has no MemTotal", path)
	}
	return m, nil
}

// ReadNode takes a reading for memory that is bound to a NUMA node: in the machine's place
// stands the node. The control groups are those of Read: they count the memory of all nodes.
func (r *Reader) ReadNode(id int) (Figures, error) {
	info, err := r.meminfo()
	if err != nil {
		return Figures{}, err
	}
	node, err := readNode(r.root, id)
	if err != nil {
		return Figures{}, err
	}
	f := Figures{MemTotal: node.total, MemAvailable: node.available(info)}
	f.Levels = []Level{{Path: fmt.Sprintf("NUMA node %d", id), LimitBytes: f.MemTotal, UsedBytes: max(0, f.MemTotal-f.MemAvailable)}}
	err = r.addGroups(&f, int64(*info.MemTotalBytes))
	return f, err
}

// available is what of a node can be taken without anybody having to wait. The kernel tells
// it of the machine alone: what it keeps back of all that is free or can be dropped is
// shared out to the nodes by their size.
func (m nodeMemory) available(info procfs.Meminfo) int64 {
	bytes := func(p *uint64) int64 {
		if p == nil {
			return 0
		}
		return int64(*p)
	}
	could := bytes(info.MemFreeBytes) + bytes(info.ActiveFileBytes) + bytes(info.InactiveFileBytes) + bytes(info.SReclaimableBytes)
	back := max(0, could-bytes(info.MemAvailableBytes))
	total := max(1, bytes(info.MemTotalBytes))
	share := new(big.Int).Mul(big.NewInt(back), big.NewInt(m.total))
	share.Quo(share, big.NewInt(total))
	return min(m.total, max(0, m.free+m.file+m.reclaimable-share.Int64()))
}
