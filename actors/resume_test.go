package actors_test

import (
	"maps"
	"os"
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
				kept := shelf{}
				world := func(c *actors.Config) {
					c.Keeper, c.Inherited = kept, maps.Clone(kept)
					c.Watch = func(*os.File, func()) (func(), error) { return func() {}, nil }
				}
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
