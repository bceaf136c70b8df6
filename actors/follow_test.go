package actors_test

import (
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/device/proctree"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/schemas"
)

// population is a machine's processes as a test says.
type population struct {
	mu    sync.Mutex
	now   proctree.Table
	asked int
}

func (p *population) set(now proctree.Table) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = now
}

func (p *population) table() (proctree.Table, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return p.now, nil
}

// looks is how often the processes were asked for.
func (p *population) looks() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// child is a real process that ends when the test says so.
func child(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { in.Close(); cmd.Wait() })
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

// world has processes whose use of the simulated device a test decides.
func world(t *testing.T) (*timed, *population, *sim.Driver) {
	t.Helper()
	people := &population{now: proctree.Table{}}
	var gpu *sim.Driver
	h := openTimed(t, nil, func(c *actors.Config) {
		gpu = c.Devices[0].Driver.(*sim.Driver)
		c.Process = func(pid int) (*os.File, proctree.Process, error) {
			f, p, err := proctree.Open("/proc", pid)
			p.Start = 5
			return f, p, err
		}
		c.Processes = people.table
	})
	return h, people, gpu
}

func (h *timed) memory() schemas.MemoryInfo {
	h.t.Helper()
	return call[*schemas.GetStatusReply](h.t, h.house, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: "gpu-0"}).MemoryInfo
}

func (h *timed) expect(when string, reserved, foreign int64) {
	h.t.Helper()
	m := h.memory()
	if m.ReservedMemory != reserved*mib || m.ForeignMemory != foreign*mib {
		h.t.Errorf("%s: %d MiB reserved and %d foreign, want %d and %d", when, m.ReservedMemory/mib, m.ForeignMemory/mib, reserved, foreign)
	}
}

// look lets seconds pass until the trees have been looked at since this was called: the
// second look begins when what the first has found is known. Looks are taken elsewhere, and
// the longer one took the later is the next, so it is not known how many seconds that takes.
func (h *timed) look(p *population) {
	h.t.Helper()
	for n, begun := 0, p.looks(); p.looks() < begun+2; n++ {
		if n == 100_000 {
			h.t.Fatal("nobody looks")
		}
		h.pass(time.Second)
	}
}

// sample lets seconds pass until a second sample of later than now was taken, which began
// since this was called.
func (h *timed) sample() {
	h.t.Helper()
	begun, seen, last := h.clock.Wall(), 0, time.Time{}
	for range 100_000 {
		h.pass(time.Second)
		at := h.memory().ObservedAt
		if at == nil || at.Before(begun.Add(time.Second)) || at.Equal(last) {
			continue
		}
		if last, seen = *at, seen+1; seen == 2 {
			return
		}
	}
	h.t.Fatal("no samples are taken")
}

func TestAReservationFollowsItsProcess(t *testing.T) {
	h, people, gpu := world(t)
	pid, end := child(t)
	people.set(proctree.Table{pid: {Parent: 1, Start: 5}, 900: {Parent: pid, Start: 6}, 800: {Parent: 1, Start: 6}})
	r := h.allocate(schemas.AllocateRequest{SizeBytes: 200 * mib, Class: schemas.ClassReservation, PID: &pid})
	if r.Handle != nil || r.Allocation.Owner.PID != pid {
		t.Fatalf("granted %+v", r)
	}
	h.expect("at first", 200, 0)
	gpu.SetProcess(pid, 50*mib)
	gpu.SetProcess(900, 100*mib)
	gpu.SetProcess(800, 30*mib)
	h.look(people)
	h.expect("the tree uses what was promised", 200, 30)
	gpu.SetProcess(900, 250*mib)
	h.look(people)
	h.expect("the tree uses more", 300, 30)
	if a := call[*schemas.GetAllocationReply](t, h.house, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: r.AllocationID}).Allocation; a.GrantedBytes != 300*mib || a.SizeBytes != 200*mib {
		t.Errorf("it is shown as %+v", a)
	}
	gpu.SetProcess(900, 0)
	h.look(people)
	h.expect("a part of it has ended", 200, 30)
	gpu.SetProcess(pid, 0)
	end()
	if i := h.item(schemas.EventDeallocated, r.AllocationID); i.Reason != "the process that it follows has ended" {
		t.Errorf("released: %+v", i)
	}
	h.sample()
	h.expect("after it", 0, 30)
}

func TestNestedReservationsCountAProcessOnce(t *testing.T) {
	h, people, gpu := world(t)
	outer, _ := child(t)
	inner, _ := child(t)
	people.set(proctree.Table{outer: {Parent: 1, Start: 5}, inner: {Parent: outer, Start: 5}})
	h.allocate(schemas.AllocateRequest{SizeBytes: 100 * mib, Class: schemas.ClassReservation, PID: &outer})
	h.allocate(schemas.AllocateRequest{SizeBytes: 100 * mib, Class: schemas.ClassReservation, PID: &inner})
	gpu.SetProcess(outer, 120*mib)
	gpu.SetProcess(inner, 150*mib)
	h.look(people)
	h.expect("each counts its own", 270, 0)
}

func TestAReservationOfNobodyIsRefused(t *testing.T) {
	h, _, _ := world(t)
	pid, end := child(t)
	end()
	for _, dry := range []bool{false, true} {
		a := <-h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "r", DryRun: dry,
			Data: &schemas.AllocateRequest{SizeBytes: mib, Class: schemas.ClassReservation, PID: &pid}})
		if a.err == nil || a.err.Code != schemas.CodeInvalidRequest || a.err.Details["field"] != "pid" {
			t.Errorf("dry run %v: answered %+v", dry, a)
		}
	}
}

func TestARequestEndsWithTheProcessItIsFor(t *testing.T) {
	h, _, _ := world(t)
	all := h.allocate(schemas.AllocateRequest{SizeBytes: 1024 * mib})
	pid, end := child(t)
	r := h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "waits", Wait: time.Hour,
		Data: &schemas.AllocateRequest{SizeBytes: mib, Class: schemas.ClassReservation, PID: &pid, TimeoutSeconds: ptr[int64](3600)}})
	h.pass(0)
	end()
	if a := <-r; a.err == nil || a.err.Code != schemas.CodeCancelled {
		t.Fatalf("answered %+v", a)
	}
	h.deallocate(all.AllocationID)
	h.pass(0)
	h.expect("nothing is reserved for the dead", 0, 0)
}

// The next house finds one process alive and the other dead.
func TestATakeOverFollowsOn(t *testing.T) {
	people := &population{now: proctree.Table{}}
	lives, _ := child(t)
	dies, end := child(t)
	change := func(c *actors.Config) {
		c.Processes = people.table
		c.Find = func(pid int, start uint64) (*os.File, error) {
			f, p, err := proctree.Open("/proc", pid)
			if err == nil && p.Start != start {
				f.Close()
				err = os.ErrProcessDone
			}
			return f, err
		}
	}
	first := openTimed(t, nil, change)
	a := first.allocate(schemas.AllocateRequest{SizeBytes: 100 * mib, Class: schemas.ClassReservation, PID: &lives})
	b := first.allocate(schemas.AllocateRequest{SizeBytes: 50 * mib, Class: schemas.ClassReservation, PID: &dies})
	first.close()
	end()
	next := openTimed(t, first, change)
	next.item(schemas.EventDeallocated, b.AllocationID)
	if !next.there(a.AllocationID) {
		t.Error("the reservation of a living process is gone")
	}
	next.expect("after the take-over", 100, 0)
}
