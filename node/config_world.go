package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/isobar-project/isobar/device/hostmem"
)

// World is what the configuration depends on beside what is written in it. Machine is
// the real one; tests make their own. Every field but NUMA is required.
type World struct {
	// Environ is the environment, as os.Environ gives it.
	Environ  []string
	Hostname func() (string, error)
	UID      int
	CPUs     int
	// TempDir is the system's, for when there is no better place.
	TempDir  string
	ReadFile func(path string) ([]byte, error)
	Stat     func(path string) (fs.FileInfo, error)
	Memory   func() (hostmem.Figures, error)
	// NUMA looks at the nodes of main memory; nil is a machine that has none.
	NUMA func() NUMA
}

// Machine is the real world.
func Machine() *World {
	return &World{
		Environ: os.Environ(), Hostname: os.Hostname, UID: os.Geteuid(), CPUs: runtime.GOMAXPROCS(0), TempDir: os.TempDir(),
		ReadFile: os.ReadFile, Stat: os.Stat,
		Memory: func() (hostmem.Figures, error) { return hostmem.Read(hostmem.Config{}) }, NUMA: machineNUMA,
	}
}

// env is the value of a variable, "" if it is not set. Of two of one name the last counts.
func (w *World) env(name string) string {
	for i := len(w.Environ) - 1; i >= 0; i-- {
		if n, v, _ := strings.Cut(w.Environ[i], "="); n == name {
			return v
		}
	}
	return ""
}

// absoluteEnv is the value of a variable that holds an absolute path; the XDG
// specification says to ignore others.
func (w *World) absoluteEnv(name string) string {
	if v := w.env(name); filepath.IsAbs(v) {
		return filepath.Clean(v)
	}
	return ""
}

// systemdDir is the first folder of what systemd made for the unit.
func (w *World) systemdDir(name string) string {
	first, _, _ := strings.Cut(w.env(name), ":")
	if filepath.IsAbs(first) {
		return filepath.Clean(first)
	}
	return ""
}

func (w *World) isDir(path string) bool {
	info, err := w.Stat(path)
	return err == nil && info.IsDir()
}

// privateTemp is a folder of this user's under the temporary one. Others could have
// made it first, so that its owner is checked; see checkRuntimeDir.
func (w *World) privateTemp() string {
	return filepath.Join(w.TempDir, fmt.Sprintf("isobar-%d", w.UID))
}

func defaultStateDir(w *World, _ *Config) ([]string, string, error) {
	if dir := w.absoluteEnv("XDG_STATE_HOME"); dir != "" {
		return []string{filepath.Join(dir, "isobar")}, "XDG_STATE_HOME", nil
	}
	if dir := w.systemdDir("STATE_DIRECTORY"); dir != "" {
		return []string{dir}, "STATE_DIRECTORY, from systemd", nil
	}
	if w.UID == 0 {
		return []string{"/var/lib/isobar"}, "root's place for state", nil
	}
	if home := w.absoluteEnv("HOME"); home != "" && home != "/" {
		return []string{filepath.Join(home, ".local/state/isobar")}, "HOME", nil
	}
	return []string{filepath.Join(w.privateTemp(), "state")}, "no HOME is set: a temporary folder", nil
}

func defaultRuntimeDir(w *World, _ *Config) ([]string, string, error) {
	if dir := w.absoluteEnv("XDG_RUNTIME_DIR"); dir != "" && w.isDir(dir) {
		return []string{filepath.Join(dir, "isobar")}, "XDG_RUNTIME_DIR", nil
	}
	if dir := w.systemdDir("RUNTIME_DIRECTORY"); dir != "" {
		return []string{dir}, "RUNTIME_DIRECTORY, from systemd", nil
	}
	if w.UID == 0 {
		return []string{"/run/isobar"}, "root's place for sockets", nil
	}
	return []string{w.privateTemp()}, "no XDG_RUNTIME_DIR: a private folder under the temporary one", nil
}

// configFiles are where a configuration file is looked for when none is named.
func (w *World) configFiles() []string {
	var files []string
	if dir := w.absoluteEnv("XDG_CONFIG_HOME"); dir != "" {
		files = append(files, filepath.Join(dir, "isobar/config.yaml"))
	} else if home := w.absoluteEnv("HOME"); home != "" {
		files = append(files, filepath.Join(home, ".config/isobar/config.yaml"))
	}
	return append(files, "/etc/isobar/config.yaml")
}

var errNoMemoryFigures = errors.New("the machine's memory is not known")

// halfOfMemory is half of what this process can ever use, in whole huge pages.
func (w *World) halfOfMemory() (int64, error) {
	f, err := w.Memory()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errNoMemoryFigures, err)
	}
	half := f.PhysicalBytes() / 2
	return half - half%deviceQuantum, nil
}

// owner is the user that a file belongs to, where the system tells.
func owner(info fs.FileInfo) (int, bool) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), true
	}
	return 0, false
}
