package crashtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
)

// patience is how long anything may take before a test gives up. It only ever passes
// where something is broken.
const patience = 30 * time.Second

// process is a child of the test.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *json.Decoder
	begun clock.Instant
	ctx   context.Context // ends with the process
	once  sync.Once
	err   bytesTail
}

// bytesTail keeps what a child wrote to standard error, to be shown if the test fails.
type bytesTail struct {
	mu sync.Mutex
	b  []byte
}

func (w *bytesTail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	if over := len(w.b) - 16<<10; over > 0 {
		w.b = w.b[over:]
	}
	return len(p), nil
}

func spawn(t testing.TB, extra []*os.File, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(exe, args...)}
	p.cmd.Stderr, p.cmd.ExtraFiles = &p.err, extra
	p.cmd.WaitDelay = time.Second // a forked child may hold its streams
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = w
	p.out = json.NewDecoder(bufio.NewReader(out))
	p.begun = clock.Real().Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ctx, cancel := context.WithCancel(context.Background())
	p.ctx = ctx
	go func() {
		p.cmd.Wait()
		cancel()
	}()
	t.Cleanup(func() {
		p.kill()
		out.Close()
		if t.Failed() {
			p.err.mu.Lock()
			defer p.err.mu.Unlock()
			t.Logf("%s %d wrote:\n%s", args[0], p.pid(), p.err.b)
		}
	})
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the process and waits until it is gone.
func (p *process) kill() {
	p.once.Do(func() { p.cmd.Process.Kill() })
	<-p.ctx.Done()
}

// awaitEnd waits for a process that is about to end by itself.
func (p *process) awaitEnd() {
	p.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.ctx.Done():
	case <-limit.C:
		p.t.Fatalf("process %d did not end", p.pid())
	}
}

// nodeProcess is a node in a process of its own.
type nodeProcess struct {
	*process
	settings settings
	hello    ready
}

// launch starts a node process; its hello may be an error.
func launch(t testing.TB, s settings) *nodeProcess {
	t.Helper()
	arg, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	n := &nodeProcess{process: spawn(t, nil, roleNode, string(arg)), settings: s}
	if err := n.out.Decode(&n.hello); err != nil {
		n.hello.Err = "died: " + err.Error()
	}
	return n
}

// start starts a node process that must serve.
func start(t testing.TB, s settings) *nodeProcess {
	t.Helper()
	n := launch(t, s)
	if n.hello.Err != "" {
		t.Fatalf("the node did not start: %s", n.hello.Err)
	}
	return n
}

// client connects to the node. Calls fail when the process ends.
func (n *nodeProcess) client() *client.Client {
	n.t.Helper()
	c, err := client.Connect(client.Options{URL: n.hello.Info.URL, Attempts: 1})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(c.Close)
	return c
}

// stop ends the node cleanly and returns what it says stays.
func (n *nodeProcess) stop() ready {
	n.t.Helper()
	if err := n.cmd.Process.Signal(unix.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	var end ready
	if err := n.out.Decode(&end); err != nil || !end.Finished || end.Err != "" {
		n.t.Fatalf("the node did not stop cleanly: %v %+v", err, end)
	}
	n.awaitEnd()
	return end
}

// call asks for one action; the error may be that the node died.
func call[T any](n *nodeProcess, c *client.Client, action schemas.Action, request any, opts ...client.CallOption) (*T, error) {
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	var reply T
	if err := c.Call(ctx, action, request, &reply, opts...); err != nil {
		return nil, err
	}
	return &reply, nil
}

// must is call of what must succeed.
func must[T any](n *nodeProcess, c *client.Client, action schemas.Action, request any, opts ...client.CallOption) *T {
	n.t.Helper()
	r, err := call[T](n, c, action, request, opts...)
	if err != nil {
		n.t.Fatalf("%s: %v", action, err)
	}
	return r
}

// keeper is the vault of a folder.
type keeper struct {
	t      testing.TB
	socket string
	pid    int
	pidfd  *os.File
}

// vaultOf finds the vault that serves a folder; it is ended with the test.
func vaultOf(t testing.TB, dir string) *keeper {
	t.Helper()
	k := &keeper{t: t, socket: filepath.Join(dir, "run", "vault.sock")}
	b, err := os.ReadFile(pidFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	if k.pid, err = strconv.Atoi(string(b)); err != nil {
		t.Fatal(err)
	}
	k.pidfd = openPidFD(t, k.pid)
	t.Cleanup(func() {
		fdwire.Kill(k.pidfd)
		if log, err := os.ReadFile(filepath.Join(dir, "run", "vault.log")); err == nil && t.Failed() {
			t.Logf("the vault's log:\n%s", log)
		}
	})
	return k
}

// segments lists what the vault holds beside the ledger.
func (k *keeper) segments() (stats []vault.Stat, bytes int64) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := vault.Query(ctx, vault.ClientConfig{SocketPath: k.socket})
	if err != nil {
		k.t.Fatal(err)
	}
	for _, s := range all {
		if s.ID >= 256 {
			stats = append(stats, s)
			bytes += s.Bytes
		}
	}
	return stats, bytes
}

// awaitEnd waits until the vault's process is gone, and with it every descriptor it had.
func (k *keeper) awaitEnd() {
	k.t.Helper()
	if err := awaitExit(k.pidfd); err != nil {
		stats, _ := k.segments()
		k.t.Fatalf("the vault did not end: %v; it holds %+v", err, stats)
	}
}

// awaitExit waits for the exit of a process.
func awaitExit(pidfd *os.File) error {
	limit := clock.Real().Now().Add(patience)
	for {
		left := limit.Sub(clock.Real().Now())
		if left <= 0 {
			return errors.New("it is still there")
		}
		fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
}

// openPidFD watches a process that is not the test's child.
func openPidFD(t testing.TB, pid int) *os.File {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprint("pidfd ", pid))
	t.Cleanup(func() { f.Close() })
	return f
}
