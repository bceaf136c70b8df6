package main

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// reserving is a fake node that grants one reservation and notes what it was asked.
type reserving struct {
	mu    sync.Mutex
	asked []*actors.Command
}

func (r *reserving) Submit(c *actors.Command) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, c)
	switch in := c.Data.(type) {
	case *schemas.AllocateRequest:
		c.Reply.Done(&schemas.AllocateReply{Finished: schemas.Done(), Success: true, DeviceID: "gpu-0", AllocationID: "the-id",
			Allocation: schemas.Allocation{AllocationID: "the-id", SizeBytes: in.SizeBytes}}, nil)
	case *schemas.DeallocateRequest:
		c.Reply.Done(&schemas.DeallocateReply{Finished: schemas.Done(), Success: true}, nil)
	}
}

func (r *reserving) commands() []*actors.Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// executing is a program that passes on the signals that the test gives it.
func executing() (*fixture, chan os.Signal) {
	f := newFixture()
	signals := make(chan os.Signal)
	f.signals = func() (<-chan os.Signal, func()) { return signals, func() {} }
	f.adopt = func() func(int) func() { return func(int) func() { return func() {} } }
	return f, signals
}

func TestExecRunsInsideAReservation(t *testing.T) {
	n := &reserving{}
	b := startNode(t, n)
	f, _ := executing()
	f.in = strings.NewReader("from outside\n")
	code := f.run(t, "exec", "--url", b.URL(), "--reserve", "20GiB", "--device", "gpu-0", "--timeout", "90s", "--", "sh", "-c",
		`read line; echo "$line: $0 $1 $ISOBAR_RESERVATION $ISOBAR_RESERVATION_DEVICE $ISOBAR_RESERVATION_BYTES $HOME"; echo sorry >&2; exit 7`, "a", "-b")
	if code != 7 || f.out.String() != "from outside: a -b the-id gpu-0 21474836480 "+strings.TrimPrefix(f.world.Environ[0], "HOME=")+"\n" || f.err.String() != "sorry\n" {
		t.Errorf("exit code %d, printed %q and %q", code, f.out, f.err)
	}
	asked := n.commands()
	if len(asked) != 2 {
		t.Fatalf("%d commands", len(asked))
	}
	r := asked[0].Data.(*schemas.AllocateRequest)
	if r.DeviceID != "gpu-0" || r.SizeBytes != 20<<30 || r.Class != schemas.ClassReservation || r.PID == nil || *r.PID != os.Getpid() ||
		r.Purpose != "sh" || *r.TimeoutSeconds != 90 {
		t.Errorf("asked for %+v", r)
	}
	if d := asked[1].Data.(*schemas.DeallocateRequest); d.AllocationID != "the-id" {
		t.Errorf("released %+v", d)
	}
}

func TestExecPassesSignalsOn(t *testing.T) {
	b := startNode(t, &reserving{})
	f, signals := executing()
	done := f.start("exec", "--url", b.URL(), "--reserve", "1GiB", "--", "sh", "-c",
		`trap 'echo usr1' USR1; echo ready; while :; do read line || kill -TERM $$; done`)
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer feed.Close()
	// The program's input ends at once, so it ends itself with the signal that is passed on.
	if code := wait(t, done); code != exitSignalled+int(unix.SIGTERM) {
		t.Fatalf("exit code %d: %s", code, f.err)
	}
	f.in = in
	done = f.start("exec", "--url", b.URL(), "--reserve", "1GiB", "--", "sh", "-c",
		`trap 'echo got it; exit 3' USR1; echo ready to go; while :; do read line; done`)
	f.out.await(t, "ready to go")
	signals <- unix.SIGUSR1
	feed.Write([]byte("\n"))
	f.out.await(t, "got it")
	if code := wait(t, done); code != 3 {
		t.Errorf("exit code %d", code)
	}
}

func TestExecSaysWhyItRunsNothing(t *testing.T) {
	n := &reserving{}
	b := startNode(t, n)
	plain := t.TempDir() + "/plain"
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--reserve", "1GiB", "--", "there-is-no-such-program"}, exitNotFound, "is not found"},
		{[]string{"--reserve", "1GiB", "--", plain}, exitCannotRun, "chmod +x"},
		{[]string{"--reserve", "much", "--", "true"}, exitUsage, "is not a size"},
		{[]string{"--reserve", "1GiB", "--timeout=-1s", "--", "true"}, exitUsage, "negative"},
		{[]string{"--reserve", "1GiB"}, exitUsage, "command"},
		{[]string{"--", "true"}, exitUsage, "--reserve"},
	} {
		f, _ := executing()
		if code := f.run(t, append([]string{"exec", "--url", b.URL()}, c.args...)...); code != c.code || !strings.Contains(f.err.String(), c.says) {
			t.Errorf("%q: exit code %d, says %q", c.args, code, f.err)
		}
	}
	if got := n.commands(); len(got) != 0 {
		t.Errorf("the node was asked for %+v", got[0].Data)
	}
}

// With a real node: the program waits for its turn, its place is shown, and what it was
// promised is free again when it has ended.
func TestExecWaitsItsTurn(t *testing.T) {
	n := nodetest.Start(t)
	c := n.Client(t)
	var all schemas.AllocateReply
	if err := c.Call(t.Context(), schemas.ActionAllocate, map[string]any{"device_id": "gpu-0", "size_bytes": 1 << 30}, &all); err != nil {
		t.Fatal(err)
	}
	f, _ := executing()
	done := f.start("exec", "--url", n.Info().URL, "--reserve", "512MiB", "--device", "gpu-0", "--", "sh", "-c", "echo runs in $ISOBAR_RESERVATION")
	f.err.await(t, "queued at position 1")
	if f.out.String() != "" {
		t.Fatalf("it ran before there was room: %s", f.out)
	}
	if err := c.Call(t.Context(), schemas.ActionDeallocate, map[string]any{"allocation_id": all.AllocationID}, nil); err != nil {
		t.Fatal(err)
	}
	if code := wait(t, done); code != exitDone {
		t.Fatalf("exit code %d: %s", code, f.err)
	}
	id := strings.TrimSpace(strings.TrimPrefix(f.out.String(), "runs in "))
	err := c.Call(t.Context(), schemas.ActionGetAllocation, map[string]any{"allocation_id": id}, nil)
	if !errors.Is(err, schemas.Errorf(schemas.CodeAllocationNotFound, "")) {
		t.Errorf("the reservation %q outlives its program: %v", id, err)
	}
}

func TestExecIsRefused(t *testing.T) {
	b := startNode(t, replies(map[schemas.Action]any{schemas.ActionAllocate: schemas.Errorf(schemas.CodeOutOfMemory, "there is no room")}))
	f, _ := executing()
	if code := f.run(t, "exec", "--url", b.URL(), "--reserve", "1GiB", "--", "sh", "-c", "echo ran"); code != exitRefused || f.out.String() != "" || !strings.Contains(f.err.String(), "no room") {
		t.Errorf("exit code %d, printed %q, says %q", code, f.out, f.err)
	}
}

// An orphan that this process adopted is buried; the child that os/exec waits for is not.
func TestOrphansAreBuried(t *testing.T) {
	left, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "exit 0"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "exit 5"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*os.Process{left, kept} {
		exited(t, p.Pid)
	}
	buryOrphans(kept.Pid)
	if err := unix.Kill(left.Pid, 0); err != unix.ESRCH {
		t.Errorf("the orphan is still there: %v", err)
	}
	if st, err := kept.Wait(); err != nil || st.ExitCode() != 5 {
		t.Errorf("the child: %v, %v", st, err)
	}
	_ = left.Release()
}

// exited waits until a child has exited, and leaves it to be waited for.
func exited(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}
