package doctor

import (
	"fmt"
	"strings"
)

// Limits that a node does well to have.
const (
	enoughFiles  = 65536 // a descriptor for each segment, twice while it is handed out
	fewestFiles  = 1024
	enoughLocked = 1 << 30 // what a GPU copies from is locked
)

// kernel: dead processes are seen by pidfd, release is proved by leases on memfds.
func (m *Machine) kernel() Finding {
	release, err := m.read("/proc/sys/kernel/osrelease")
	if err != nil {
		return Finding{"kernel", Fail, fmt.Sprintf("/proc is not readable: %v", err), "mount -t proc proc /proc"}
	}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return Finding{"kernel", Warn, "the version " + release + " says nothing", "uname -r"}
	}
	if major < 5 || major == 5 && minor < 3 {
		return Finding{"kernel", Fail, "Linux " + release + " has no pidfd", "install Linux 5.3 or later; 6.1 makes huge pages of shared memory"}
	}
	return ok("kernel", "Linux "+release)
}

func (m *Machine) leases() Finding {
	if v, err := m.read("/proc/sys/fs/leases-enable"); err == nil && v == "0" {
		return Finding{"leases", Fail, "leases are turned off, so that release of memory cannot be proved", "sysctl -w fs.leases-enable=1"}
	}
	if _, err := m.Device(); err != nil {
		return Finding{"leases", Fail, err.Error(), "allow fcntl F_SETLEASE and memfd_create in the sandbox's seccomp profile, for example --security-opt seccomp=unconfined to try"}
	}
	return ok("leases", "write leases on memfds prove release")
}

func (m *Machine) hugePages() Finding {
	setting := "unknown"
	if v, err := m.read("/sys/kernel/mm/transparent_hugepage/shmem_enabled"); err == nil {
		setting = chosen(v)
	}
	notes, err := m.Device()
	switch {
	case err != nil:
		return Finding{"huge_pages", Warn, "not tried, since main memory cannot be made ready at all (see leases)", "mend that first"}
	case len(notes) > 0:
		return Finding{"huge_pages", Warn, fmt.Sprintf("shared memory gets small pages (shmem_enabled is %s): %s", setting, strings.Join(notes, "; ")),
			"echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"}
	}
	return ok("huge_pages", fmt.Sprintf("shared memory gets huge pages (shmem_enabled is %s; tried)", setting))
}

// numa: on several nodes main memory is a device each, bound to its node.
func (m *Machine) numa() Finding {
	nodes, unbound, err := m.NUMA()
	if err != nil {
		return Finding{"numa", Warn, "the NUMA nodes cannot be read: " + err.Error(), "mount /sys into the container"}
	}
	if len(nodes) < 2 {
		return ok("numa", "one node: main memory is one device")
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = fmt.Sprintf("node %d %s", n.ID, size(uint64(n.TotalBytes)))
		if !n.Processors {
			names[i] += " (no processors: used only where it is named)"
		}
	}
	about := fmt.Sprintf("%d nodes: %s", len(nodes), strings.Join(names, ", "))
	if unbound != nil {
		return Finding{"numa", Warn, about + "; main memory is one device for all of them: " + unbound.Error(),
			"allow the system call mbind: --cap-add SYS_NICE for a container, SystemCallFilter=@resources in a unit"}
	}
	return ok("numa", about+"; each is a device of its own")
}

// chosen is the word in brackets of a setting such as "always [never] advise".
func chosen(s string) string {
	_, rest, found := strings.Cut(s, "[")
	word, _, closed := strings.Cut(rest, "]")
	if !found || !closed {
		return s
	}
	return word
}

func (m *Machine) memlock() Finding {
	if m.Memlock.Hard < enoughLocked {
		if _, err := m.stat("/proc/driver/nvidia/version"); err != nil {
			return ok("memlock", size(m.Memlock.Hard)+" may be locked: enough without a GPU")
		}
		return Finding{"memlock", Warn, fmt.Sprintf("only %s may be locked, and what a GPU copies from is locked", size(m.Memlock.Hard)),
			"LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"}
	}
	return ok("memlock", size(m.Memlock.Hard)+" may be locked")
}

// openFiles: the program raises the soft limit to the hard one by itself.
func (m *Machine) openFiles() Finding {
	const fix = "LimitNOFILE=65536 in the unit, or ulimit -Hn 65536"
	switch n := m.OpenFiles.Hard; {
	case n < fewestFiles:
		return Finding{"open_files", Fail, fmt.Sprintf("only %d files may be open, and each segment is one", n), fix}
	case n < enoughFiles:
		return Finding{"open_files", Warn, fmt.Sprintf("%d files may be open: enough for some %d segments", n, n/2), fix}
	case n == Unlimited:
		return ok("open_files", "any number of files may be open")
	default:
		return ok("open_files", fmt.Sprintf("%d files may be open", n))
	}
}

// pressure: the kernel's own word on stalls for want of memory.
func (m *Machine) pressure() Finding {
	text, err := m.read("/proc/pressure/memory")
	if err != nil {
		return Finding{"psi", Warn, "the kernel tells nothing of stalls (/proc/pressure/memory: " + cause(err) + ")",
			"boot with psi=1 on a kernel with CONFIG_PSI"}
	}
	some, _, _ := strings.Cut(text, "\n")
	return ok("psi", some)
}

func (m *Machine) time() Finding {
	in, err := m.Synchronized()
	switch {
	case err != nil:
		return Finding{"clock", Warn, "whether the clock follows a reference cannot be told: " + err.Error(), "timedatectl"}
	case !in:
		return Finding{"clock", Warn, "the clock follows no reference: times in events differ from those of other machines; deadlines are not affected", "timedatectl set-ntp true"}
	}
	return ok("clock", "follows a reference")
}

// size writes bytes for people.
func size(n uint64) string {
	if n == Unlimited {
		return "any amount"
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, u := float64(n), 0
	for v >= 1024 && u < len(units)-1 {
		v /= 1024
		u++
	}
	return fmt.Sprintf("%.3g %s", v, units[u])
}
