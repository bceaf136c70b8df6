package consumer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
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

// Serve is the child's life. Each line of in is an order, answered by one line:
//
//	map CLAIM TAG    maps read-write and writes Magic and TAG into every page: mapped ALLOCATION
//	view CLAIM       maps read-only: mapped ALLOCATION
//	fill ALLOCATION SEED    writes Pattern over all of it: filled ALLOCATION
//	sum ALLOCATION   the checksum of all of it: sum HEX
//	unmap ALLOCATION lets it go: unmapped ALLOCATION
//
// What goes wrong is answered by "error" and words.
func Serve(ctx context.Context, socket string, in io.Reader, out io.Writer) error {
	c, err := client.Dial(ctx, client.Config{SocketPath: socket, Name: "bus-test consumer"})
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintln(out, "session", c.Session().ID)
	h := hold{c: c, mapped: map[string]*client.Mapping{}}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			return fmt.Errorf("the order %q is not known", lines.Text())
		}
		said, err := h.carryOut(ctx, words[0], words[1], strings.Join(words[2:], " "))
		if err != nil {
			said = "error " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Fprintln(out, said)
	}
	return lines.Err()
}

// hold is what a consumer has mapped, by allocation.
type hold struct {
	c      *client.Client
	mapped map[string]*client.Mapping
}

func (h *hold) carryOut(ctx context.Context, verb, what, arg string) (string, error) {
	switch verb {
	case "map", "view":
		mode := client.ReadOnly
		if verb == "map" {
			mode = client.ReadWrite
		}
		m, err := h.c.Map(ctx, what, mode)
		if err != nil {
			return "", err
		}
		h.mapped[m.AllocationID] = m
		if verb == "map" {
			var tag uint64
			if _, err := fmt.Sscan(arg, &tag); err != nil {
				return "", err
			}
			mark(m, tag)
		}
		return "mapped " + m.AllocationID, nil
	}
	m := h.mapped[what]
	if m == nil {
		return "", fmt.Errorf("%s is not mapped", what)
	}
	switch verb {
	case "fill":
		var seed uint64
		if _, err := fmt.Sscan(arg, &seed); err != nil {
			return "", err
		}
		off := int64(0)
		for _, s := range m.Segments {
			Pattern(seed, off, s.Bytes)
			off += int64(len(s.Bytes))
		}
		return "filled " + what, nil
	case "sum":
		sum := sha256.New()
		for _, s := range m.Segments {
			sum.Write(s.Bytes)
		}
		return "sum " + hex.EncodeToString(sum.Sum(nil)), nil
	case "unmap":
		delete(h.mapped, what)
		return "unmapped " + what, h.c.Unmap(ctx, m)
	}
	return "", fmt.Errorf("the order %q is not known", verb)
}

// mark writes Magic and the tag into every page.
func mark(m *client.Mapping, tag uint64) {
	for _, s := range m.Segments {
		for i := 0; i+16 <= len(s.Bytes); i += os.Getpagesize() {
			binary.LittleEndian.PutUint64(s.Bytes[i:], Magic)
			binary.LittleEndian.PutUint64(s.Bytes[i+8:], tag)
		}
	}
}

// Pattern fills b with what a seed makes of the bytes from off on. No two stretches of it
// are alike for long.
func Pattern(seed uint64, off int64, b []byte) {
	for i := range b {
		at := uint64(off) + uint64(i)
		x := (at>>3)*0x9E3779B97F4A7C15 + seed
		x = (x ^ x>>29) * 0xBF58476D1CE4E5B9
		b[i] = byte((x ^ x>>32) >> (8 * (at & 7)))
	}
}

// Sum is the checksum that a consumer gives of bytes.
func Sum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
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
	_, err := p.order("mapped", "map", claim, fmt.Sprint(tag))
	return err
}

// View has the consumer map a claim read-only.
func (p *Process) View(claim string) error {
	_, err := p.order("mapped", "view", claim)
	return err
}

// Fill has the consumer write Pattern over a grant that it mapped by Map.
func (p *Process) Fill(allocation string, seed uint64) error {
	_, err := p.order("filled", "fill", allocation, fmt.Sprint(seed))
	return err
}

// Sum is the checksum of a mapped grant, as the consumer sees it.
func (p *Process) Sum(allocation string) (string, error) { return p.order("sum", "sum", allocation) }

// Unmap has the consumer let a grant go.
func (p *Process) Unmap(allocation string) error {
	_, err := p.order("unmapped", "unmap", allocation)
	return err
}

func (p *Process) order(want string, words ...string) (string, error) {
	if _, err := fmt.Fprintln(p.in, strings.Join(words, " ")); err != nil {
		return "", err
	}
	return p.answer(want)
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

// Pid is the consumer's process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

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
