package actors_test

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
)

// unproved is a driver like a GPU's, which can prove no release; whoever holds its memory
// cannot be found as long as blind is set.
type unproved struct {
	device.Driver
	blind bool
}

func (u *unproved) Info() device.Info {
	i := u.Driver.Info()
	i.ProvesRelease = false
	return i
}

func (u *unproved) Released(device.Segment) (bool, error) { return false, device.ErrNoProof }

func (u *unproved) Holders(s device.Segment, except ...int) ([]device.Holder, error) {
	if u.blind {
		return nil, errors.New("proc cannot be read")
	}
	return []device.Holder{}, nil
}

// Bytes that a session may still map are not freed because nobody was found to map them: not
// when the search fails, and not when it finds nobody either, where that proves nothing.
func TestMemoryIsKeptUntilItsSessionSpeaksOrItsProcessEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		blind  bool
		speaks bool
	}{{"the search fails", true, false}, {"the search finds nobody", false, false}, {"the session says so", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dead := map[int]func(){}
				h := openTimed(t, nil, func(cfg *actors.Config) {
					cfg.Devices[0].Driver = &unproved{Driver: cfg.Devices[0].Driver, blind: c.blind}
					cfg.Watch = func(_ *os.File, gone func()) (func(), error) {
						dead[len(dead)] = gone
						return func() {}, nil
					}
				})
				w, err := h.hello(dataplane.Hello{Client: "test"})
				if err != nil {
					t.Fatal(err)
				}
				g := h.allocate(schemas.AllocateRequest{SizeBytes: 8 * mib, SessionID: w.SessionID, Class: schemas.ClassScratch})
				h.mapped(w.SessionID, g.Handle.Claim).Close()
				h.send(&actors.Command{Action: schemas.ActionDeallocate, RequestID: "d", Data: &schemas.DeallocateRequest{AllocationID: g.AllocationID, Force: true}})
				h.pass(0)
				if c.speaks {
					h.unmap(w.SessionID, g.AllocationID)
					h.pass(0)
					if h.there(g.AllocationID) {
						t.Fatal("the session has let go, and it is still there")
					}
					return
				}
				for range 5 {
					h.pass(time.Minute)
				}
				if !h.there(g.AllocationID) {
					t.Fatal("it was freed, and a living process may map it")
				}
				a := call[*schemas.GetAllocationReply](t, h.house, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: g.AllocationID})
				is(t, "its state", a.Allocation.Status, schemas.AllocationZombie)
				is(t, "who holds it", a.Allocation.MappedBy[0].PID, os.Getpid())
				for _, gone := range dead {
					gone()
				}
				synctest.Wait()
				h.pass(0)
				if h.there(g.AllocationID) {
					t.Fatal("its process has ended, and it is still there")
				}
			})
		})
	}
}
