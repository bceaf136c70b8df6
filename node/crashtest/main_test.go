package crashtest

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/vault"
)

// full takes every crash point instead of samples.
var full = flag.Bool("crash.full", false, "crash at every point instead of at samples")

// The roles of this binary, in its first argument.
const (
	roleNode     = "role-node"
	roleVault    = "role-vault"
	roleConsumer = "role-consumer"
)

func TestMain(m *testing.M) {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch role {
	case roleNode:
		os.Exit(runNode(os.Args[2]))
	case roleVault:
		os.Exit(runVault(os.Args[2]))
	case roleConsumer:
		os.Exit(runConsumer())
	}
	os.Exit(m.Run())
}

// settings are what a test tells a node process.
type settings struct {
	Dir       string // of its sockets and its state
	Devices   []node.DeviceSpec
	Forget    []string
	Ephemeral bool
	TakeOver  bool
	JetStream bool
	// Crash ends the process by SIGKILL at the CrashAt-th time that it comes to the point.
	Crash   string
	CrashAt int
	// Log has it write its records to standard error.
	Log bool
}

// ready is what a node process says when it serves, and stopped what it says at the end.
type ready struct {
	Err      string
	Info     node.Info
	PID      int
	Grants   int // stays, after a clean stop
	Models   int
	Finished bool
}

func (s settings) config() node.Config {
	c := nodetest.Config(s.Dir)
	c.VaultOff, c.Ephemeral, c.TakeOver, c.JetStream = false, s.Ephemeral, s.TakeOver, s.JetStream
	c.Devices, c.ForgetDevices = s.Devices, s.Forget
	c.Warm, c.PoolBytes = nil, 0 // what is released goes back to the kernel
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	c.VaultCommand = []string{exe, roleVault, pidFile(s.Dir)}
	if s.Log {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return c
}

// runNode is a node's process. It ends when it is told to by SIGTERM, and when its test
// is gone.
func runNode(arg string) int {
	out := json.NewEncoder(os.Stdout)
	var s settings
	if err := json.Unmarshal([]byte(arg), &s); err != nil {
		out.Encode(ready{Err: err.Error()})
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(2)
	}()
	var hooks node.Hooks
	if s.Crash != "" {
		hooks.Crash = crasher(s.Crash, s.CrashAt)
	}
	n, err := node.Open(ctx, s.config(), hooks)
	if err != nil {
		out.Encode(ready{Err: err.Error()})
		return 1
	}
	out.Encode(ready{Info: n.Info(), PID: os.Getpid()})
	<-ctx.Done()
	limit, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stays, err := n.Stop(limit)
	end := ready{Finished: true, Grants: stays.Grants, Models: stays.Models}
	if err != nil {
		end.Err = err.Error()
	}
	out.Encode(end)
	return 0
}

// crasher ends the process at the n-th time at a point. Every thread stops where it is:
// nothing is flushed, closed or answered.
func crasher(point string, n int) func(string) {
	var mu sync.Mutex
	return func(at string) {
		if at != point {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if n--; n == 0 {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // until the signal is delivered
		}
	}
}

// runVault is the vault's process. It gives up soon, so that a test that fails leaves
// nothing behind. It notes its pid: the socket cannot tell, because the node made it.
func runVault(file string) int {
	if err := os.WriteFile(file, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	err := vault.Run(context.Background(), vault.RunConfig{Config: vault.Config{
		PingTimeout: 400 * time.Millisecond, NodeTimeout: 30 * time.Second, RecheckEvery: time.Second,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// pidFile is where the newest vault of a folder notes its pid.
func pidFile(dir string) string { return filepath.Join(dir, "vault.pid") }

// place makes a folder for one test: short, because a socket's path may be no longer.
func place(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "models"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
