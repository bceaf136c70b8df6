package actors_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/schemas"
)

// listener is a connection that writes down what the client hears on it, in order.
type listener struct {
	mu    sync.Mutex
	heard []string
}

func (l *listener) hears(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = append(l.heard, s)
}

func (l *listener) Revoke(allocation string, _ time.Duration, _ string) {
	l.hears("revoke " + allocation)
}
func (l *listener) Close() {}

// A session that was away while its grant was to be released is asked for it when it comes
// back: after the welcome, which is the first thing that a client may hear.
func TestAResumedSessionIsAskedToLetGo(t *testing.T) {
	for name, says := range map[string]bool{"of what it holds": true, "nothing of what it holds": false} {
		t.Run("it says "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, world := heirs()
				first := openTimed(t, nil, world)
				w, err := first.hello(dataplane.Hello{Client: "test"})
				if err != nil {
					t.Fatal(err)
				}
				g := first.allocate(schemas.AllocateRequest{SizeBytes: 8 * mib, SessionID: w.SessionID, Class: schemas.ClassScratch})
				held := first.mapped(w.SessionID, g.Handle.Claim)
				first.send(&actors.Command{Action: schemas.ActionDeallocate, RequestID: "d", Data: &schemas.DeallocateRequest{AllocationID: g.AllocationID, Force: true}})
				first.pass(0)
				first.close()

				next := openTimed(t, first, world)
				hello := dataplane.Hello{Client: "test", SessionID: w.SessionID, ResumeToken: w.ResumeToken}
				if says {
					hello.Held = []string{g.AllocationID}
				}
				l := &listener{}
				if _, err := next.helloOn(l, hello); err != nil {
					t.Fatal(err)
				}
				next.pass(0)
				synctest.Wait()
				if want := []string{"welcome", "revoke " + g.AllocationID}; !slices.Equal(l.heard, want) {
					t.Fatalf("the client hears %q, not %q", l.heard, want)
				}
				held.Close()
				next.unmap(w.SessionID, g.AllocationID)
				next.pass(0)
				synctest.Wait()
				if next.there(g.AllocationID) {
					t.Fatal("it is not released")
				}
			})
		})
	}
}

// A session that comes back may unmap what it holds, by any form of its id; and what it
// let go of meanwhile is let go of.
func TestAResumedSessionMayUnmap(t *testing.T) {
	for _, c := range []struct {
		name string
		held func(id string) []string
	}{
		{"what it holds", func(id string) []string { return []string{id} }},
		{"what it holds by its full name", func(id string) []string { return []string{"test." + id} }},
		{"what it let go of while it was away", func(string) []string { return []string{} }},
		{"what it said nothing of", func(string) []string { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, world := heirs()
				first := openTimed(t, nil, world)
				owner, err := first.hello(dataplane.Hello{Client: "owner"})
				if err != nil {
					t.Fatal(err)
				}
				reader, err := first.hello(dataplane.Hello{Client: "reader"})
				if err != nil {
					t.Fatal(err)
				}
				g := first.allocate(schemas.AllocateRequest{SizeBytes: 8 * mib, SessionID: owner.SessionID, Class: schemas.ClassScratch})
				first.mapped(owner.SessionID, g.Handle.Claim).Close()
				again := call[*schemas.GetHandleReply](t, first.house, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: g.AllocationID})
				first.mapped(reader.SessionID, again.Handle.Claim).Close()
				first.close()

				next := openTimed(t, first, world)
				for _, w := range []dataplane.Welcome{owner, reader} {
					held := c.held(g.AllocationID)
					r, err := next.hello(dataplane.Hello{Client: "test", SessionID: w.SessionID, ResumeToken: w.ResumeToken, Held: held})
					if err != nil || len(r.Lost) > 0 {
						t.Fatalf("welcome %+v, %v", r, err)
					}
					next.unmap(w.SessionID, g.AllocationID)
					next.unmap(w.SessionID, g.AllocationID)
				}
				if !next.there(g.AllocationID) {
					t.Fatal("it is gone: its session is back")
				}
			})
		})
	}
}

// Whoever is told that it is unmapped may count on it: a client that maps and at once unmaps
// is answered when the device knows that the descriptors are out of its hands.
func TestUnmapIsAnsweredWhenItIsSo(t *testing.T) {
	h := openTimed(t, nil)
	w, err := h.hello(dataplane.Hello{Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	g := h.allocate(schemas.AllocateRequest{SizeBytes: 4 * mib, Class: schemas.ClassScratch})
	desk := h.DataDesk(func() string { return "" })
	unmapped := make(chan error, 1)
	sent := make(chan bool)
	desk.Map(w.SessionID, g.Handle.Claim, dataplane.ReadWrite, func(m *dataplane.Mapping, err error) {
		defer close(sent)
		if err != nil {
			t.Error(err)
			return
		}
		m.Close()
		desk.Unmap(w.SessionID, g.AllocationID, func(err error) { unmapped <- err })
		// The device has heard of the unmap before it is asked this.
		call[*schemas.GetAllocationReply](t, h.house, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: g.AllocationID})
		select {
		case <-unmapped:
			t.Error("it is answered while the descriptors are on their way")
			unmapped <- nil
		default:
		}
	})
	<-sent
	if err := <-unmapped; err != nil {
		t.Fatal(err)
	}
	call[*schemas.DeallocateReply](t, h.house, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID})
}
