package measure

import (
	"runtime"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Environment is where figures were taken.
type Environment struct {
	CPUs        int    `json:"cpus"`
	CPUModel    string `json:"cpu_model,omitempty"`
	MemoryBytes int64  `json:"memory_bytes"`
	GoVersion   string `json:"go_version"`
	Kernel      string `json:"kernel"`
	Arch        string `json:"arch"`
	Date        string `json:"date"`
}

// Here is this machine, now. What the kernel does not tell is left out.
func Here() Environment {
	e := Environment{CPUs: runtime.GOMAXPROCS(0), GoVersion: runtime.Version(), Arch: runtime.GOARCH, Date: time.Now().UTC().Format(time.RFC3339)}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		e.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		e.MemoryBytes = int64(s.Totalram) * int64(s.Unit)
	}
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if cpus, err := fs.CPUInfo(); err == nil && len(cpus) > 0 {
			e.CPUModel = cpus[0].ModelName
		}
	}
	return e
}

// Process is what a process uses.
type Process struct {
	// RSSAnonBytes is its own memory: without what it shares and without files.
	RSSAnonBytes int64
	// CPU is the time that it ran, in user mode and in the kernel.
	CPU time.Duration
}

// ProcessOf looks at a process.
func ProcessOf(pid int) (Process, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return Process{}, err
	}
	status, err := p.NewStatus()
	if err != nil {
		return Process{}, err
	}
	stat, err := p.Stat()
	if err != nil {
		return Process{}, err
	}
	return Process{RSSAnonBytes: int64(status.RssAnon), CPU: time.Duration(stat.CPUTime() * float64(time.Second))}, nil
}
