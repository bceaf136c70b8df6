//go:build linux

package cuda_test

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
)

// owes destroys a segment whose bytes do not come back.
func owes(t *testing.T, d *cuda.Driver, s device.Segment) *device.OwedError {
	t.Helper()
	var owed *device.OwedError
	if err := d.Destroy(s); !errors.As(err, &owed) || owed.Bytes != s.Bytes() || isBack(owed) {
		t.Fatalf("destroy says %v", err)
	}
	return owed
}

// When the process that is charged lets go and another one maps the memory too, it is that one's
// debt; only with the last of them the bytes are back.
func TestAZombieIsPassedOn(t *testing.T) {
	const n = 4 * mib
	d, err := theLane().runtime.New(cuda.Config{ID: "gpu-0"})
	must(t, err)
	defer d.Close()
	s := scratch(t, d, n)
	first, second := mapped(t, d, s), mapped(t, d, s)
	sampled(t, d)
	owed := owes(t, d, s)
	heir := second
	if len(owed.Holders) == 1 && owed.Holders[0].PID == second.pid {
		first, heir = second, first
	}
	first.kill(t)
	now := sampled(t, d)
	if u, ok := use(now, heir.pid); now.OursBytes != n || isBack(owed) || !ok || u.Pinned != n {
		t.Errorf("after the end of the first: %+v, back %v", now, isBack(owed))
	}
	heir.kill(t)
	if now = sampled(t, d); now.OursBytes != 0 || !isBack(owed) {
		t.Errorf("after the end of both: %+v, back %v", now, isBack(owed))
	}
}

// What a process allocates itself while it holds released memory is its own use, and when it
// unmaps what it held, that alone is back.
func TestAZombiesOwnUseIsItsOwn(t *testing.T) {
	if theLane().real {
		t.Skip("the process's own use is played by the fake driver")
	}
	const n = 4 * mib
	d, err := theLane().runtime.New(cuda.Config{ID: "gpu-0"})
	must(t, err)
	defer d.Close()
	s := scratch(t, d, n)
	o := mapped(t, d, s)
	owed := owes(t, d, s)
	theLane().fake.Process(0, o.pid, 6*mib+mib)
	sampled(t, d)
	theLane().fake.Process(0, o.pid, 6*mib) // a fall of another size
	defer theLane().fake.Process(0, o.pid, 0)
	now := sampled(t, d)
	if u, ok := use(now, o.pid); !ok || u.Pinned != n || u.Bytes != 6*mib || now.OursBytes != n {
		t.Errorf("%+v", now)
	}
	theLane().fake.Process(0, o.pid, 3*mib)
	if now = sampled(t, d); isBack(owed) || now.OursBytes != n {
		t.Errorf("its own memory was taken for ours: %+v", now)
	}
	o.kill(t) // the fake keeps its own use
	now = sampled(t, d)
	if u, ok := use(now, o.pid); !isBack(owed) || !ok || u.Bytes != 3*mib || u.Pinned != 0 || now.OursBytes != 0 {
		t.Errorf("%+v, back %v", now, isBack(owed))
	}
}

// After a take-over a client that mapped our memory first may be charged with it: that is no use
// of its own.
func TestLiveMemoryIsNobodysOwnUse(t *testing.T) {
	const n = 8 * mib
	d, err := theLane().runtime.New(cuda.Config{ID: "gpu-0"})
	must(t, err)
	s := scratch(t, d, n)
	f, err := d.Export(s, device.ReadWrite)
	must(t, err)
	o := mapped(t, d, s)
	before, err := d.UsedBy([]int{o.pid})
	must(t, err)
	must(t, d.Close()) // as the process's end

	d, err = theLane().runtime.New(cuda.Config{ID: "gpu-0"})
	must(t, err)
	defer d.Close()
	_, err = d.Import(f, n, device.ImportOptions{})
	must(t, err)
	used, err := d.UsedBy([]int{o.pid})
	must(t, err)
	if used > before {
		t.Errorf("process %d is said to use %d bytes by itself, before %d", o.pid, used, before)
	}
	now := sampled(t, d)
	if u, _ := use(now, o.pid); u.Bytes > before || u.Pinned != 0 || now.OursBytes != n {
		t.Errorf("%+v", now)
	}
	o.kill(t)
	if now = sampled(t, d); now.OursBytes != n {
		t.Errorf("after its end: %+v", now)
	}
}

// Memory that the driver will not unmap stays counted and is told; unmapping is tried again, and
// when it succeeds the bytes are back and the device is well.
func TestUnmapFails(t *testing.T) {
	r := newRig(t, true)
	d, other := r.open(t, 0), r.open(t, 1)
	s := scratch(t, d, 4*mib)
	sampled(t, d)
	r.Fail("cuMemUnmap", 1, invalidValue)
	owed := owes(t, d, s)
	if len(owed.Holders) != 0 || !strings.Contains(owed.Error(), "cuMemUnmap") {
		t.Errorf("owed: %v", owed)
	}
	kept := func(when string) {
		t.Helper()
		now := sampled(t, d)
		if isBack(owed) || now.OursBytes != 4*mib || now.OutsideBytes() != anchored || now.Health != device.Degraded || !strings.Contains(strings.Join(now.Reasons, ""), "restart the node") {
			t.Errorf("%s: %+v, back %v", when, now, isBack(owed))
		}
	}
	kept("after a failed unmap")
	_, err := d.Create(t.Context(), 64*mib, device.CreateOptions{})
	is(t, "create of what cannot be there", err, device.ErrOutOfMemory)
	must(t, d.Destroy(scratch(t, d, 60*mib-anchored))) // the rest can be had
	kept("after another came and went")
	works(t, other)

	r.Fail("cuMemUnmap", 1, invalidValue)
	tried := r.Calls("cuMemUnmap")
	r.clock.Advance(time.Second)
	kept("when it is tried again")
	for r.Calls("cuMemUnmap") == tried || d.Trying() {
		runtime.Gosched()
	}
	kept("after the second failure")
	r.clock.Advance(cuda.RetryAgain)
	sampled(t, d)
	<-owed.Back
	for now := sampled(t, d); now.Health != device.Healthy || now.OursBytes != 0; now = sampled(t, d) {
		runtime.Gosched() // what is told follows
	}
	works(t, d)
	if n := r.Calls("cuMemRelease"); n < 2 {
		t.Errorf("%d handles were let go of", n)
	}
}

// Memory that comes back by itself is seen in the driver's figures, whatever calls have said.
func TestFiguresShowWhatIsBack(t *testing.T) {
	for _, call := range []string{"cuMemUnmap", "cuMemRelease"} {
		r := newRig(t, true)
		d := r.open(t, 0)
		keep, s := scratch(t, d, 2*mib), scratch(t, d, 4*mib)
		sampled(t, d)
		cu, _, at := d.Raw(s)
		handle := d.Handle(s)
		r.Fail(call, 1, invalidValue)
		owed := owes(t, d, s)
		if now := sampled(t, d); isBack(owed) || now.OursBytes != 6*mib {
			t.Errorf("%s failed: %+v", call, now)
		}
		must(t, d.OnThread(func() error {
			if call == "cuMemUnmap" {
				return cu.Unmap(at, 4*mib)
			}
			return cu.Release(handle)
		}))
		if now := sampled(t, d); !isBack(owed) || now.OursBytes != 2*mib || now.OutsideBytes() != anchored || now.Health != device.Healthy {
			t.Errorf("%s failed, and they are back: %+v, back %v", call, now, isBack(owed))
		}
		must(t, d.Destroy(keep))
	}
}

// With a lost device all that it owes is gone.
func TestALostDeviceOwesNothing(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	s := scratch(t, d, 4*mib)
	r.Fail("cuMemUnmap", 1, invalidValue)
	owed := owes(t, d, s)
	r.Lose(0)
	_, err := d.Sample()
	is(t, "sample", err, device.ErrLost)
	<-owed.Back
}

// A process that cannot be named is told all the same.
func TestProcessesAreNamed(t *testing.T) {
	r := newRig(t, true)
	r.Process(0, 1<<22, 6*mib)
	root := t.TempDir()
	d, err := r.runtime.New(cuda.Config{ID: "gpu-0", Clock: r.clock, Root: filepath.Join(root, "none")})
	must(t, err)
	defer d.Close()
	now := sampled(t, d)
	if u, ok := use(now, 1<<22); !ok || u.Bytes != 6*mib || u.Command != "" {
		t.Errorf("%+v", now.Others)
	}
}
