package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
	}
	// What is printed does not depend on where the test runs. The zone is read once, perhaps by
	// a goroutine that a library has started by now: only a new process can have another.
	if os.Getenv("TZ") != "UTC" {
		err := unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), "TZ=UTC"))
		fmt.Fprintln(os.Stderr, "the test cannot run itself anew:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// mainEnv makes the test's own program the program that it tests.
const mainEnv = "RUN_MAIN"

// patience bounds every wait; none gets near it.
const patience = 10 * time.Second

// then is the time of everything in the golden files.
var then = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// desk is a fake of the actors.
type desk func(c *actors.Command)

func (d desk) Submit(c *actors.Command) { d(c) }

// replies answers each action with a value: reply data, or a *schemas.Error.
func replies(by map[schemas.Action]any) desk {
	return func(c *actors.Command) {
		switch v := by[c.Action].(type) {
		case nil:
			c.Reply.Fail(schemas.Errorf(schemas.CodeNotImplemented, "the fake has no %s", c.Action))
		case *schemas.Error:
			c.Reply.Fail(v)
		default:
			c.Reply.Done(v, nil)
		}
	}
}

// startNode is a server with a fake node behind it, or with none.
func startNode(t *testing.T, d actors.Desk) *bus.Bus {
	t.Helper()
	return startServer(t, d, bus.ServerConfig{Listen: "127.0.0.1:0"})
}

// startServer is startNode with a server of its own kind.
func startServer(t *testing.T, d actors.Desk, server bus.ServerConfig) *bus.Bus {
	t.Helper()
	b, err := bus.Open(bus.Config{Server: &server, Node: "here", Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close(0) })
	if d != nil {
		if err := b.Serve(d); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// screen is where a program writes. A test can wait for something to be there.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newScreen() *screen { return &screen{more: make(chan struct{}, 1)} }

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until the screen shows a text.
func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	limit := time.After(patience)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.more:
		case <-limit:
			t.Fatalf("the screen never showed %q:\n%s", text, s.String())
		}
	}
}

// fixture is a program in a fake world: nothing set, 32 GiB, user 1000.
type fixture struct {
	program
	out, err   *screen
	interrupts chan os.Signal
	exits      chan int
}

func newFixture() *fixture {
	f := &fixture{out: newScreen(), err: newScreen(), interrupts: make(chan os.Signal, 2), exits: make(chan int, 1)}
	missing := func(op, path string) error { return &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist} }
	f.program = program{
		name: "isobar", in: strings.NewReader(""), out: f.out, err: f.err, version: "1.2.3", interrupts: f.interrupts,
		exit: func(code int) { f.exits <- code }, now: func() time.Time { return then },
		connect: client.Connect, executable: func() (string, error) { return "/usr/bin/isobar", nil },
		world: &node.World{
			Environ: []string{"HOME=/home/ada"}, UID: 1000, CPUs: 8, TempDir: "/tmp",
			Hostname: func() (string, error) { return "here", nil },
			ReadFile: func(path string) ([]byte, error) { return nil, missing("open", path) },
			Stat:     func(path string) (fs.FileInfo, error) { return nil, missing("stat", path) },
			Memory: func() (hostmem.Figures, error) {
				return hostmem.Figures{Levels: []hostmem.Level{{Path: "machine", LimitBytes: 32 << 30}}, MemTotal: 32 << 30}, nil
			},
		},
		node:      func(context.Context, node.Config, func(node.Info)) error { return errors.New("no node in this test") },
		vault:     func(context.Context, vault.RunConfig) error { return errors.New("no vault in this test") },
		findModel: func([]string) (string, bool) { return "", false },
		exists:    func(string) bool { return false },
		become:    func(string, []string) error { return errors.New("no other program in this test") },
	}
	return f
}

// run runs one command line to its end.
func (f *fixture) run(t *testing.T, args ...string) int {
	t.Helper()
	done := f.start(args...)
	return wait(t, done)
}

// start runs one command line beside the test.
func (f *fixture) start(args ...string) <-chan int {
	done := make(chan int, 1)
	go func() { done <- f.main(context.Background(), args) }()
	return done
}

func wait[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("it did not end")
		panic("unreachable")
	}
}

// golden compares with a kept file; -rewrite writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; `go test ./cmd/node -rewrite` takes it over if it is right\n--- got\n%s\n--- want\n%s", path, got, want)
	}
}

// brokenPipe is an output that takes nothing.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
