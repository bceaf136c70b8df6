// Package nodetest starts a server and a node in one call, for tests: of this project, and
// of services that use a node.
//
//	n := nodetest.Start(t)                       // one simulated device, gpu-0, 1 GiB
//	c := n.Client(t)                             // connected
//	err := c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{…}, &reply)
//
// The node runs in the test's process, on a free loopback port and in a temporary
// folder, without a vault: nothing outlives the test.
package nodetest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/node"
)

// Node is a running node of a test.
type Node struct {
	*node.Node
	// ModelRoot is a folder from which models may be loaded.
	ModelRoot string
	// Config is what it was started with.
	Config node.Config
}

// Option changes a test's node before it starts.
type Option func(*node.Config, *node.Hooks)

// Devices replaces the simulated device: KIND:ID=SIZE each, as on the command line.
func Devices(specs ...string) Option {
	return func(c *node.Config, _ *node.Hooks) {
		c.Devices = nil
		for _, s := range specs {
			d, err := node.ParseDevice(s)
			if err != nil {
				panic(err)
			}
			c.Devices = append(c.Devices, d)
		}
	}
}

// Set changes the configuration by hand.
func Set(f func(*node.Config)) Option {
	return func(c *node.Config, _ *node.Hooks) { f(c) }
}

// Config is the configuration of a test's node under dir.
func Config(dir string) node.Config {
	c, err := node.Defaults(node.Machine())
	if err != nil {
		panic(err) // the machine's own figures: nothing of a test's doing
	}
	c.Node = "test"
	c.Listen = "127.0.0.1:0"
	c.StateDir, c.RuntimeDir = filepath.Join(dir, "state"), filepath.Join(dir, "run")
	c.ModelRoots = []string{filepath.Join(dir, "models")}
	c.Devices = []node.DeviceSpec{{Kind: node.DeviceSim, ID: "gpu-0", Bytes: 1 << 30}}
	c.VaultOff, c.Ephemeral = true, true
	c.SignalsOff = true // what else runs on this machine is no part of a test
	c.Version = "0.0.0-test"
	c.HTTP = "" // tests that look at it choose a free port
	return c
}

// Start starts a node that ends with the test.
func Start(t testing.TB, options ...Option) *Node {
	t.Helper()
	// A unix socket's path is short: not every test's folder is.
	dir, err := os.MkdirTemp("", "isobar")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := Config(dir)
	var h node.Hooks
	for _, o := range options {
		o(&c, &h)
	}
	for _, root := range c.ModelRoots {
		if err := os.MkdirAll(root, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	n, err := node.Open(ctx, c, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if _, err := n.Stop(ctx); err != nil {
			t.Errorf("stopping the node: %v", err)
		}
	})
	root := ""
	if len(c.ModelRoots) > 0 {
		root = c.ModelRoots[0]
	}
	return &Node{Node: n, ModelRoot: root, Config: c}
}

// patience is how long a command may take on a machine that tests keep busy.
const patience = 20 * time.Second

// Client connects to the node; it is closed with the test.
func (n *Node) Client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.Connect(client.Options{URL: n.Info().URL, Wait: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
