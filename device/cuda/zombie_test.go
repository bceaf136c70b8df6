//go:build linux

package cuda_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
)

// importerVariable tells the test binary, started again, that descriptor 3 is a segment of so
// many bytes to be mapped until standard input ends.
const importerVariable = "ISOBAR_CUDA_TEST_IMPORTER"

// importer is that other process.
func importer(bytes string) error {
	var n int64
	if _, err := fmt.Sscan(bytes, &n); err != nil {
		return err
	}
	f := os.NewFile(3, "segment")
	if _, err := attach(f, n, device.ReadWrite); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	fmt.Println("mapped")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// other is a process that maps a segment until it is told to end.
type other struct {
	pid int
	in  io.Closer
	cmd *exec.Cmd
}

// mapped has another process map a segment.
func mapped(t *testing.T, d *cuda.Driver, s device.Segment) *other {
	t.Helper()
	f, err := d.Export(s, device.ReadWrite)
	must(t, err)
	defer f.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", importerVariable, s.Bytes()))
	cmd.ExtraFiles, cmd.Stderr = []*os.File{f}, os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "mapped\n" {
		t.Fatalf("the other process says %q (%v)", line, err)
	}
	return &other{pid: cmd.Process.Pid, in: in, cmd: cmd}
}

func (o *other) kill(t *testing.T) {
	t.Helper()
	must(t, o.cmd.Process.Kill())
	_ = o.cmd.Wait() // says that it was killed
}

// use is what a sample says of a process.
func use(s device.Sample, pid int) (device.ProcessUse, bool) {
	i := slices.IndexFunc(s.Others, func(u device.ProcessUse) bool { return u.PID == pid })
	if i < 0 {
		return device.ProcessUse{}, false
	}
	return s.Others[i], true
}

func sampled(t *testing.T, d *cuda.Driver) device.Sample {
	t.Helper()
	s, err := d.Sample()
	must(t, err)
	return s
}

func isBack(o *device.OwedError) bool {
	select {
	case <-o.Back:
		return true
	default:
		return false
	}
}

// Memory that we have given up and another process still maps stays ours to count, and is told
// with that process's id until it lets go: it is neither free nor that process's own use.
func TestZombieBytesHaveAPid(t *testing.T) {
	const n = 8 << 20
	d, err := theLane().runtime.New(cuda.Config{ID: "gpu-0"})
	must(t, err)
	defer d.Close()
	s, err := d.Create(context.Background(), n, device.CreateOptions{})
	must(t, err)
	o := mapped(t, d, s)
	used := func() int64 {
		t.Helper()
		b, err := d.UsedBy([]int{o.pid})
		must(t, err)
		return b
	}
	usedBefore, before := used(), sampled(t, d)
	holders, err := d.Holders(s)
	must(t, err)
	if len(holders) != 1 || holders[0].PID != o.pid {
		t.Errorf("holders %+v, want process %d", holders, o.pid)
	}
	var owed *device.OwedError
	if err := d.Destroy(s); !errors.As(err, &owed) {
		t.Fatalf("destroy of what process %d maps says %v", o.pid, err)
	}
	if owed.Bytes != n || len(owed.Holders) != 1 || owed.Holders[0].PID != o.pid || owed.Holders[0].Command == "" || isBack(owed) {
		t.Errorf("owed: %+v", owed)
	}
	if now := used(); now != usedBefore {
		t.Errorf("the other process is said to use %d bytes by itself, before %d", now, usedBefore)
	}
	now := sampled(t, d)
	if now.OursBytes != n || now.OutsideBytes() != before.OutsideBytes() || now.Health != device.Healthy {
		t.Errorf("while they are held: %+v, before %+v", now, before)
	}
	if u, ok := use(now, o.pid); !ok || u.Pinned != n || u.Command == "" {
		t.Errorf("the sample says of process %d: %+v", o.pid, now.Others)
	}
	o.kill(t)
	now = sampled(t, d)
	if now.OursBytes != 0 || !isBack(owed) || now.OutsideBytes() > before.OutsideBytes() {
		t.Errorf("after the process's end: %+v, back %v", now, isBack(owed))
	}
	if left := used(); left != 0 {
		t.Errorf("a process that is gone uses %d bytes", left)
	}
}
