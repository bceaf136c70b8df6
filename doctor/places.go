package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// longestSocket is what the kernel takes as the path of a unix socket, in bytes.
const longestSocket = 107

// cgroup: a node inside a control group is killed at its limit, whatever the machine has.
func (m *Machine) cgroup() Finding {
	f, err := m.Memory()
	if err != nil {
		return Finding{"cgroup", Fail, "memory figures cannot be read: " + err.Error(), "mount /proc and /sys/fs/cgroup into the container"}
	}
	version, dir := m.group()
	about := fmt.Sprintf("control groups %s, ", version)
	if !f.HasCgroup {
		return ok("cgroup", about+"no limit below the machine's "+size(uint64(f.MemTotal)))
	}
	about += fmt.Sprintf("limit %s of the machine's %s", size(uint64(f.CgroupLimit)), size(uint64(f.MemTotal)))
	if version != "v2" {
		return Finding{"cgroup", Warn, about + "; version 1 has no memory.high, which warns before the limit kills", "boot with systemd.unified_cgroup_hierarchy=1"}
	}
	if high, err := m.read(path.Join(dir, "memory.high")); err == nil && high == "max" {
		return Finding{"cgroup", Warn, about + ", without memory.high, which warns before the limit kills",
			"systemctl set-property isobar.service MemoryHigh=90%, or echo " + fmt.Sprint(f.CgroupLimit/10*9) + " > " + path.Join(dir, "memory.high")}
	}
	return ok("cgroup", about)
}

// group finds this process's folder of memory control.
func (m *Machine) group() (version, dir string) {
	text, err := m.read("/proc/self/cgroup")
	if err != nil {
		return "none", ""
	}
	version = "none"
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(parts) != 3:
		case strings.Contains(","+parts[1]+",", ",memory,"):
			return "v1", path.Join("/sys/fs/cgroup/memory", parts[2])
		case parts[0] == "0":
			version, dir = "v2", path.Join("/sys/fs/cgroup", parts[2])
		}
	}
	return version, dir
}

func (m *Machine) runtimeDir() Finding {
	for _, s := range m.Sockets {
		if len(s) > longestSocket {
			return Finding{"runtime_dir", Fail, fmt.Sprintf("the path %s has %d bytes, and the kernel takes %d", s, len(s), longestSocket), "--runtime-dir with a shorter path"}
		}
	}
	return m.private("runtime_dir", m.RuntimeDir, "--runtime-dir")
}

func (m *Machine) stateDir() Finding { return m.private("state_dir", m.StateDir, "--state-dir") }

// private: nobody else may put something of his own into the folder.
func (m *Machine) private(check, dir, flag string) Finding {
	info, err := m.stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if above, may := m.mayMake(dir); !may {
			return Finding{check, Fail, fmt.Sprintf("%s is not there, and user %d may make nothing in %s", dir, m.UID, above), flag + " with a folder of your own"}
		}
		return ok(check, dir+" is made when the node starts")
	case err != nil:
		return Finding{check, Fail, dir + " cannot be looked at: " + cause(err), flag + " with a folder of your own"}
	case !info.IsDir():
		return Finding{check, Fail, dir + " is not a folder", flag + " with a folder of your own"}
	case info.Mode().Perm()&0o022 != 0:
		return Finding{check, Fail, dir + " can be written to by others", "chmod go-w " + dir}
	}
	if s, known := info.Sys().(*syscall.Stat_t); known && int(s.Uid) != m.UID {
		return Finding{check, Fail, fmt.Sprintf("%s belongs to the user %d, and this is user %d", dir, s.Uid, m.UID),
			fmt.Sprintf("run as that user, or chown -R %d %s", m.UID, dir)}
	}
	return ok(check, dir)
}

// mayMake looks whether this user may make a folder: what counts is the nearest one above it
// that is there. Whose group may write is given the benefit of the doubt.
func (m *Machine) mayMake(dir string) (above string, may bool) {
	for above = path.Dir(dir); ; above = path.Dir(above) {
		info, err := m.stat(above)
		if err != nil && path.Dir(above) != above {
			continue
		}
		if err != nil || m.UID == 0 {
			return above, true
		}
		s, known := info.Sys().(*syscall.Stat_t)
		return above, !known || info.Mode().Perm()&0o022 != 0 || int(s.Uid) == m.UID && info.Mode().Perm()&0o200 != 0
	}
}

func (m *Machine) sockets() Finding {
	var there []string
	for _, s := range m.Sockets {
		info, err := m.stat(s)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return Finding{"sockets", Fail, s + ": " + cause(err), "run as the node's user, or give yourself access"}
		case info.Mode().Type() != fs.ModeSocket:
			return Finding{"sockets", Fail, s + " is no socket", "rm " + s}
		default:
			there = append(there, path.Base(s))
		}
	}
	if len(there) == 0 {
		return ok("sockets", "none yet: no node has run here")
	}
	return ok("sockets", strings.Join(there, ", ")+" in "+m.RuntimeDir)
}

func (m *Machine) streams(ctx context.Context) Finding {
	s, err := m.Streams(ctx)
	switch {
	case err != nil:
		return Finding{"jetstream", Warn, "the NATS server at " + s.URL + " does not let us ask: " + err.Error(), "give this user's credentials with --nats-credentials"}
	case !s.Answers:
		return Finding{"jetstream", Warn, "nobody listens at " + s.URL + ", so that it could not be asked", "isobar run"}
	case !s.Enabled:
		return Finding{"jetstream", Warn, "the server at " + s.URL + " keeps no streams (" + s.Why + "): events are published and not kept",
			"--jetstream for the embedded server; jetstream {} in another's configuration, and for this account"}
	}
	return ok("jetstream", "the server at "+s.URL+" keeps streams")
}

// gpu says what there is of NVIDIA's: none is no fault.
func (m *Machine) gpu() Finding {
	version, err := m.read("/proc/driver/nvidia/version")
	if err != nil {
		return ok("gpu", "none: no NVIDIA driver is loaded (/proc/driver/nvidia/version: "+cause(err)+"); main memory and simulated devices work")
	}
	line, _, _ := strings.Cut(version, "\n")
	entries, _ := fs.Glob(m.Files, "dev/nvidia[0-9]*")
	if len(entries) == 0 {
		return Finding{"gpu", Warn, "a driver is loaded, and there is no /dev/nvidia0 here", "nvidia-modprobe -u -c 0; in a container: --gpus all"}
	}
	if _, err := m.stat("/dev/nvidia-uvm"); err != nil {
		return Finding{"gpu", Warn, "there is no /dev/nvidia-uvm, without which CUDA does not start", "nvidia-modprobe -u"}
	}
	if beside := filepath.Join(filepath.Dir(m.Program), "isobar-cuda"); m.Program != "" {
		if _, err := m.stat(beside); err != nil {
			return Finding{"gpu", Warn, fmt.Sprintf("%d found, and no %s, the program that can use them", len(entries), beside),
				"install isobar-cuda beside isobar: packages have both, make build makes both"}
		}
	}
	return ok("gpu", fmt.Sprintf("%d found; %s", len(entries), strings.TrimPrefix(line, "NVRM version: ")))
}

// cause is an error without the path, which the text has already.
func cause(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
