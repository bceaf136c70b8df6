//go:build linux

package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// roleVariable tells the test binary, started again, what it is.
const roleVariable = "ISOBAR_CONFORMANCE_ROLE"

// The roles of the other process.
const (
	roleConsumer = "consumer" // descriptor 3 is an exported segment; does what standard input says
	roleCreator  = "creator"  // descriptor 3 is a socket: creates segments, sends them, waits for its end
)

// Main runs the tests, or, in the other process, that process's part. Call it from
// TestMain and exit with what it returns.
func (s Suite) Main(m *testing.M) int {
	var err error
	switch role := os.Getenv(roleVariable); role {
	case "":
		return m.Run()
	case roleConsumer:
		err = s.consume(os.Stdin, os.Stdout)
	case roleCreator:
		err = s.create()
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	return 0
}

// process is the other process, seen from the test.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start runs the test binary again in a role, with f as descriptor 3. It is killed
// at the end of the test if it is still there, and ends by itself when the test's
// process does, because its standard input then ends.
func start(t *testing.T, role string, f *os.File) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	p := &process{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9, and waits until the process is gone.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// do sends a command and gives its answer, "ok …" or "error …".
func (p *process) do(format string, args ...any) string {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatalf("other process, "+format+": %v", append(args, err)...)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("other process, "+format+": %v", append(args, err)...)
	}
	return strings.TrimSpace(line)
}

// ok is do for a command that must succeed; it gives what follows "ok".
func (p *process) ok(format string, args ...any) string {
	p.t.Helper()
	answer := p.do(format, args...)
	if !strings.HasPrefix(answer, "ok") {
		p.t.Fatalf("other process, "+format+": %s", append(args, answer)...)
	}
	return strings.TrimSpace(strings.TrimPrefix(answer, "ok"))
}

// refused is do for a command that must fail.
func (p *process) refused(format string, args ...any) {
	p.t.Helper()
	if answer := p.do(format, args...); !strings.HasPrefix(answer, "error") {
		p.t.Errorf("other process, "+format+": answered %q, must be refused", append(args, answer)...)
	}
}

// sum is the checksum that the other process sees.
func (p *process) sum(off, n int64) string { p.t.Helper(); return p.ok("sum %d %d", off, n) }

func checksum(b []byte) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE(b)) }

// consume does what the commands on in say with the segment on descriptor 3.
func (s Suite) consume(in io.Reader, out io.Writer) error {
	c := &consumer{suite: s, file: os.NewFile(3, "segment")}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		answer, err := c.obey(lines.Text())
		if err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
		} else {
			answer = "ok " + answer
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

type consumer struct {
	suite    Suite
	file     *os.File
	attached Attachment
}

func (c *consumer) obey(line string) (string, error) {
	var verb string
	var a, b, v int64
	if _, err := fmt.Sscan(line+" 0 0 0", &verb, &a, &b, &v); err != nil {
		return "", err
	}
	if c.attached == nil && (verb == "sum" || verb == "write" || verb == "detach") {
		return "", errors.New("nothing is attached")
	}
	switch verb {
	case "attach": // bytes, mode
		at, err := c.suite.attach(c.file, a, device.Mode(b))
		if err == nil {
			c.attached = at
		}
		return "", err
	case "detach":
		err := c.attached.Close()
		c.attached = nil
		return "", err
	case "close":
		return "", c.file.Close()
	case "sum": // off, n
		buf := make([]byte, b)
		err := c.attached.ReadAt(buf, a)
		return checksum(buf), err
	case "write": // off, n, value
		return "", c.attached.WriteAt(filled(b, byte(v)), a)
	case "pwrite": // off, through the descriptor
		_, err := c.file.WriteAt([]byte{1}, a)
		return "", err
	case "truncate":
		return "", c.file.Truncate(a)
	case "punch": // off, n
		return "", unix.Fallocate(int(c.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, a, b)
	case "seal": // seals
		_, err := unix.FcntlInt(c.file.Fd(), unix.F_ADD_SEALS, int(a))
		return "", err
	case "reopen": // bytes: anew through /proc, and map that writable
		f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", c.file.Fd()), os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		defer f.Close()
		at, err := c.suite.attach(f, a, device.ReadWrite)
		if err != nil {
			return "", err
		}
		return "", at.Close()
	default:
		return "", fmt.Errorf("unknown command %q", verb)
	}
}

// Sizes and contents of what the creator makes.
const creatorScratch, creatorWeights = 0xC5, 0x5C

// create makes one segment of scratch and one of sealed weights, sends both original
// descriptors over the socket, as a node does to its vault, and waits to be killed.
func (s Suite) create() error {
	d, err := s.Open()
	if err != nil {
		return err
	}
	bytes := s.segmentBytes(d)
	scratch, err := d.Create(context.Background(), bytes, device.CreateOptions{})
	if err != nil {
		return err
	}
	weights, err := d.Create(context.Background(), bytes, device.CreateOptions{Weights: true})
	if err != nil {
		return err
	}
	if err := errors.Join(
		d.Clear(scratch, 0, bytes, creatorScratch),
		d.Clear(weights, 0, bytes, creatorWeights),
		d.Seal(weights),
	); err != nil {
		return err
	}
	rights := unix.UnixRights(int(scratch.File().Fd()), int(weights.File().Fd()))
	if err := unix.Sendmsg(3, []byte("here"), rights, nil, 0); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
