package embedded

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// logName is the file in Spec.Dir that gets the node's records: one a command, as users
// have it.
const logName = "node.log"

// startTimeout is how long a node may take to serve, stopTimeout to drain, killTimeout
// how long the kernel may take to end a process.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
	killTimeout  = 20 * time.Second
)

// Node is a running node of ours.
type Node struct {
	Ready
	spec    Spec
	program []string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	ended   chan struct{}
}

// Start runs a node and waits until it serves. program calls this program, to which the
// hidden subcommands are added. The NATS port stays the same through restarts.
func Start(ctx context.Context, program []string, spec Spec) (*Node, error) {
	if spec.Settings["listen"] == nil {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		spec.Settings = with(spec.Settings, "listen", port)
	}
	n := &Node{spec: spec, program: program}
	if err := n.start(ctx, spec); err != nil {
		n.endVault()
		return nil, err
	}
	return n, nil
}

func with(m map[string][]string, key string, values ...string) map[string][]string {
	out := map[string][]string{key: values}
	for k, v := range m {
		out[k] = v
	}
	return out
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (n *Node) start(ctx context.Context, spec Spec) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	n.cmd = exec.Command(n.program[0], append(n.program[1:len(n.program):len(n.program)], "node", string(text))...)
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's interrupt is the parent's to handle
	errs, err := os.OpenFile(n.errPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer errs.Close()
	n.cmd.Stderr = errs
	if n.in, err = n.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("starting a node: %w", err)
	}
	n.ended = make(chan struct{})
	n.out = bufio.NewReader(out)
	line, err := n.line(ctx, startTimeout)
	if err == nil {
		err = json.Unmarshal(line, &n.Ready)
	}
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(n.cmd, n.ended)
	if err != nil {
		_ = n.cmd.Process.Kill()
		<-n.ended
		return fmt.Errorf("the node did not start: %w%s", err, n.said())
	}
	return nil
}

func (n *Node) errPath() string { return filepath.Join(n.spec.Dir, "node.err") }

// said is what the node and its vault complained of.
func (n *Node) said() string {
	var out strings.Builder
	for _, path := range []string{n.errPath(), filepath.Join(n.spec.Dir, "run", "vault.log")} {
		text, err := os.ReadFile(path)
		if err != nil || len(text) == 0 {
			continue
		}
		if len(text) > 6000 { // how it began, and how it ended
			text = slices.Concat(text[:3000], []byte("\n…\n"), text[len(text)-3000:])
		}
		fmt.Fprintf(&out, "\n%s:\n%s", filepath.Base(path), text)
	}
	return out.String()
}

// line reads one line of the child within a time.
func (n *Node) line(ctx context.Context, limit time.Duration) ([]byte, error) {
	type result struct {
		line []byte
		err  error
	}
	got := make(chan result, 1)
	go func(r *bufio.Reader) {
		line, err := r.ReadBytes('\n')
		got <- result{bytes.TrimSpace(line), err}
	}(n.out)
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case r := <-got:
		return r.line, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-t.C:
		return nil, fmt.Errorf("nothing within %s", limit)
	}
}

// Dir is the node's folder; ModelRoot a folder of models, where the Spec names it so.
func (n *Node) Dir() string { return n.spec.Dir }

// Pid is the node's process.
func (n *Node) Pid() int { return n.cmd.Process.Pid }

// Ended is closed when the node's process has ended.
func (n *Node) Ended() <-chan struct{} { return n.ended }

// Kill ends the node as a crash does; its vault and everything granted stay.
func (n *Node) Kill() error {
	if err := n.cmd.Process.Kill(); err != nil {
		return err
	}
	t := time.NewTimer(killTimeout)
	defer t.Stop()
	select {
	case <-n.ended:
		return nil
	case <-t.C:
		return fmt.Errorf("the node, pid %d, does not end", n.Pid())
	}
}

// Restart starts the node again, after Kill, on the same port and over the same vault.
func (n *Node) Restart(ctx context.Context) error { return n.start(ctx, n.spec) }

// TakeOver starts another node while this one serves: it ends this one, and goes on with its
// vault on the same port.
func (n *Node) TakeOver(ctx context.Context) error {
	before, spec := *n, n.spec
	spec.Settings = with(spec.Settings, "take_over", "true")
	if err := n.start(ctx, spec); err != nil {
		*n = before
		return err
	}
	defer before.in.Close()
	t := time.NewTimer(killTimeout)
	defer t.Stop()
	select {
	case <-before.ended:
		return nil
	case <-t.C:
		return fmt.Errorf("the node that was taken over, pid %d, does not end", before.Pid())
	}
}

// Profile begins a CPU profile of the node into a file; the function returned ends it.
func (n *Node) Profile(ctx context.Context, path string) (func() error, error) {
	order := func(text string) error {
		if _, err := io.WriteString(n.in, text+"\n"); err != nil {
			return err
		}
		_, err := n.line(ctx, stopTimeout)
		return err
	}
	if err := order("profile " + path); err != nil {
		return nil, err
	}
	return func() error { return order("stop") }, nil
}

// Stop drains the node, drops everything it holds and ends its vault.
func (n *Node) Stop() error {
	_ = n.in.Close()
	t := time.NewTimer(stopTimeout)
	defer t.Stop()
	var err error
	select {
	case <-n.ended:
		if !n.cmd.ProcessState.Success() {
			err = fmt.Errorf("the node: %s%s", n.cmd.ProcessState, n.said())
		}
	case <-t.C:
		err = fmt.Errorf("the node did not stop within %s%s", stopTimeout, n.said())
		_ = n.cmd.Process.Kill()
		<-n.ended
	}
	return errors.Join(err, n.endVault())
}

// VaultPid finds the vault's process by its command line; 0 if there is none.
func (n *Node) VaultPid() int {
	socket := filepath.Join(n.spec.Dir, "run", "vault.sock")
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if err != nil {
			continue // it has ended meanwhile
		}
		if args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"); len(args) >= 2 && args[len(args)-2] == "vault" && args[len(args)-1] == socket {
			return pid
		}
	}
	return 0
}

// endVault ends a vault that is left: one whose node did not stop cleanly. One that is
// ending by itself is given the time for it.
func (n *Node) endVault() error {
	pid := n.VaultPid()
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd)
	if AwaitExit(fd, time.Second) == nil {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return nil
	}
	return AwaitExit(fd, killTimeout)
}

// AwaitExit waits until a pidfd fires.
func AwaitExit(pidfd int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		if left < 0 {
			return fmt.Errorf("the process did not end within %s", limit)
		}
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case n > 0:
			return nil
		}
	}
}
