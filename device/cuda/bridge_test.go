//go:build linux

package cuda_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
	"github.com/isobar-project/isobar/device/hostram"
)

// ram is main memory, until the end of the test.
func ram(t *testing.T) *hostram.Driver {
	t.Helper()
	d, err := hostram.New(hostram.Config{ID: "ram-0"})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

// noise is n bytes that repeat at no length that memory is cut into.
func noise(n int64) []byte {
	b := make([]byte, n)
	part := b[:min(n, 65537)]
	x := uint32(7)
	for i := range part {
		x = x*1664525 + 1013904223
		part[i] = byte(x >> 24)
	}
	for at := len(part); at < len(b); {
		at += copy(b[at:], part)
	}
	return b
}

// weights are sealed weights of this content.
func weights(t *testing.T, d device.Driver, content []byte) device.Segment {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weights")
	must(t, os.WriteFile(path, content, 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	s := fresh(t, d, int64(len(content)))
	_, err = d.Fill(context.Background(), s, 0, f, 0, int64(len(content)))
	must(t, err)
	must(t, d.Seal(s))
	return s
}

// fresh is room for weights.
func fresh(t *testing.T, d device.Driver, n int64) device.Segment {
	t.Helper()
	s, err := d.Create(context.Background(), n, device.CreateOptions{Weights: true})
	must(t, err)
	return s
}

// holds sees what a segment's bytes from off on are.
func holds(t *testing.T, what string, d device.Driver, s device.Segment, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	must(t, d.Read(s, off, got))
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%s: byte %d is %d, want %d", what, i, got[i], want[i])
			}
		}
	}
}

// A model goes up from main memory, is registered there, goes up again, and down. What is
// registered is let go of with the segment.
func TestModelsGoUpAndDown(t *testing.T) {
	r := newRig(t, true)
	must(t, r.Configure(2, 256*mib, ""))
	d, host := r.open(t, 0), ram(t)
	ctx := context.Background()
	const n = 66 * mib // more than one registration
	content := noise(n)
	below := weights(t, host, content)
	if !d.Bridges(below) {
		t.Fatal("main memory cannot be reached")
	}
	works(t, d)
	must(t, d.MakeLanes())
	before := r.Live().Pinned

	up := fresh(t, d, n)
	must(t, d.Pull(ctx, up, 0, below, 0, n))
	must(t, d.Seal(up))
	holds(t, "pulled", d, up, 0, content)
	d.AwaitWarm()
	if got := r.Live().Pinned - before; got != 2 || d.RegisteredBytes() != n {
		t.Errorf("after a pull %d pieces of %d bytes are registered, want 2 of %d", got, d.RegisteredBytes(), int64(n))
	}
	if ok, err := host.Released(below); err != nil || !ok {
		t.Errorf("a registered segment nobody else holds: released %v, %v", ok, err)
	}
	again := fresh(t, d, n)
	r.Fail("cuMemcpyHtoDAsync_v2", 1+1, invalidValue) // one copy each of two registrations
	if err := d.Pull(ctx, again, 0, below, 0, n); err == nil {
		t.Error("registered memory was not copied in parts")
	}
	must(t, d.Pull(ctx, again, 5, below, 63*mib, 3*mib-5))
	holds(t, "across registrations", d, again, 5, content[63*mib:][:3*mib-5])
	must(t, d.Destroy(again))

	down := fresh(t, host, n)
	must(t, d.Push(ctx, down, 0, up, 0, n))
	must(t, host.Seal(down))
	holds(t, "pushed", host, down, 0, content)
	d.AwaitWarm()
	if d.RegisteredBytes() != 2*n {
		t.Errorf("%d bytes are registered; what came down was to be", d.RegisteredBytes())
	}
	if counted, kernel, err := host.Audit(); err != nil || counted != kernel || counted != 2*n {
		t.Errorf("main memory counts %d bytes, the kernel %d (%v), want %d", counted, kernel, err, int64(2*n))
	}
	must(t, host.Destroy(below))
	must(t, host.Destroy(down))
	if got := r.Live().Pinned; got != before || d.RegisteredBytes() != 0 {
		t.Errorf("%d pieces, %d bytes stay registered of memory that is gone; %d before", got, d.RegisteredBytes(), before)
	}
}

// Weights that come down are registered behind the copy, so that they go up again at the link's
// speed at once; those of which only a part came, once they are sealed and expected.
func TestWhatComesDownIsRegistered(t *testing.T) {
	r := newRig(t, true)
	must(t, r.Configure(2, 256*mib, ""))
	d, host := r.open(t, 0), ram(t)
	ctx := context.Background()
	const n = 66 * mib
	content := noise(n)
	up := weights(t, d, content)
	must(t, d.MakeLanes())
	before := r.Live().Pinned
	again := func(what string, s device.Segment, n int64, copies int) {
		t.Helper()
		to := fresh(t, d, 66*mib)
		calls := r.Calls("cuMemcpyHtoDAsync_v2")
		must(t, d.Pull(ctx, to, 0, s, 0, n))
		if got := r.Calls("cuMemcpyHtoDAsync_v2") - calls; got != copies {
			t.Errorf("%s: up by %d copies, want %d", what, got, copies)
		}
		holds(t, what, d, to, 0, content[:n])
		must(t, d.Destroy(to))
	}

	down := fresh(t, host, n)
	const half = 33*mib + 5
	must(t, d.Push(ctx, down, half, up, half, n-half)) // from behind, so that it waits for the rest
	d.AwaitWarm()
	if got := r.Live().Pinned - before; got != 0 {
		t.Errorf("%d pieces are registered before the beginning is there", got)
	}
	must(t, d.Push(ctx, down, 0, up, 0, half))
	d.AwaitWarm()
	if got := r.Live().Pinned - before; got != 2 {
		t.Errorf("%d pieces are registered, want 2", got)
	}
	must(t, host.Seal(down))
	again("all of it", down, n, 2)
	must(t, host.Destroy(down))

	part := fresh(t, host, n+2*mib)
	must(t, d.Push(ctx, part, 0, up, 0, n))
	d.AwaitWarm()
	must(t, host.Seal(part))
	again("what is registered", part, 64*mib, 1)
	again("more than is", part, n, n/(256<<10)+2) // which expects it; the first pieces are small
	d.AwaitWarm()
	again("the rest", part, n, 2)
	must(t, host.Destroy(part))
	if got := r.Live().Pinned; got != before || d.RegisteredBytes() != 0 {
		t.Errorf("%d pieces and %d bytes stay registered, before %d", got, d.RegisteredBytes(), before)
	}

	// What does not come down after all is let go of.
	down = fresh(t, host, n)
	r.Fail("cuMemcpyDtoHAsync_v2", 262, invalidValue)
	if err := d.Push(ctx, down, 0, up, 0, n); err == nil {
		t.Error("the copy did not fail")
	}
	must(t, host.Destroy(down))
	d.AwaitWarm()
	if got := r.Live().Pinned; got != before || d.RegisteredBytes() != 0 {
		t.Errorf("%d pieces and %d bytes stay registered, before %d", got, d.RegisteredBytes(), before)
	}
}

// Memory that can still change is copied, but never registered: a hole that a client punches
// would leave the GPU with the old bytes.
func TestScratchIsNotRegistered(t *testing.T) {
	r := newRig(t, true)
	d, host := r.open(t, 0), ram(t)
	ctx := context.Background()
	content := noise(9 * mib)
	a, err := host.Create(ctx, 16*mib, device.CreateOptions{})
	must(t, err)
	must(t, host.Write(a, 3, content))
	s := scratch(t, d, 16*mib)
	must(t, d.Pull(ctx, s, 1, a, 3, int64(len(content))))
	holds(t, "pulled", d, s, 0, append([]byte{0}, content...))
	d.Expect(a)
	d.AwaitWarm()
	if d.RegisteredBytes() != 0 {
		t.Errorf("%d bytes of scratch are registered", d.RegisteredBytes())
	}
	must(t, d.Push(ctx, a, 5*mib+7, s, 1, int64(len(content))))
	holds(t, "pushed", host, a, 5*mib+7, content)
	holds(t, "before what was pushed", host, a, 3, content[:5*mib+4])
}

// What cannot be done is refused before a byte is written, and both sides stay as they were.
func TestBridgeRefuses(t *testing.T) {
	r := newRig(t, true)
	d, other, host := r.open(t, 0), r.open(t, 1), ram(t)
	ctx, ended := context.Background(), canceled()
	content := noise(4 * mib)
	below := weights(t, host, content)
	room := fresh(t, host, 4*mib)
	s, sealed := scratch(t, d, 4*mib), weights(t, d, content)
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"pull beyond the source", d.Pull(ctx, s, 0, below, 1, 4*mib), device.ErrRange},
		{"pull beyond the target", d.Pull(ctx, s, 1, below, 0, 4*mib), device.ErrRange},
		{"pull from before", d.Pull(ctx, s, 0, below, -1, 1), device.ErrRange},
		{"pull into sealed weights", d.Pull(ctx, sealed, 0, below, 0, 1), device.ErrSealed},
		{"pull from its own", d.Pull(ctx, s, 0, sealed, 0, 1), device.ErrForeign},
		{"pull into another's", d.Pull(ctx, room, 0, below, 0, 1), device.ErrForeign},
		{"pull when ended", d.Pull(ended, s, 0, below, 0, 1), context.Canceled},
		{"push beyond the source", d.Push(ctx, room, 0, s, 1, 4*mib), device.ErrRange},
		{"push beyond the target", d.Push(ctx, room, 1, s, 0, 4*mib), device.ErrRange},
		{"push into sealed weights", d.Push(ctx, below, 0, s, 0, 1), device.ErrSealed},
		{"push what is another's", other.Push(ctx, room, 0, s, 0, 1), device.ErrForeign},
		{"push when ended", d.Push(ended, room, 0, s, 0, 1), context.Canceled},
		{"nothing", d.Pull(ctx, s, 0, below, 0, 0), nil},
	} {
		if !errors.Is(c.err, c.want) || c.want == nil && c.err != nil {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
		}
	}
	holds(t, "after refusals", d, s, 0, make([]byte, 4*mib))
	holds(t, "after refusals", host, below, 0, content)
	must(t, d.Destroy(s))
	is(t, "pull into what is destroyed", d.Pull(ctx, s, 0, below, 0, 1), device.ErrDestroyed)
	must(t, host.Destroy(below))
	if err := d.Pull(ctx, scratch(t, d, 4*mib), 0, below, 0, 1); err == nil {
		t.Error("pulled what is destroyed")
	}
	is(t, "push into what is destroyed", d.Push(ctx, below, 0, sealed, 0, 1), device.ErrDestroyed)
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Copies that fail are told, the device is not lost, nothing stays, and the next is well.
func TestBridgeFails(t *testing.T) {
	r := newRig(t, true)
	d, host := r.open(t, 0), ram(t)
	ctx := context.Background()
	const n = 4 * mib
	content := noise(n)
	below, s := weights(t, host, content), scratch(t, d, n)
	room, err := host.Create(ctx, n, device.CreateOptions{})
	must(t, err)
	warm := weights(t, host, content)
	d.Expect(warm)
	must(t, d.MakeLanes())
	must(t, d.Pull(ctx, s, 0, below, 0, n))
	d.AwaitWarm()
	before := r.Live()
	for _, c := range []struct {
		what, call string
		do         func() error
	}{
		{"pull", "cuMemcpyHtoDAsync_v2", func() error { return d.Pull(ctx, s, 0, below, 0, n) }},
		{"pull", "cuEventSynchronize", func() error { return d.Pull(ctx, s, 0, below, 0, n) }},
		{"pull", "cuEventRecord", func() error { return d.Pull(ctx, s, 0, warm, 0, n) }},
		{"pull", "cuEventSynchronize", func() error { return d.Pull(ctx, s, 0, warm, 0, n) }},
		{"push", "cuMemcpyDtoHAsync_v2", func() error { return d.Push(ctx, room, 0, s, 0, n) }},
		{"push", "cuEventSynchronize", func() error { return d.Push(ctx, room, 0, s, 0, n) }},
		{"push", "cuEventRecord", func() error { return d.Push(ctx, room, 0, s, 0, n) }},
	} {
		r.Fail(c.call, 1, invalidValue)
		if err := c.do(); err == nil || errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), "gpu-0: "+c.what) || !strings.Contains(err.Error(), c.call) {
			t.Errorf("%s, %s fails: %v", c.what, c.call, err)
		}
		must(t, c.do())
		holds(t, c.what, d, s, 0, content)
		holds(t, c.what, host, warm, 0, content)
	}
	r.nothingLeft(t, "failed copies", before)
	must(t, host.Destroy(room)) // none of the loans is out
}

// What the driver does not register is copied all the same, and is not tried again.
func TestRegisteringFails(t *testing.T) {
	r := newRig(t, true)
	d, host := r.open(t, 0), ram(t)
	ctx := context.Background()
	const n = 4 * mib
	content := noise(n)
	below, s := weights(t, host, content), scratch(t, d, n)
	must(t, d.MakeLanes())
	must(t, d.Pull(ctx, s, 0, below, 0, 1))
	d.AwaitWarm()
	must(t, host.Destroy(below))

	for _, code := range []int{outOfMemory, invalidValue, notSupported} {
		below = weights(t, host, content)
		before := r.Live().Pinned
		r.Fail("cuMemHostRegister_v2", 1, code)
		d.Expect(below)
		d.AwaitWarm()
		if r.Live().Pinned != before || d.RegisteredBytes() != 0 {
			t.Errorf("code %d: %d bytes are registered", code, d.RegisteredBytes())
		}
		d.Expect(below) // refused once is refused
		d.AwaitWarm()
		must(t, d.Pull(ctx, s, 0, below, 0, n))
		holds(t, "unregistered", d, s, 0, content)
		must(t, host.Destroy(below))
		if d.RegisteredBytes() != 0 {
			t.Errorf("code %d: %d bytes count", code, d.RegisteredBytes())
		}
	}
	works(t, d)

	// Memory that is not let go of is told.
	below = weights(t, host, content)
	d.Expect(below)
	d.AwaitWarm()
	r.Fail("cuMemHostUnregister", 1, invalidValue)
	must(t, host.Destroy(below))
	sample, err := d.Sample()
	must(t, err)
	if sample.Health != device.Degraded || !strings.Contains(strings.Join(sample.Reasons, ""), "cuMemHostUnregister") {
		t.Errorf("sample %+v", sample)
	}
}

// The bound holds, and a device that is closed or lost lets go of what it had.
func TestWarmMemoryEnds(t *testing.T) {
	r := newRig(t, true)
	host := ram(t)
	open := func() *cuda.Driver {
		d, err := r.runtime.New(cuda.Config{ID: "gpu-0", RegisterBytes: 6 * mib, Clock: r.clock})
		must(t, err)
		return d
	}
	content := noise(4 * mib)
	a, b := weights(t, host, content), weights(t, host, content)
	before := r.Live()
	d := open()
	for _, s := range []device.Segment{a, b, a} {
		d.Expect(s)
	}
	d.AwaitWarm()
	if d.RegisteredBytes() != 4*mib {
		t.Errorf("%d bytes are registered of 6 MiB that may be", d.RegisteredBytes())
	}
	must(t, host.Destroy(a)) // makes room for the other
	d.Expect(b)
	d.AwaitWarm()
	if d.RegisteredBytes() != 4*mib {
		t.Errorf("%d bytes are registered", d.RegisteredBytes())
	}
	must(t, d.Close())
	r.nothingLeft(t, "closed", before)
	holds(t, "after the GPU is closed", host, b, 0, content)
	d.Expect(b)

	d = open()
	d.Expect(b)
	d.AwaitWarm()
	r.Lose(0)
	_, err := d.Sample()
	is(t, "sample", err, device.ErrLost)
	must(t, host.Destroy(b))
	must(t, d.Close())
}

// A file that cannot be read fails a fill from it alone.
func TestPullOfAClosedFile(t *testing.T) {
	r := newRig(t, true)
	d, host := r.open(t, 0), ram(t)
	below := weights(t, host, noise(2*mib))
	s := scratch(t, d, 2*mib)
	must(t, below.File().Close())
	if err := d.Pull(context.Background(), s, 0, below, 0, 2*mib); !errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) {
		t.Errorf("pull says %v", err)
	}
	works(t, d)
}

// Bytes come through by every way that the machine has, a GPU's or the fake's: down and up,
// read by the processor and registered, and to another GPU and back.
func TestBytesComeThrough(t *testing.T) {
	ctx, n := context.Background(), int64(6*mib)
	if theLane().real {
		n = 150 * mib
	}
	open := func(ordinal int) *cuda.Driver {
		d, err := theLane().runtime.New(cuda.Config{ID: "gpu-0", Ordinal: ordinal})
		must(t, err)
		t.Cleanup(func() { must(t, d.Close()) })
		return d
	}
	d, host := open(0), ram(t)
	content := noise(n)
	a, b := weights(t, d, content), scratch(t, d, n)
	below := fresh(t, host, n)
	must(t, d.Push(ctx, below, 0, a, 0, n))
	must(t, host.Seal(below))
	holds(t, "down", host, below, 0, content)
	must(t, d.Pull(ctx, b, 0, below, 0, n))
	holds(t, "up", d, b, 0, content)
	d.AwaitWarm()
	must(t, d.Clear(b, 0, n, 0))
	must(t, d.Pull(ctx, b, 1, below, 2, n-3))
	holds(t, "up, registered", d, b, 0, append(append([]byte{0}, content[2:n-1]...), 0, 0))
	if d.RegisteredBytes() != n {
		t.Errorf("%d bytes are registered", d.RegisteredBytes())
	}
	must(t, host.Destroy(below))
	gpus, err := theLane().runtime.GPUs()
	must(t, err)
	if len(gpus) < 2 {
		return
	}
	other := open(1)
	c := scratch(t, other, n)
	must(t, other.Pull(ctx, c, 0, a, 0, n))
	holds(t, "on the other GPU", other, c, 0, content)
	must(t, d.Clear(b, 0, n, 0))
	must(t, d.Pull(ctx, b, 0, c, 0, n))
	holds(t, "back", d, b, 0, content)
}
