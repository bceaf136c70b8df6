package gputest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
	"github.com/isobar-project/isobar/device/cuda/fake"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/vault"
)

const mib = 1 << 20

// gpuBytes is how large each of the two GPUs is.
const gpuBytes = 128 * mib

// The roles of this binary, in its first argument.
const (
	roleNode     = "role-node"
	roleVault    = "role-vault"
	roleConsumer = "role-consumer"
)

// library names the fake driver to the processes of a test.
const library = "GPUTEST_LIBRARY"

func TestMain(m *testing.M) {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch role {
	case roleNode:
		os.Exit(runNode(os.Args[2]))
	case roleVault:
		os.Exit(runVault())
	case roleConsumer:
		os.Exit(runConsumer(os.Args[2]))
	}
	os.Exit(run(m))
}

// run builds the driver once for all tests.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gpu")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	path, err := fake.Build(dir)
	if err == nil {
		err = os.Setenv(library, path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// openFake loads the driver for a test's folder into this process.
func openFake(dir string) (*fake.Library, error) {
	l, err := fake.Open(os.Getenv(library))
	if err != nil {
		return nil, err
	}
	return l, l.Configure(2, gpuBytes, filepath.Join(dir, "gpus"))
}

func load(string, string) (device.Runtime, error) {
	r, err := cuda.Load(cuda.Libraries{CUDA: os.Getenv(library), NVML: os.Getenv(library)})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// hello is what a node process says when it serves, and for each order.
type hello struct {
	Err  string
	Info node.Info
}

// breakage is an order to a node process.
type breakage struct {
	// Fail has the N-th call of that name from now fail with Code.
	Fail    string
	N, Code int
	// Hold keeps calls of that name from returning, until On is false.
	Hold string
	On   bool
	// Lose has the GPU of number Lost fall off the bus.
	Lose bool
	Lost int
}

func config(dir string) node.Config {
	c := nodetest.Config(dir)
	c.VaultOff, c.Ephemeral, c.JetStream = false, false, false
	c.Devices = []node.DeviceSpec{{Kind: node.DeviceRAM, ID: "ram-0", Bytes: 64 * mib}}
	c.GPUs = node.GPUsOn
	c.Warm, c.PoolBytes = nil, 0 // what is released goes back to the driver
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	c.VaultCommand = []string{exe, roleVault}
	c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	return c
}

// runNode is a node's process. It ends by SIGTERM, and when its test is gone.
func runNode(dir string) int {
	out := json.NewEncoder(os.Stdout)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	l, err := openFake(dir)
	if err != nil {
		out.Encode(hello{Err: err.Error()})
		return 1
	}
	n, err := node.Open(ctx, config(dir), node.Hooks{LoadGPUs: load})
	if err != nil {
		out.Encode(hello{Err: err.Error()})
		return 1
	}
	out.Encode(hello{Info: n.Info()})
	go func() {
		in := json.NewDecoder(os.Stdin)
		for {
			var b breakage
			if err := in.Decode(&b); err != nil {
				io.Copy(io.Discard, os.Stdin)
				os.Exit(2)
			}
			switch {
			case b.Fail != "":
				l.Fail(b.Fail, b.N, b.Code)
			case b.Hold != "":
				l.Hold(b.Hold, b.On)
			case b.Lose:
				l.Lose(b.Lost)
			}
			out.Encode(hello{})
		}
	}()
	<-ctx.Done()
	limit, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := n.Stop(limit); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// runVault is the vault's process. It gives up soon, so that a test that fails leaves nothing.
func runVault() int {
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
