package vault

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/fdwire"
)

// SpawnConfig says how to start a vault.
type SpawnConfig struct {
	// SocketPath as in Config.
	SocketPath string
	// Command is the program and its arguments, for example {"/usr/bin/isobar",
	// "vault"}; it must call Run with what Inherited returns.
	Command []string
	// Env of the process, beside the variable for Inherited; nil: ours.
	Env []string
	// LogPath gets its output; empty: /dev/null.
	LogPath string
}

// Spawn starts a vault that outlives this process: a session of its own, the root
// directory, no descriptor of ours but the listener. If one answers on the
// socket already, nothing is started. The socket accepts connections when Spawn
// returns, so that a client need not wait and try again.
func Spawn(cfg SpawnConfig) error {
	if err := checkPath(cfg.SocketPath); err != nil {
		return err
	}
	if len(cfg.Command) == 0 {
		return errors.New("vault: no command to start")
	}
	unlock, err := lockDir(cfg.SocketPath, true)
	if err != nil {
		return err
	}
	defer unlock()
	if fdwire.Alive(cfg.SocketPath) {
		return nil
	}
	l, err := listenLocked(cfg.SocketPath)
	if err != nil {
		return err
	}
	if err := start(cfg, l); err != nil {
		_ = l.Close()
		_ = os.Remove(cfg.SocketPath)
		return err
	}
	return l.Close()
}

func start(cfg SpawnConfig, l interface{ File() (*os.File, error) }) error {
	f, err := l.File()
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer f.Close()
	cmd := exec.Command(cfg.Command[0], cfg.Command[1:]...)
	cmd.Dir = "/"
	if !filepath.IsAbs(cmd.Path) {
		if cmd.Path, err = filepath.Abs(cmd.Path); err != nil {
			return fmt.Errorf("vault: %w", err)
		}
	}
	cmd.Env = cfg.Env
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)], listenerEnv+"="+strconv.Itoa(3))
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cfg.LogPath != "" {
		log, err := os.OpenFile(cfg.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("vault: %w", err)
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	// Go opens everything close-on-exec, but what our own parent left open
	// may not be. Kernels before 5.11 lack this; there such a descriptor stays
	// open in the vault, which is untidy and no more.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil &&
		!errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("vault: close_range: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	// Reaps it should it end before us; outlived by it, we leave it to init.
	go func() { _ = cmd.Wait() }()
	return nil
}
