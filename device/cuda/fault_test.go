//go:build linux

package cuda_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
)

// Every step of a creation fails in turn; each time nothing is left, of the driver's or of
// the process's, and the next creation succeeds.
func TestCreateIsAllOrNothing(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	works(t, d) // so that the copy threads are there
	for _, c := range []struct {
		call string
		code int
		want error
	}{
		{"cuMemCreate", outOfMemory, device.ErrOutOfMemory},
		{"cuMemCreate", notSupported, nil},
		{"cuMemExportToShareableHandle", invalidValue, nil},
		{"cuMemAddressReserve", outOfMemory, device.ErrOutOfMemory},
		{"cuMemMap", outOfMemory, device.ErrOutOfMemory},
		{"cuMemSetAccess", outOfMemory, device.ErrOutOfMemory},
		{"cuMemsetD8Async", invalidValue, nil},
		{"cuStreamSynchronize", invalidValue, nil},
	} {
		before, files := r.Live(), openFiles(t)
		for n := 1; n <= 2; n++ { // the first call, and the second
			r.Fail(c.call, n, c.code)
			for range n - 1 {
				must(t, d.Destroy(scratch(t, d, 2*mib)))
			}
			_, err := d.Create(context.Background(), 2*mib, device.CreateOptions{})
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s fails: create says %v", c.call, err)
			}
			if err != nil && !strings.Contains(err.Error(), c.call+": CUDA_ERROR_") {
				t.Errorf("%s fails: the error %q does not name it", c.call, err)
			}
			r.nothingLeft(t, c.call, before)
			if now := openFiles(t); now != files {
				t.Errorf("%s fails: %d descriptors are open, before %d", c.call, now, files)
			}
			works(t, d)
		}
	}
	must(t, d.Destroy(scratch(t, d, 64*mib-anchored))) // none of the bytes that were promised is missing
}

// An import that fails leaves nothing, and the descriptor with the caller.
func TestImportIsAllOrNothing(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	s := scratch(t, d, 4*mib)
	f, err := d.Export(s, device.ReadWrite)
	must(t, err)
	defer f.Close()
	must(t, d.Destroy(s)) // only the descriptor has the memory now
	before := r.Live()
	for _, c := range []struct {
		call string
		code int
		want error
	}{
		{"cuMemImportFromShareableHandle", invalidValue, device.ErrMismatch},
		{"cuMemImportFromShareableHandle", 999, device.ErrMismatch},
		{"cuMemAddressReserve", outOfMemory, device.ErrOutOfMemory},
		{"cuMemMap", invalidValue, device.ErrMismatch},
		{"cuMemSetAccess", outOfMemory, device.ErrOutOfMemory},
	} {
		r.Fail(c.call, 1, c.code)
		_, err := d.Import(f, 4*mib, device.ImportOptions{})
		is(t, c.call, err, c.want)
		r.nothingLeft(t, c.call, before)
		if _, err := f.Stat(); err != nil {
			t.Errorf("%s: the file was taken: %v", c.call, err)
		}
	}
	// A client may have put the mark of sealed weights on its scratch: that means nothing.
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, unix.O_APPEND)
	must(t, err)
	s, err = d.Import(f, 4*mib, device.ImportOptions{})
	must(t, err)
	if s.Sealed() || s.Weights() {
		t.Error("scratch came back as sealed weights")
	}
	must(t, d.Clear(s, 0, 4*mib, 1))
	must(t, d.Destroy(s))
}

// What the ledger says of sealed weights is taken without the mark, which a reader can remove.
func TestSealedWeightsWithoutTheMark(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	s, err := d.Create(context.Background(), 2*mib, device.CreateOptions{Weights: true})
	must(t, err)
	must(t, d.Seal(s))
	f, err := d.Export(s, device.ReadOnly)
	must(t, err)
	must(t, d.Destroy(s))
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, 0)
	must(t, err)
	s, err = d.Import(f, 2*mib, device.ImportOptions{Weights: true, Sealed: true})
	must(t, err)
	if !s.Sealed() {
		t.Error("sealed weights came back unsealed")
	}
}

// Scratch that will be overwritten is not cleared before.
func TestUnclearScratch(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	cleared := r.Calls("cuMemsetD8Async")
	s, err := d.Create(context.Background(), 4*mib, device.CreateOptions{Unclear: true})
	must(t, err)
	b := make([]byte, 1)
	must(t, d.Read(s, 4*mib-1, b))
	if n := r.Calls("cuMemsetD8Async") - cleared; n != 0 || b[0] == 0 {
		t.Errorf("cleared by %d calls, the last byte is %d", n, b[0])
	}
	must(t, d.Destroy(s))
	scratch(t, d, 4*mib)
	if n := r.Calls("cuMemsetD8Async") - cleared; n != 1 {
		t.Errorf("other scratch: cleared by %d calls", n)
	}
}

// A copy that fails is reported, without the device being lost, and the next succeeds.
func TestCopiesFail(t *testing.T) {
	r := newRig(t, true)
	d, other := r.open(t, 0), r.open(t, 1)
	works(t, other)
	const n = 8 * mib
	a, b := scratch(t, d, n), scratch(t, d, n)
	file := filepath.Join(t.TempDir(), "weights")
	content := make([]byte, n)
	for i := range content {
		content[i] = byte(i >> 10)
	}
	must(t, os.WriteFile(file, content, 0o600))
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	must(t, d.MakeLanes())
	before := r.Live()
	for _, c := range []struct {
		what, call string
		do         func() error
	}{
		{"clear", "cuMemsetD8Async", func() error { return d.Clear(a, 0, n, 1) }},
		{"copy", "cuMemcpyDtoDAsync_v2", func() error { return d.Copy(b, 0, a, 0, n) }},
		{"write", "cuMemcpyHtoDAsync_v2", func() error { return d.Write(a, 0, content) }},
		{"read", "cuMemcpyDtoHAsync_v2", func() error { return d.Read(a, 0, make([]byte, n)) }},
		{"fill", "cuMemcpyHtoDAsync_v2", func() error {
			got, err := d.Fill(context.Background(), a, 0, f, 0, n)
			if (err == nil) != (got == n) || got < 0 || got%(64<<10) != 0 {
				t.Errorf("fill placed %d bytes and says %v", got, err)
			}
			return err
		}},
		{"fill", "cuEventSynchronize", func() error { _, err := d.Fill(context.Background(), a, 0, f, 0, n); return err }},
	} {
		for _, nth := range []int{1, 2, 5} {
			r.Fail(c.call, nth, invalidValue)
			var err error
			for range nth { // a clear is one call, a write many
				if err = c.do(); err != nil {
					break
				}
			}
			if err == nil || errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), "gpu-0: "+c.what) || !strings.Contains(err.Error(), c.call) {
				t.Errorf("%s, the %d. %s fails: %v", c.what, nth, c.call, err)
			}
			must(t, c.do())
		}
	}
	r.nothingLeft(t, "failed copies", before)
	got := make([]byte, n)
	must(t, d.Read(a, 0, got))
	if string(got) != string(content) {
		t.Error("what was filled after the failures reads otherwise")
	}
	works(t, d)
	works(t, other)
}

// An error after which the context answers nothing: the device is lost, says so with its
// reason, can be closed, and no other device is touched.
func TestStickyError(t *testing.T) {
	r := newRig(t, true)
	d, other := r.open(t, 0), r.open(t, 1)
	s := scratch(t, d, 4*mib)
	theirs := scratch(t, other, 4*mib)
	r.Fail("cuMemcpyHtoDAsync_v2", 1, ecc)
	is(t, "write", d.Write(s, 0, []byte{1}), device.ErrLost)
	lost(t, d, s, "CUDA_ERROR_ECC_UNCORRECTABLE")
	must(t, other.Write(theirs, 0, []byte{1}))
	works(t, other)
}

// A GPU that falls off the bus.
func TestLostDevice(t *testing.T) {
	r := newRig(t, true)
	d, other := r.open(t, 0), r.open(t, 1)
	s := scratch(t, d, 4*mib)
	works(t, other)
	r.Lose(0)
	sample, err := d.Sample() // NVML says it first
	is(t, "sample", err, device.ErrLost)
	if sample.Health != device.Lost {
		t.Errorf("health %v", sample.Health)
	}
	lost(t, d, s, "NVML_ERROR_GPU_IS_LOST")
	works(t, other)
	if _, err := r.runtime.New(cuda.Config{ID: "gpu-0"}); err == nil {
		t.Error("a lost GPU was taken into use")
	}
}

// Xid 79 is the driver's word for it.
func TestLostDeviceByXid(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	s := scratch(t, d, 4*mib)
	r.Xid(0, 79)
	_, err := d.Sample()
	is(t, "sample", err, device.ErrLost)
	lost(t, d, s, "Xid 79")
}

// lost checks what a lost device does with everything.
func lost(t *testing.T, d *cuda.Driver, s device.Segment, reason string) {
	t.Helper()
	_, err := d.Create(context.Background(), 2*mib, device.CreateOptions{})
	is(t, "create", err, device.ErrLost)
	_, err = d.Export(s, device.ReadOnly)
	is(t, "export", err, device.ErrLost)
	_, err = d.Fill(context.Background(), s, 0, s.File(), 0, 1)
	is(t, "fill", err, device.ErrLost)
	is(t, "clear", d.Clear(s, 0, 1, 0), device.ErrLost)
	is(t, "read", d.Read(s, 0, make([]byte, 1)), device.ErrLost)
	_, err = d.Holders(s)
	is(t, "holders", err, device.ErrLost)
	_, err = d.UsedBy(nil)
	is(t, "use", err, device.ErrLost)
	sample, err := d.Sample()
	is(t, "sample", err, device.ErrLost)
	if sample.Health != device.Lost || len(sample.Reasons) == 0 || !strings.Contains(sample.Reasons[0], reason) || !strings.Contains(sample.Reasons[0], "restart the node") {
		t.Errorf("health %v, reasons %q; want lost by %s, and what to do", sample.Health, sample.Reasons, reason)
	}
	must(t, d.Destroy(s))
	must(t, d.Close())
	_, err = d.Sample()
	is(t, "sample of a closed device", err, device.ErrClosed)
}

// An unmap that hangs is reported when its time is over, holds up no other segment, and the
// bytes count until they are back.
func TestSlowUnmap(t *testing.T) {
	r := newRig(t, true)
	d, other := r.open(t, 0), r.open(t, 1)
	works(t, d)
	works(t, other)
	slow := scratch(t, d, 4*mib)
	waits := make(chan time.Duration, 1)
	armed := armedClock{r.clock, waits}
	watched, err := r.runtime.New(cuda.Config{ID: "gpu-0", Clock: armed})
	must(t, err)
	must(t, d.Destroy(slow))
	slow = scratch(t, watched, 4*mib)

	r.Hold("cuMemUnmap", true)
	ended := make(chan error, 1)
	go func() { ended <- watched.Destroy(slow) }()
	if wait := <-waits; wait != 10*time.Second {
		t.Errorf("waits for %v", wait)
	}
	r.clock.Advance(10 * time.Second)
	var hang *device.OwedError
	if err := <-ended; !errors.As(err, &hang) || hang.Bytes != 4*mib || !strings.Contains(err.Error(), "hangs") {
		t.Fatalf("destroy says %v", err)
	}
	select {
	case <-hang.Back:
		t.Error("back while the unmap hangs")
	default:
	}
	sample, err := watched.Sample()
	must(t, err)
	if sample.OursBytes != 4*mib || sample.Health != device.Degraded || !strings.Contains(strings.Join(sample.Reasons, ""), "unmap hangs") {
		t.Errorf("while the unmap hangs: %+v", sample)
	}
	quick := scratch(t, watched, 2*mib) // creating and copying go on
	must(t, watched.Clear(quick, 0, 2*mib, 1))
	must(t, watched.Destroy(slow)) // a second time is no error

	r.Hold("cuMemUnmap", false)
	go func() { ended <- watched.Destroy(quick) }()
	<-waits
	must(t, <-ended)
	<-hang.Back
	for sample.OursBytes != 0 || sample.Health != device.Healthy { // as soon as the driver is through
		sample, err = watched.Sample()
		must(t, err)
	}
	must(t, watched.Close())
}

// What NVML says of the GPU's health is the device's.
func TestHealth(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	health := func(want device.Health, reason string) {
		t.Helper()
		s, err := d.Sample()
		must(t, err)
		if s.Health != want || !strings.Contains(strings.Join(s.Reasons, "; "), reason) {
			t.Errorf("health %v, reasons %q; want %v with %q", s.Health, s.Reasons, want, reason)
		}
	}
	health(device.Healthy, "")
	r.Errors(0, 3)
	health(device.Healthy, "") // counters are not read with every sample
	r.clock.Advance(5 * time.Second)
	health(device.Degraded, "3 memory errors")
	r.Xid(0, 31) // a program's own fault
	r.Xid(0, 64)
	health(device.Failing, "could not be replaced (Xid 64)")
	r.Errors(0, 0)
	r.clock.Advance(5 * time.Second)
	health(device.Failing, "Xid 64")
}

// Others' use is told apart from ours, and by process.
func TestForeignUse(t *testing.T) {
	r := newRig(t, true)
	d, other := r.open(t, 0), r.open(t, 1)
	pid := os.Getppid()
	r.Process(0, pid, 40*mib)
	s := scratch(t, d, 8*mib)
	sample, err := d.Sample()
	must(t, err)
	if sample.OursBytes != 8*mib || sample.OutsideBytes() != 40*mib+anchored || sample.PhysicalBytes != 64*mib {
		t.Errorf("sample %+v", sample)
	}
	used, err := d.UsedBy([]int{pid, 1 << 22})
	must(t, err)
	if used != 40*mib {
		t.Errorf("process %d uses %d bytes", pid, used)
	}
	_, err = d.Create(context.Background(), 32*mib, device.CreateOptions{})
	is(t, "create of what others use", err, device.ErrOutOfMemory)
	holders, err := d.Holders(s)
	must(t, err)
	if len(holders) != 1 || holders[0].PID != pid || holders[0].Open || holders[0].StartTime == 0 {
		t.Errorf("holders %+v, want process %d, which uses the GPU", holders, pid)
	}
	if sample, err = other.Sample(); err != nil || sample.UsedBytes != anchored {
		t.Errorf("the other GPU's sample: %+v, %v", sample, err)
	}
	// A budget below what the GPU has: others first fill what it leaves over.
	small, err := r.runtime.New(cuda.Config{ID: "gpu-0", PhysicalBytes: 30 * mib})
	must(t, err)
	defer small.Close()
	if sample, err = small.Sample(); err != nil || sample.PhysicalBytes != 30*mib || sample.OutsideBytes() != (40+8-34)*mib+2*anchored {
		t.Errorf("with a budget: %+v, %v", sample, err)
	}
}

// Without NVML the device works, and says what it does not know.
func TestWithoutNVML(t *testing.T) {
	r := newRig(t, false)
	r.Fail("nvmlInit_v2", 1, nvmlNoLibrary)
	var err error
	r.runtime, err = cuda.Load(cuda.Libraries{CUDA: r.path, NVML: r.path})
	must(t, err)
	d := r.open(t, 0)
	works(t, d)
	s := scratch(t, d, 8*mib)
	sample, err := d.Sample()
	must(t, err)
	if sample.UsedBytes != 8*mib+anchored || len(sample.Reasons) != 1 || !strings.Contains(sample.Reasons[0], "NVML_ERROR_LIBRARY_NOT_FOUND") {
		t.Errorf("sample %+v", sample)
	}
	_, err = d.Holders(s)
	is(t, "holders", err, device.ErrUnsupported)
	_, err = d.UsedBy(nil)
	is(t, "use", err, device.ErrUnsupported)
}

// A machine without the driver, or with one that is too old, says so and what to do.
func TestLoadSaysWhatIsMissing(t *testing.T) {
	r := newRig(t, false)
	_, err := cuda.Load(cuda.Libraries{CUDA: "libcuda-is-not-here.so.1"})
	is(t, "no library", err, device.ErrUnsupported)
	if err == nil || !strings.Contains(err.Error(), "libcuda-is-not-here.so.1") || !strings.Contains(err.Error(), "install") {
		t.Errorf("no library: %v", err)
	}
	_, err = cuda.Load(cuda.Libraries{CUDA: "libm.so.6"})
	is(t, "another library", err, device.ErrUnsupported)
	if err == nil || !strings.Contains(err.Error(), "cuMemCreate") {
		t.Errorf("another library: %v", err)
	}
	r.Fail("cuInit", 1, 100)
	_, err = cuda.Load(cuda.Libraries{CUDA: r.path, NVML: r.path})
	is(t, "no GPU", err, device.ErrUnsupported)
	if err == nil || !strings.Contains(err.Error(), "CUDA_ERROR_NO_DEVICE") {
		t.Errorf("no GPU: %v", err)
	}
}

// A file that cannot be read is the file's error, not the GPU's.
func TestFillOfAFileThatFails(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	s := scratch(t, d, 4*mib)
	dir, err := os.Open(t.TempDir())
	must(t, err)
	defer dir.Close()
	n, err := d.Fill(context.Background(), s, 0, dir, 0, 4*mib)
	if n != 0 || err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("fill from a directory placed %d bytes and says %v", n, err)
	}
	works(t, d)
}

func TestConfigIsChecked(t *testing.T) {
	r := newRig(t, true)
	for name, c := range map[string]cuda.Config{
		"no ID":           {},
		"negative":        {ID: "gpu-0", PhysicalBytes: -1},
		"too many":        {ID: "gpu-0", CopyThreads: 65},
		"odd chunk":       {ID: "gpu-0", ChunkBytes: 5000},
		"another GPU":     {ID: "gpu-0", Ordinal: 2},
		"negative number": {ID: "gpu-0", Ordinal: -1},
	} {
		if _, err := r.runtime.New(c); err == nil || !strings.HasPrefix(err.Error(), "cuda: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	gpus, err := r.runtime.GPUs()
	must(t, err)
	if len(gpus) != 2 || gpus[1].Ordinal != 1 || gpus[1].UUID == gpus[0].UUID || !strings.HasPrefix(gpus[0].Name, "Isobar fake GPU") || gpus[0].Lacks != nil {
		t.Errorf("GPUs %+v", gpus)
	}
	d := r.open(t, 1)
	if i := d.Info(); !i.Simulated || i.UUID != gpus[1].UUID || !strings.Contains(i.Name, "fake") {
		t.Errorf("the fake does not say that it is one: %+v", i)
	}
	must(t, d.Close())
	must(t, r.runtime.Close())
}
