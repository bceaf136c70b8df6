//go:build linux

package cuda_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
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

// Memory that we have given up and another process still maps is charged to that process, and
// is use outside of ours, until the process ends.
func TestZombieBytesHaveAPid(t *testing.T) {
	const n = 8 << 20
	d, err := theLane().runtime.New(cuda.Config{ID: "gpu-0"})
	must(t, err)
	defer d.Close()
	s, err := d.Create(context.Background(), n, device.CreateOptions{})
	must(t, err)
	f, err := d.Export(s, device.ReadWrite)
	must(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", importerVariable, n))
	cmd.ExtraFiles, cmd.Stderr = []*os.File{f}, os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer in.Close()
	must(t, f.Close())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "mapped\n" {
		t.Fatalf("the other process says %q (%v)", line, err)
	}

	pid := cmd.Process.Pid
	used := func() int64 {
		t.Helper()
		b, err := d.UsedBy([]int{pid})
		must(t, err)
		return b
	}
	outside := func() int64 {
		t.Helper()
		s, err := d.Sample()
		must(t, err)
		return s.OutsideBytes()
	}
	usedBefore, outsideBefore := used(), outside()
	holders, err := d.Holders(s)
	must(t, err)
	if len(holders) != 1 || holders[0].PID != pid {
		t.Errorf("holders %+v, want process %d", holders, pid)
	}
	must(t, d.Destroy(s))
	if grown := used() - usedBefore; grown != n {
		t.Errorf("the other process is charged with %d bytes more, want %d", grown, n)
	}
	if grown := outside() - outsideBefore; grown != n {
		t.Errorf("use outside grew by %d bytes, want %d", grown, n)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // says that it was killed
	if left := used(); left != 0 {
		t.Errorf("a process that is gone is charged with %d bytes", left)
	}
	if left := outside(); left > outsideBefore {
		t.Errorf("use outside is %d bytes, before %d", left, outsideBefore)
	}
}
