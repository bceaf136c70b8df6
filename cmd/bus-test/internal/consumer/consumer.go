package consumer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/dataplane/client"
)

// answerTimeout is how long a consumer may take to map something.
const answerTimeout = 30 * time.Second

// Magic begins every page that a consumer has written to; the tag that Map was given follows.
const Magic uint64 = 0x15_0B_A2_50_A4_50_0B_A2

// Serve is the child's life. Each line of in is a claim and a tag, answered by the allocation's id.
func Serve(ctx context.Context, socket string, in io.Reader, out io.Writer) error {
	c, err := client.Dial(ctx, client.Config{SocketPath: socket, Name: "bus-test consumer"})
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintln(out, "session", c.Session().ID)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var claim string
		var tag uint64
		if _, err := fmt.Sscan(lines.Text(), &claim, &tag); err != nil {
			return err
		}
		m, err := c.Map(ctx, claim, client.ReadWrite)
		if err != nil {
			fmt.Fprintln(out, "error", strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		for _, s := range m.Segments {
			for i := 0; i+16 <= len(s.Bytes); i += os.Getpagesize() {
				binary.LittleEndian.PutUint64(s.Bytes[i:], Magic)
				binary.LittleEndian.PutUint64(s.Bytes[i+8:], tag)
			}
		}
		fmt.Fprintln(out, "mapped", m.AllocationID)
	}
	return lines.Err()
}

// Process is a consumer as its parent sees it.
type Process struct {
	// Session is its session's id.
	Session string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	pidfd   int
}

// Start runs a consumer on a data socket; it has a session when Start returns.
func Start(program []string, socket string) (*Process, error) {
	p := &Process{cmd: exec.Command(program[0], append(program[1:len(program):len(program)], "consumer", socket)...), pidfd: -1}
	var complaint bytes.Buffer
	p.cmd.Stderr = &complaint
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a consumer: %w", err)
	}
	p.out = bufio.NewReader(out)
	p.pidfd, err = unix.PidfdOpen(p.cmd.Process.Pid, 0)
	if err == nil {
		p.Session, err = p.answer("session")
	}
	if err != nil {
		_ = p.Kill()
		p.Reap()
		return nil, fmt.Errorf("starting a consumer: %w; %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return p, nil
}

// Map has the consumer map a claim and write Magic and the tag into every page.
func (p *Process) Map(claim string, tag uint64) error {
	if _, err := fmt.Fprintf(p.in, "%s %d\n", claim, tag); err != nil {
		return err
	}
	_, err := p.answer("mapped")
	return err
}

func (p *Process) answer(want string) (string, error) {
	type result struct {
		line string
		err  error
	}
	got := make(chan result, 1)
	go func() {
		line, err := p.out.ReadString('\n')
		got <- result{strings.TrimSpace(line), err}
	}()
	t := time.NewTimer(answerTimeout)
	defer t.Stop()
	select {
	case r := <-got:
		if r.err != nil {
			return "", r.err
		}
		verb, rest, _ := strings.Cut(r.line, " ")
		if verb != want {
			return "", errors.New(r.line)
		}
		return rest, nil
	case <-t.C:
		return "", fmt.Errorf("no answer within %s", answerTimeout)
	}
}

// Kill sends SIGKILL and returns at once.
func (p *Process) Kill() error { return p.cmd.Process.Kill() }

// Fired waits until the process's pidfd, opened by this process, fires, and tells when.
func (p *Process) Fired() (time.Time, error) {
	err := embedded.AwaitExit(p.pidfd, answerTimeout)
	return time.Now(), err
}

// Reap collects the process after it was killed, or ends it by ending its input.
func (p *Process) Reap() {
	_ = p.in.Close()
	_ = p.cmd.Wait() // killed: that is what is asked for
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd)
		p.pidfd = -1
	}
}
