package vault

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/internal/fdroom"
)

// RunConfig is Config and what concerns the process as a whole.
type RunConfig struct {
	Config
	// LowerOOMScore makes the kernel's out-of-memory killer look elsewhere; nil:
	// by /proc/self/oom_score_adj, as far down as this process may.
	LowerOOMScore func() error
}

// Run is the life of a vault process. It tunes the process for being small and for
// being the last to die, then serves. Without Config.Listener it takes the
// one that its parent left, else listens on SocketPath.
func Run(ctx context.Context, cfg RunConfig) error {
	// One thread runs Go code, a collection begins after little garbage, and no
	// profile is kept. What a burst of messages leaves goes back to the
	// system a second later.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(30)
	runtime.MemProfileRate = 0
	if cfg.Trim == nil {
		cfg.Trim = debug.FreeOSMemory
	}

	if cfg.Listener == nil {
		l, err := Inherited(os.Getenv)
		if err != nil {
			return err
		}
		cfg.Listener = l
	}
	cfg.Config, _ = cfg.Config.withDefaults() // Serve reports what is wrong
	raiseFileLimit()
	if err := fdroom.Make(fdroom.Enough); err != nil {
		cfg.Log.Info("there is no room for descriptors yet", "error", err)
	}
	lower := cfg.LowerOOMScore
	if lower == nil {
		lower = lowerOOMScore
	}
	if err := lower(); err != nil {
		cfg.Log.Info("the out-of-memory score stays as it is", "error", err)
	}
	return Serve(ctx, cfg.Config)
}

// raiseFileLimit lifts the soft limit of open files to the hard one.
func raiseFileLimit() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}

// lowerOOMScore needs CAP_SYS_RESOURCE to go below what the process started with.
func lowerOOMScore() error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0)
}
