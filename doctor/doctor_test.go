package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/doctor"
)

func twoNodes() []hostmem.Node {
	return []hostmem.Node{{ID: 0, TotalBytes: 32 << 30, Processors: true}, {ID: 1, TotalBytes: 16 << 30}}
}

// healthy is a machine that lacks nothing.
func healthy() *doctor.Machine {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o644} }
	return &doctor.Machine{
		Files: fstest.MapFS{
			"proc/sys/kernel/osrelease":                             file("6.8.0-45-generic\n"),
			"proc/sys/fs/leases-enable":                             file("1\n"),
			"sys/kernel/mm/transparent_hugepage/shmem_enabled":      file("always within_size [advise] never deny force\n"),
			"proc/pressure/memory":                                  file("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull …\n"),
			"proc/self/cgroup":                                      file("0::/system.slice/isobar.service\n"),
			"sys/fs/cgroup/system.slice/isobar.service/memory.high": file("900\n"),
			"run/isobar":                 {Mode: fs.ModeDir | 0o700},
			"run/isobar/data.sock":       {Mode: fs.ModeSocket | 0o600},
			"var/lib/isobar":             {Mode: fs.ModeDir | 0o700},
			"proc/driver/nvidia/version": file("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65\nGCC version: x\n"),
			"dev/nvidia0":                file(""),
			"dev/nvidia1":                file(""),
			"dev/nvidia-uvm":             file(""),
		},
		RuntimeDir: "/run/isobar", StateDir: "/var/lib/isobar", Sockets: []string{"/run/isobar/data.sock", "/run/isobar/vault.sock"},
		OpenFiles: doctor.Limit{Soft: 1024, Hard: 1 << 20}, Memlock: doctor.Limit{Soft: 1, Hard: doctor.Unlimited},
		Memory: func() (hostmem.Figures, error) {
			return hostmem.Figures{MemTotal: 64 << 30, HasCgroup: true, CgroupLimit: 1000}, nil
		},
		NUMA:         func() ([]hostmem.Node, error, error) { return twoNodes(), nil, nil },
		Device:       func() ([]string, error) { return nil, nil },
		Synchronized: func() (bool, error) { return true, nil },
		Streams: func(context.Context) (doctor.Streams, error) {
			return doctor.Streams{URL: "nats://here", Answers: true, Enabled: true}, nil
		},
	}
}

func find(t *testing.T, fs []doctor.Finding, check string) doctor.Finding {
	t.Helper()
	for _, f := range fs {
		if f.Check == check {
			return f
		}
	}
	t.Fatalf("no check %s", check)
	panic("unreachable")
}

func TestAHealthyMachine(t *testing.T) {
	all := doctor.Examine(context.Background(), healthy())
	for _, f := range all {
		if f.State != doctor.OK || f.Text == "" || f.Fix != "" {
			t.Errorf("%+v", f)
		}
	}
	if len(all) < 12 || doctor.Worst(all) != doctor.OK {
		t.Errorf("%d checks, the worst is %s", len(all), doctor.Worst(all))
	}
	if f := find(t, all, "gpu"); !strings.HasPrefix(f.Text, "2 found; NVIDIA UNIX") {
		t.Errorf("gpu: %s", f.Text)
	}
}

// Each ailment is found by its check, says what is wrong, and names what mends it.
func TestAilments(t *testing.T) {
	set := func(path, text string) func(*doctor.Machine) {
		return func(m *doctor.Machine) {
			m.Files.(fstest.MapFS)[path] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
		}
	}
	remove := func(path string) func(*doctor.Machine) {
		return func(m *doctor.Machine) { delete(m.Files.(fstest.MapFS), path) }
	}
	mode := func(path string, mode fs.FileMode) func(*doctor.Machine) {
		return func(m *doctor.Machine) { m.Files.(fstest.MapFS)[path] = &fstest.MapFile{Mode: mode} }
	}
	streams := func(s doctor.Streams, err error) func(*doctor.Machine) {
		return func(m *doctor.Machine) {
			m.Streams = func(context.Context) (doctor.Streams, error) { return s, err }
		}
	}
	for _, c := range []struct {
		check     string
		hurt      func(*doctor.Machine)
		state     doctor.State
		text, fix string // parts
	}{
		{"kernel", set("proc/sys/kernel/osrelease", "4.19.0"), doctor.Fail, "no pidfd", "5.3"},
		{"kernel", remove("proc/sys/kernel/osrelease"), doctor.Fail, "/proc", "mount"},
		{"leases", set("proc/sys/fs/leases-enable", "0"), doctor.Fail, "turned off", "sysctl -w fs.leases-enable=1"},
		{"leases", func(m *doctor.Machine) { m.Device = func() ([]string, error) { return nil, errors.New("EPERM") } }, doctor.Fail, "EPERM", "seccomp"},
		{"huge_pages", func(m *doctor.Machine) { m.Device = func() ([]string, error) { return []string{"small"}, nil } }, doctor.Warn, "shmem_enabled is advise", "echo advise >"},
		{"memlock", func(m *doctor.Machine) { m.Memlock.Hard = 64 << 10 }, doctor.Warn, "64 KiB", "LimitMEMLOCK"},
		{"memlock", func(m *doctor.Machine) { m.Memlock.Hard = 64 << 10; remove("proc/driver/nvidia/version")(m) }, doctor.OK, "64 KiB may be locked: enough without a GPU", ""},
		{"open_files", func(m *doctor.Machine) { m.OpenFiles.Hard = 512 }, doctor.Fail, "512", "LimitNOFILE"},
		{"open_files", func(m *doctor.Machine) { m.OpenFiles.Hard = 4096 }, doctor.Warn, "2048 segments", "LimitNOFILE"},
		{"cgroup", set("sys/fs/cgroup/system.slice/isobar.service/memory.high", "max"), doctor.Warn, "control groups v2", "MemoryHigh=90%"},
		{"cgroup", set("proc/self/cgroup", "5:memory:/a\n0::/\n"), doctor.Warn, "version 1", "unified_cgroup_hierarchy"},
		{"cgroup", func(m *doctor.Machine) {
			m.Memory = func() (hostmem.Figures, error) { return hostmem.Figures{}, errors.New("no meminfo") }
		}, doctor.Fail, "no meminfo", "mount"},
		{"numa", func(m *doctor.Machine) {
			m.NUMA = func() ([]hostmem.Node, error, error) { return twoNodes(), errors.New("mbind: no"), nil }
		}, doctor.Warn, "node 1 16 GiB (no processors: used only where it is named); main memory is one device for all of them: mbind: no", "--cap-add SYS_NICE"},
		{"numa", func(m *doctor.Machine) {
			m.NUMA = func() ([]hostmem.Node, error, error) { return nil, nil, errors.New("strange list") }
		}, doctor.Warn, "strange list", "/sys"},
		{"numa", func(m *doctor.Machine) {
			m.NUMA = func() ([]hostmem.Node, error, error) { return twoNodes()[:1], errors.New("mbind: no"), nil }
		}, doctor.OK, "one node", ""},
		{"psi", remove("proc/pressure/memory"), doctor.Warn, "stalls", "psi=1"},
		{"runtime_dir", mode("run/isobar", fs.ModeDir|0o777), doctor.Fail, "by others", "chmod go-w /run/isobar"},
		{"runtime_dir", mode("run/isobar", 0o600), doctor.Fail, "not a folder", "--runtime-dir"},
		{"runtime_dir", func(m *doctor.Machine) { m.Sockets = []string{"/" + strings.Repeat("x", 120)} }, doctor.Fail, "121 bytes", "--runtime-dir"},
		{"state_dir", mode("var/lib/isobar", fs.ModeDir|0o770), doctor.Fail, "by others", "chmod go-w /var/lib/isobar"},
		{"state_dir", func(m *doctor.Machine) {
			m.UID, m.StateDir = 1000, "/nonexistent/.local/state/isobar"
			m.Files.(fstest.MapFS)["."] = &fstest.MapFile{Mode: fs.ModeDir | 0o755, Sys: &syscall.Stat_t{}}
		}, doctor.Fail, "user 1000 may make nothing in /", "--state-dir"},
		{"state_dir", func(m *doctor.Machine) {
			m.UID, m.StateDir = 1000, "/home/ada/.local/state/isobar"
			m.Files.(fstest.MapFS)["home/ada"] = &fstest.MapFile{Mode: fs.ModeDir | 0o700, Sys: &syscall.Stat_t{Uid: 1000}}
		}, doctor.OK, "is made when the node starts", ""},
		{"sockets", mode("run/isobar/data.sock", 0o600), doctor.Fail, "no socket", "rm /run/isobar/data.sock"},
		{"jetstream", streams(doctor.Streams{URL: "nats://x"}, nil), doctor.Warn, "nobody listens at nats://x", "isobar run"},
		{"jetstream", streams(doctor.Streams{URL: "nats://x", Answers: true, Why: "not enabled"}, nil), doctor.Warn, "not enabled", "jetstream"},
		{"jetstream", streams(doctor.Streams{URL: "nats://x"}, errors.New("authorization violation")), doctor.Warn, "authorization", "credentials"},
		{"gpu", remove("dev/nvidia-uvm"), doctor.Warn, "nvidia-uvm", "nvidia-modprobe"},
		{"gpu", func(m *doctor.Machine) { remove("dev/nvidia0")(m); remove("dev/nvidia1")(m) }, doctor.Warn, "/dev/nvidia0", "--gpus all"},
		{"gpu", func(m *doctor.Machine) { m.Program = "/opt/isobar" }, doctor.Warn, "/opt/isobar-cuda", "make build"},
		{"clock", func(m *doctor.Machine) { m.Synchronized = func() (bool, error) { return false, nil } }, doctor.Warn, "no reference", "timedatectl"},
		// No fault, but worth a word.
		{"gpu", remove("proc/driver/nvidia/version"), doctor.OK, "none: no NVIDIA driver", ""},
		{"runtime_dir", remove("run/isobar"), doctor.OK, "run/isobar", ""},
		{"cgroup", func(m *doctor.Machine) {
			m.Memory = func() (hostmem.Figures, error) { return hostmem.Figures{MemTotal: 1 << 30}, nil }
		}, doctor.OK, "no limit", ""},
	} {
		t.Run(c.check+" "+c.text, func(t *testing.T) {
			m := healthy()
			c.hurt(m)
			all := doctor.Examine(context.Background(), m)
			f := find(t, all, c.check)
			if f.State != c.state || !strings.Contains(f.Text, c.text) || !strings.Contains(f.Fix, c.fix) || (f.Fix == "") != (c.state == doctor.OK) {
				t.Errorf("%+v, want %s, %q, %q", f, c.state, c.text, c.fix)
			}
			if w := doctor.Worst(all); c.state == doctor.Fail && w != doctor.Fail || c.state == doctor.OK && w != doctor.OK {
				t.Errorf("the worst is %s", w)
			}
		})
	}
}

// This machine can be examined, whatever it has.
func TestHere(t *testing.T) {
	dir := t.TempDir()
	m := doctor.Here(dir, dir, []string{dir + "/data.sock"}, func(context.Context) (doctor.Streams, error) { return doctor.Streams{URL: "none"}, nil })
	for _, f := range doctor.Examine(context.Background(), m) {
		if f.Text == "" || (f.State == doctor.OK) != (f.Fix == "") {
			t.Errorf("%+v", f)
		}
		t.Logf("%-12s %-4s %s", f.Check, f.State, f.Text)
	}
}

func ExampleExamine() {
	m := healthy()
	m.OpenFiles.Hard = 512
	for _, f := range doctor.Examine(context.Background(), m) {
		if f.State != doctor.OK {
			fmt.Printf("%s %s: %s\n  %s\n", f.State, f.Check, f.Text, f.Fix)
		}
	}
	// Output:
	// fail open_files: only 512 files may be open, and each segment is one
	//   LimitNOFILE=65536 in the unit, or ulimit -Hn 65536
}
