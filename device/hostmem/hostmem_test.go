package hostmem_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/device/hostmem"
)

const gib = int64(1) << 30

// machine writes the kernel's files of a machine of 64 GiB with 40 GiB available,
// and of this process's place in it.
func machine(t *testing.T, groups, mounts string, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{
		"proc/meminfo":          fmt.Sprintf("MemTotal: %d kB\nMemFree: 1000 kB\nMemAvailable: %d kB\n", 64*gib>>10, 40*gib>>10),
		"proc/4711/cgroup":      groups,
		"proc/4711/mountinfo":   "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n" + mounts,
		"proc/4711/stat":        "",
		"sys/fs/cgroup/ignored": "",
	}
	maps.Copy(all, files)
	for path, text := range all {
		write(t, root, path, text)
	}
	if err := os.Symlink("4711", filepath.Join(root, "proc/self")); err != nil {
		t.Fatal(err)
	}
	return root
}

func write(t *testing.T, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// groupV2 and groupV1 are the memory files of a group, in GiB; a limit of 0 is none.
func groupV2(dir string, limit, current, file, shmem int64) map[string]string {
	max := "max"
	if limit > 0 {
		max = fmt.Sprint(limit * gib)
	}
	return map[string]string{
		dir + "/memory.max":     max + "\n",
		dir + "/memory.current": fmt.Sprintln(current * gib),
		dir + "/memory.stat":    fmt.Sprintf("anon 77\nfile %d\nkernel 5\nshmem %d\nfile_mapped 3\n", file*gib, shmem*gib),
	}
}

func groupV1(dir string, limit, current, cache, shmem int64) map[string]string {
	text := "9223372036854771712\n"
	if limit > 0 {
		text = fmt.Sprintln(limit * gib)
	}
	return map[string]string{
		dir + "/memory.limit_in_bytes": text,
		dir + "/memory.usage_in_bytes": fmt.Sprintln(current * gib),
		// The figures without total_ leave the groups below out.
		dir + "/memory.stat": fmt.Sprintf("cache 1\nshmem 1\ntotal_cache %d\ntotal_shmem %d\n", cache*gib, shmem*gib),
	}
}

func join(list ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range list {
		maps.Copy(all, m)
	}
	return all
}

const (
	mountV2 = "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountV1 = "31 22 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n" +
		"34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n" +
		"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	hybrid = mountV1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)

func TestRead(t *testing.T) {
	const ours = 2 // GiB of what is used are our own
	for _, c := range []struct {
		name           string
		groups, mounts string
		files          map[string]string

		hasCgroup             bool
		limit, current, cache int64 // of the tightest group, GiB
		physical              int64
		outside               int64 // with ours
		room                  int64
	}{
		{
			name:     "no control groups at all",
			groups:   "",
			physical: 64, outside: 64 - 40 - ours, room: 40,
		},
		{
			name:   "version 2, bare machine",
			groups: "0::/user.slice/session.scope\n", mounts: mountV2,
			files: join(
				groupV2("sys/fs/cgroup/user.slice/session.scope", 0, 9, 1, 0),
				groupV2("sys/fs/cgroup/user.slice", 0, 10, 1, 0),
			),
			physical: 64, outside: 22, room: 40,
		},
		{
			name:   "version 2, a limit of our own",
			groups: "0::/a\n", mounts: mountV2,
			files:     groupV2("sys/fs/cgroup/a", 16, 10, 5, 2), // 3 GiB can be dropped
			hasCgroup: true, limit: 16, current: 10, cache: 3,
			physical: 16, outside: 10 - 3 - ours, room: 16 - 7,
		},
		{
			name:   "version 2, the parent's limit is the tighter one",
			groups: "0::/a/b/c\n", mounts: mountV2,
			files: join(
				groupV2("sys/fs/cgroup/a/b/c", 32, 4, 1, 0),
				groupV2("sys/fs/cgroup/a/b", 0, 4, 1, 0),
				groupV2("sys/fs/cgroup/a", 8, 6, 1, 0),
			),
			hasCgroup: true, limit: 8, current: 6, cache: 1,
			physical: 8, outside: 6 - 1 - ours, room: 3,
		},
		{
			name:   "version 2, the looser level is the fuller one",
			groups: "0::/a/b\n", mounts: mountV2,
			files: join(
				groupV2("sys/fs/cgroup/a/b", 8, 3, 0, 0),
				groupV2("sys/fs/cgroup/a", 20, 18, 0, 0), // others take 18-2 of 20: only 4 can be ours
			),
			hasCgroup: true, limit: 8, current: 3, cache: 0,
			physical: 8, outside: 18 - ours - (20 - 8), room: 2,
		},
		{
			name:   "version 2, a roomy group on a full machine",
			groups: "0::/a\n", mounts: mountV2,
			files:     groupV2("sys/fs/cgroup/a", 63, 3, 0, 0),
			hasCgroup: true, limit: 63, current: 3, cache: 0,
			physical: 63, outside: 24 - ours - 1, room: 40,
		},
		{
			name:   "version 2, a limit above the machine is none",
			groups: "0::/a\n", mounts: mountV2,
			files:    groupV2("sys/fs/cgroup/a", 65, 3, 0, 0),
			physical: 64, outside: 22, room: 40,
		},
		{
			name:   "version 2, container with a cgroup namespace",
			groups: "0::/\n", mounts: mountV2,
			files:     groupV2("sys/fs/cgroup", 4, 3, 0, 0),
			hasCgroup: true, limit: 4, current: 3, cache: 0,
			physical: 4, outside: 1, room: 1,
		},
		{
			name:   "version 1, unlimited",
			groups: "4:memory:/x\n3:cpuset:/\n0::/\n", mounts: hybrid,
			files:    join(groupV1("sys/fs/cgroup/memory/x", 0, 9, 1, 0), groupV1("sys/fs/cgroup/memory", 0, 20, 9, 1)),
			physical: 64, outside: 22, room: 40,
		},
		{
			name:   "version 1, nested under a limit",
			groups: "4:memory:/x/y\n3:cpuset:/\n", mounts: mountV1,
			files: join(
				groupV1("sys/fs/cgroup/memory/x/y", 0, 9, 1, 0),
				groupV1("sys/fs/cgroup/memory/x", 12, 10, 4, 1),
				groupV1("sys/fs/cgroup/memory", 0, 20, 9, 1),
			),
			hasCgroup: true, limit: 12, current: 10, cache: 3,
			physical: 12, outside: 10 - 3 - ours, room: 5,
		},
		{
			name:   "version 1, container without a cgroup namespace",
			groups: "4:memory:/docker/abc\n",
			mounts: "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			files:  groupV1("sys/fs/cgroup/memory", 6, 4, 0, 0), hasCgroup: true,
			limit: 6, current: 4, cache: 0,
			physical: 6, outside: 2, room: 2,
		},
		{
			name:   "version 1, our group lies outside of what is mounted",
			groups: "4:memory:/elsewhere\n",
			mounts: "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			files:  groupV1("sys/fs/cgroup/memory", 6, 4, 0, 0), hasCgroup: true,
			limit: 6, current: 4, cache: 0,
			physical: 6, outside: 2, room: 2,
		},
		{
			name:   "hybrid, memory is version 1 and version 2 has no say",
			groups: "4:memory:/x\n1:name=systemd:/x\n0::/x\n", mounts: hybrid,
			files: join(groupV1("sys/fs/cgroup/memory/x", 6, 4, 0, 0), map[string]string{
				"sys/fs/cgroup/unified/x/cgroup.procs": "4711\n",
			}),
			hasCgroup: true, limit: 6, current: 4, cache: 0,
			physical: 6, outside: 2, room: 2,
		},
		{
			name:   "full: nothing becomes negative",
			groups: "0::/a\n", mounts: mountV2,
			files:     groupV2("sys/fs/cgroup/a", 4, 5, 0, 0),
			hasCgroup: true, limit: 4, current: 5, cache: 0,
			physical: 4, outside: 3, room: 0,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := hostmem.Read(hostmem.Config{Root: machine(t, c.groups, c.mounts, c.files)})
			if err != nil {
				t.Fatal(err)
			}
			got := []int64{f.MemTotal, f.MemAvailable, f.CgroupLimit, f.CgroupCurrent, f.CgroupFileCache,
				f.PhysicalBytes(), f.OutsideBytes(f.PhysicalBytes(), ours*gib), f.RoomBytes()}
			want := []int64{64, 40, c.limit, c.current, c.cache, c.physical, c.outside, c.room}
			for i, name := range []string{"total", "available", "limit", "current", "file cache", "physical", "outside", "room"} {
				if got[i] != want[i]*gib {
					t.Errorf("%s is %.2f GiB, want %d", name, float64(got[i])/float64(gib), want[i])
				}
			}
			if f.HasCgroup != c.hasCgroup {
				t.Errorf("has a control group: %v, want %v", f.HasCgroup, c.hasCgroup)
			}
		})
	}
}

// A limit below physical is a budget: outside use fills what it leaves over first.
func TestOutsideOfABudget(t *testing.T) {
	f, err := hostmem.Read(hostmem.Config{Root: machine(t, "", "", nil)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ physical, ours, want int64 }{
		{64, 0, 24},
		{64, 24, 0},
		{64, 30, 0}, // resident elsewhere, or figures of different moments
		{60, 0, 20},
		{40, 0, 0},
		{32, 4, 0},
	} {
		if got := f.OutsideBytes(c.physical*gib, c.ours*gib); got != c.want*gib {
			t.Errorf("physical %d, ours %d: outside %d, want %d GiB", c.physical, c.ours, got/gib, c.want)
		}
	}
}

// A process can be moved to another group, and a limit can change, while it runs.
func TestReaderFollowsChanges(t *testing.T) {
	root := machine(t, "0::/a\n", mountV2, join(
		groupV2("sys/fs/cgroup/a", 16, 1, 0, 0), groupV2("sys/fs/cgroup/b", 8, 1, 0, 0)))
	r, err := hostmem.NewReader(hostmem.Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	limit := func(want int64) {
		t.Helper()
		f, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if f.CgroupLimit != want*gib {
			t.Errorf("limit is %d, want %d GiB", f.CgroupLimit/gib, want)
		}
	}
	limit(16)
	limit(16)
	write(t, root, "sys/fs/cgroup/a/memory.max", fmt.Sprintln(12*gib))
	limit(12)
	write(t, root, "proc/4711/cgroup", "0::/b\n")
	limit(8)
}

func TestBrokenFilesAreErrors(t *testing.T) {
	group := groupV2("sys/fs/cgroup/a", 16, 1, 0, 0)
	for name, broken := range map[string]map[string]string{
		"no MemAvailable":      {"proc/meminfo": "MemTotal: 1000 kB\n"},
		"limit not a number":   {"sys/fs/cgroup/a/memory.max": "lots\n"},
		"current not a number": {"sys/fs/cgroup/a/memory.current": "\n"},
		"stat not a number":    {"sys/fs/cgroup/a/memory.stat": "file x\n"},
	} {
		root := machine(t, "0::/a\n", mountV2, join(group, broken))
		if f, err := hostmem.Read(hostmem.Config{Root: root}); err == nil {
			t.Errorf("%s: read %+v, want an error", name, f)
		}
	}
	if _, err := hostmem.Read(hostmem.Config{Root: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "/proc") {
		t.Errorf("without /proc: %v, want an error that names it", err)
	}
}

// The machine that runs the tests has memory, and room for this test.
func TestThisMachine(t *testing.T) {
	f, err := hostmem.Read(hostmem.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if f.PhysicalBytes() <= 0 || f.RoomBytes() <= 0 || f.PhysicalBytes() > f.MemTotal {
		t.Errorf("implausible figures: %+v", f)
	}
}

func BenchmarkRead(b *testing.B) {
	r, err := hostmem.NewReader(hostmem.Config{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleFigures_OutsideBytes() {
	// A group of 16 GiB uses 10, of which 3 are file cache; 2 are ours.
	f := hostmem.Figures{MemTotal: 64 * gib, MemAvailable: 40 * gib, Levels: []hostmem.Level{
		{Path: "machine", LimitBytes: 64 * gib, UsedBytes: 24 * gib},
		{Path: "/sys/fs/cgroup/a", LimitBytes: 16 * gib, UsedBytes: 7 * gib},
	}}
	fmt.Println(f.PhysicalBytes()/gib, f.OutsideBytes(16*gib, 2*gib)/gib, f.RoomBytes()/gib)
	// Output: 16 5 9
}
