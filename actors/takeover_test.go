package actors_test

import (
	"maps"
	"os"
	"sync"
	"testing"
	"testing/synctest"

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
