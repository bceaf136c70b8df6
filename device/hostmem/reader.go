package hostmem

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/procfs"
)

// Config says where the kernel's files are.
type Config struct {
	// Root is put before every path, those found in the mount table included. ""
	// means "/"; tests give a folder holding proc/ and the control groups.
	Root string
}

func (c Config) root() string {
	if c.Root == "" {
		return "/"
	}
	return c.Root
}

// Reader reads figures again and again. Make it with NewReader.
type Reader struct {
	root string
	proc procfs.FS

	mu      sync.Mutex
	member  []procfs.Cgroup // of which groups, levels holds the folders
	folders []folder
}

// NewReader opens the figures of the machine under c.Root.
func NewReader(c Config) (*Reader, error) {
	proc, err := procfs.NewFS(filepath.Join(c.root(), "proc"))
	if err != nil {
		return nil, fmt.Errorf("open proc: %w (is /proc mounted?)", err)
	}
	return &Reader{root: c.root(), proc: proc}, nil
}

// Read takes one reading of the machine under c.Root.
func Read(c Config) (Figures, error) {
	r, err := NewReader(c)
	if err != nil {
		return Figures{}, err
	}
	return r.Read()
}

// Read takes a reading.
func (r *Reader) Read() (Figures, error) {
	info, err := r.meminfo()
	if err != nil {
		return Figures{}, err
	}
	f := Figures{MemTotal: int64(*info.MemTotalBytes), MemAvailable: int64(*info.MemAvailableBytes)}
	f.Levels = append(f.Levels, Level{Path: "machine", LimitBytes: f.MemTotal, UsedBytes: max(0, f.MemTotal-f.MemAvailable)})
	err = r.addGroups(&f, f.MemTotal)
	return f, err
}

// meminfo reads the machine's figures; the two that everything rests on are there.
func (r *Reader) meminfo() (procfs.Meminfo, error) {
	info, err := r.proc.Meminfo()
	if err != nil {
		return info, fmt.Errorf("read meminfo: %w", err)
	}
	if info.MemTotalBytes == nil || info.MemAvailableBytes == nil {
		return info, errors.New("read meminfo: no MemTotal or MemAvailable (Linux before 3.14?)")
	}
	return info, nil
}

// addGroups adds the control groups that limit this process on a machine of total bytes.
func (r *Reader) addGroups(f *Figures, total int64) error {
	folders, err := r.ancestors()
	if err != nil {
		return err
	}
	for _, d := range folders {
		g, limited, err := d.read(total)
		if err != nil {
			return err
		}
		if !limited {
			continue
		}
		f.Levels = append(f.Levels, Level{Path: d.path, LimitBytes: g.limit, UsedBytes: max(0, g.current-g.fileCache)})
		if !f.HasCgroup || g.limit < f.CgroupLimit {
			f.HasCgroup, f.CgroupLimit, f.CgroupCurrent, f.CgroupFileCache = true, g.limit, g.current, g.fileCache
		}
	}
	return nil
}

// ancestors gives the folders of the memory controller from this process's own
// group up to the root of what is mounted; none on a kernel without control groups.
func (r *Reader) ancestors() ([]folder, error) {
	self, err := r.proc.Self()
	if err != nil {
		return nil, fmt.Errorf("find this process in proc: %w", err)
	}
	member, err := self.Cgroups()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read control groups: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.member != nil && slices.EqualFunc(member, r.member, sameGroup) {
		return r.folders, nil
	}
	mounts, err := self.MountInfo()
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	r.member, r.folders = member, nil
	for _, g := range member {
		version := versionOf(g)
		if version == 0 {
			continue
		}
		if top, below, ok := locate(mounts, g, version); ok {
			r.folders = append(r.folders, chain(r.root, top, below, version)...)
		}
	}
	return r.folders, nil
}

func sameGroup(a, b procfs.Cgroup) bool {
	return a.HierarchyID == b.HierarchyID && a.Path == b.Path
}

// versionOf says through which interface a hierarchy may limit memory: 1, 2, or 0
// when it is about something else. In a hybrid the version 2 hierarchy is there
// without a memory controller; its folders then have no memory files and limit
// nothing.
func versionOf(g procfs.Cgroup) int {
	switch {
	case g.HierarchyID == 0:
		return 2
	case slices.Contains(g.Controllers, "memory"):
		return 1
	default:
		return 0
	}
}

// locate finds where the hierarchy of g is mounted, and g's path below that mount.
func locate(mounts []*procfs.MountInfo, g procfs.Cgroup, version int) (top, below string, ok bool) {
	for _, m := range mounts {
		_, memory := m.SuperOptions["memory"]
		if version == 2 && m.FSType != "cgroup2" || version == 1 && (m.FSType != "cgroup" || !memory) {
			continue
		}
		// A container without a cgroup namespace sees its whole path in
		// /proc/self/cgroup, but only its own group mounted: take the mount's root off.
		rel, err := filepath.Rel(m.Root, g.Path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			// Our group is outside of what is mounted: the mount's own group is the
			// nearest ancestor, or descendant, that can be seen.
			rel = "."
		}
		return m.MountPoint, rel, true
	}
	return "", "", false
}

// chain lists the folders from top/below up to top.
func chain(root, top, below string, version int) []folder {
	var list []folder
	for p := below; ; p = filepath.Dir(p) {
		path := filepath.Join(top, p)
		list = append(list, folder{version: version, path: path, real: filepath.Join(root, path)})
		if p == "." || p == "/" {
			return list
		}
	}
}

// folder is one control group.
type folder struct {
	version int
	path    string // as the machine knows it
	real    string // under Config.Root
}

type group struct{ limit, current, fileCache int64 }

// read gives a group's figures; limited is false when it limits nothing below
// the machine's total, or has no memory files at all.
func (d folder) read(total int64) (g group, limited bool, err error) {
	limitFile, currentFile, cacheKey, shmemKey := "memory.max", "memory.current", "file", "shmem"
	if d.version == 1 {
		limitFile, currentFile, cacheKey, shmemKey = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "total_shmem"
	}
	text, err := os.ReadFile(filepath.Join(d.real, limitFile))
	if errors.Is(err, fs.ErrNotExist) {
		return group{}, false, nil
	}
	if err != nil {
		return group{}, false, fmt.Errorf("read control group: %w", err)
	}
	if strings.TrimSpace(string(text)) == "max" {
		return group{}, false, nil
	}
	if g.limit, err = parse(text, d.path, limitFile); err != nil {
		return group{}, false, err
	}
	if g.limit >= total {
		return group{}, false, nil
	}
	if text, err = os.ReadFile(filepath.Join(d.real, currentFile)); err != nil {
		return group{}, false, fmt.Errorf("read control group: %w", err)
	}
	if g.current, err = parse(text, d.path, currentFile); err != nil {
		return group{}, false, err
	}
	if text, err = os.ReadFile(filepath.Join(d.real, "memory.stat")); err != nil {
		return group{}, false, fmt.Errorf("read control group: %w", err)
	}
	var cache, shmem int64
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, " ")
		if key != cacheKey && key != shmemKey {
			continue
		}
		n, err := parse([]byte(value), d.path, "memory.stat")
		if err != nil {
			return group{}, false, err
		}
		if key == cacheKey {
			cache = n
		} else {
			shmem = n
		}
	}
	g.fileCache = min(g.current, max(0, cache-shmem))
	return g, true, nil
}

func parse(text []byte, path, file string) (int64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("control group %s, %s: %w", path, file, err)
	}
	return int64(min(n, 1<<63-1)), nil
}

// Group is a control group of the memory controller above this process.
type Group struct {
	// Version is that of its interface: 1 or 2.
	Version int
	// Dir is its folder, under Config.Root.
	Dir string
}

// Groups lists the control groups from this process's own up to the root of what is
// mounted, those without a limit included.
func (r *Reader) Groups() ([]Group, error) {
	folders, err := r.ancestors()
	if err != nil {
		return nil, err
	}
	out := make([]Group, len(folders))
	for i, f := range folders {
		out[i] = Group{Version: f.version, Dir: f.real}
	}
	return out, nil
}
