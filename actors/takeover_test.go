package actors_test

import (
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
)

// shelf is a vault in this process: it keeps descriptors from one house to the next.
type shelf map[uint64]*os.File

func (s shelf) Put(entries ...vault.Entry) error {
	for _, e := range entries {
		fd, err := unix.FcntlInt(e.File.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s[e.ID] = os.NewFile(uintptr(fd), e.Label)
	}
	return nil
}

func (s shelf) Drop(ids ...uint64) error {
	for _, id := range ids {
		s[id].Close()
		delete(s, id)
	}
	return nil
}

// locked is a shelf for several workers at once.
type locked struct {
	mu    sync.Mutex
	shelf shelf
}

func (l *locked) Put(entries ...vault.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shelf.Put(entries...)
}

func (l *locked) Drop(ids ...uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shelf.Drop(ids...)
}

// heirs are houses of which each takes over what the one before left on the shelf.
func heirs() (shelf, func(*actors.Config)) {
	kept := shelf{}
	return kept, func(c *actors.Config) {
		c.Keeper, c.Inherited = &locked{shelf: kept}, maps.Clone(kept)
		c.Watch = func(*os.File, func()) (func(), error) { return func() {}, nil }
	}
}

// What a predecessor had begun to release is released by the next house, whichever of its
// actors is quickest: here each has gone on as far as it can before the next one begins.
func TestReleasesGoOnWhoeverBeginsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, world := heirs()
		first := openTimed(t, nil, world)
		w, err := first.hello(dataplane.Hello{Client: "test"})
		if err != nil {
			t.Fatal(err)
		}
		// The client unmaps, but something that it forked still has the memory open.
		g := first.allocate(schemas.AllocateRequest{SizeBytes: 8 * mib, SessionID: w.SessionID, Class: schemas.ClassScratch})
		forked := first.mapped(w.SessionID, g.Handle.Claim)
		first.send(&actors.Command{Action: schemas.ActionDeallocate, RequestID: "d", Data: &schemas.DeallocateRequest{AllocationID: g.AllocationID, Force: true}})
		first.unmap(w.SessionID, g.AllocationID)
		first.pass(0)
		if !first.there(g.AllocationID) {
			t.Fatal("released while it is open")
		}
		first.close()
		forked.Close()

		points := 0
		next := openTimed(t, first, world, func(c *actors.Config) {
			c.Crash = func(point string) {
				if point == "actor.begin" {
					points++
					synctest.Wait()
				}
			}
		})
		if points != 3 {
			t.Fatalf("%d actors begin, not the sessions, the pool and the device", points)
		}
		synctest.Wait()
		if next.there(g.AllocationID) || len(kept) != 0 {
			t.Fatalf("not released: %v, with %d segments in the vault", next.there(g.AllocationID), len(kept))
		}
	})
}

// What waits does not outlive its house. Who follows it is told so, and what to do; given again
// with the same request_id the command is decided anew, once. What was done is answered.
func TestWhatWaitsIsGivenAgainAfterATakeOver(t *testing.T) {
	kept, world := heirs()
	first := openTimed(t, nil, world)
	red := func(h *timed, id string, wait time.Duration) answer {
		return <-h.send(&actors.Command{Tenant: "red", RequestID: id, Chosen: true, Action: schemas.ActionAllocate, Wait: wait,
			Data: &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 600 * mib, Class: schemas.ClassState, TimeoutSeconds: ptr[int64](3600)}})
	}
	done := red(first, "done", time.Hour).data.(*schemas.AllocateReply)
	answered := make(chan answer, 1)
	go func() { answered <- red(first, "waits", time.Second) }()
	for waiting := 0; waiting == 0; {
		q := first.command("red", "", schemas.ActionGetQueue, &schemas.GetQueueRequest{DeviceID: "gpu-0"})
		waiting = len(q.data.(*schemas.GetQueueReply).Waiting)
	}
	for len(answered) == 0 {
		first.pass(time.Second)
	}
	pending, ok := (<-answered).data.(*schemas.Pending)
	if !ok || pending.Status != schemas.StatusQueued {
		t.Fatalf("it does not wait: %+v", pending)
	}
	first.close()

	next := openTimed(t, first, world)
	for _, ask := range []*schemas.GetOperationRequest{{OperationID: pending.OperationID}, {RequestID: "waits"}} {
		a := next.command("red", "", schemas.ActionGetOperation, ask)
		if a.err == nil || a.err.Code != schemas.CodeOperationNotFound || !strings.Contains(a.err.Message, "again with the same request_id") {
			t.Errorf("%+v: %+v %v", ask, a.data, a.err)
		}
	}
	if op, err := next.operation("red", "done"); err != nil || op.Status != schemas.StatusCompleted {
		t.Errorf("what was done is %+v %v", op, err)
	}
	if a := next.command("red", "", schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: done.AllocationID}); a.err != nil || !a.data.(*schemas.DeallocateReply).Confirmed {
		t.Fatalf("%+v %v", a.data, a.err)
	}
	again := red(next, "waits", time.Hour)
	if again.err != nil {
		t.Fatal(again.err)
	}
	g, same := again.data.(*schemas.AllocateReply), red(next, "waits", time.Hour).data.(*schemas.AllocateReply)
	if g.Replayed || !same.Replayed || same.AllocationID != g.AllocationID || g.AllocationID == done.AllocationID {
		t.Errorf("given again: %+v, and once more: %+v", g, same)
	}
	if len(kept) == 0 {
		t.Error("nothing is kept")
	}
}
