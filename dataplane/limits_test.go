package dataplane_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/schemas"
)

func TestBreachesEndTheConnection(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.FramesPerSecond = 50 })
	b := dialBare(t, h, false)
	b.say(map[string]any{"type": "map", "id": 3, "claim": "a"})
	if a := b.read("error"); a.ID != 3 || a.Code != "INVALID_REQUEST" {
		t.Fatalf("%+v", a)
	}
	b.wantEnd()

	waitGone(t, h)
	b = dialBare(t, h, false)
	waitConnections(t, h, 1)
	h.clock.Advance(5 * time.Second)
	b.wantEnd()

	b = dialBare(t, h, false)
	b.say(map[string]any{"type": "hello", "id": 1, "client": "unwelcome"})
	if a := b.read("error"); a.Code != "FORBIDDEN" {
		t.Fatalf("%+v", a)
	}
	b.wantEnd()

	b = dialBare(t, h, true)
	h.want(t, "hello  held=[] alive=true self=true")
	for range 60 {
		b.say(map[string]any{"type": "ping", "id": 1})
	}
	for range 49 {
		b.read("pong")
	}
	if a := b.read("error"); a.Code != "BUSY" {
		t.Fatalf("%+v", a)
	}
	b.wantEnd()
	h.want(t, "ended s1 true")
	if len(h.heard) != 0 {
		t.Fatalf("the desk heard %q", <-h.heard)
	}
}

func TestTheRateIsEarnedAgain(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.FramesPerSecond = 10 })
	b := dialBare(t, h, true)
	for range 5 {
		for range 9 {
			b.say(map[string]any{"type": "ping", "id": 1})
			b.read("pong")
		}
		h.clock.Advance(time.Second)
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.MaxConnectionsPerUID = 2 })
	a, b := dialBare(t, h, true), dialBare(t, h, true)
	dialBare(t, h, false).wantEnd()
	a.Close()
	h.want(t, "hello  held=[] alive=true self=true")
	h.want(t, "hello  held=[] alive=true self=true")
	h.want(t, "ended s1 true") // counted out before the desk hears of it
	dialBare(t, h, true)
	b.say(map[string]any{"type": "ping", "id": 1})
	b.read("pong")

	h = serve(t, func(c *dataplane.Config) { c.MaxConnections = 1 })
	dialBare(t, h, true)
	dialBare(t, h, false).wantEnd()

	h = serve(t, func(c *dataplane.Config) { c.AllowUIDs = []uint32{12345} })
	dialBare(t, h, false).wantEnd()
	if st, err := os.Stat(h.socket); err != nil || st.Mode().Perm() != 0o666 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
	h = serve(t, nil)
	if st, err := os.Stat(h.socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
}

func TestUnansweredRequestsAreLimited(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.MaxOutstanding = 3 })
	h.grant(t, "a", 1, nil)
	b := dialBare(t, h, true)
	held := make(chan func(), 10)
	h.mu.Lock()
	h.hold = func(done func()) { held <- done }
	h.mu.Unlock()
	for i := range 4 {
		b.say(map[string]any{"type": "map", "id": 10 + i, "claim": "a"})
	}
	if a := b.read("error"); a.ID != 13 || a.Code != "BUSY" {
		t.Fatalf("%+v", a)
	}
	for range 3 {
		(<-held)()
		b.read("mapped")
	}
	b.say(map[string]any{"type": "unmap", "id": 20, "allocation_id": "a"})
	(<-held)()
	if a := b.read("unmapped"); a.ID != 20 || a.Alloc != "a" {
		t.Fatalf("%+v", a)
	}
}

func TestAnswersAfterTheEnd(t *testing.T) {
	h := serve(t, nil)
	h.grant(t, "a", 2, nil)
	held := make(chan func(), 10)
	h.mu.Lock()
	h.hold = func(done func()) { held <- done }
	h.mu.Unlock()
	before := openFDs(t)

	// The client goes before the desk has answered its hello: the desk hears of the
	// end once it has.
	b := dialBare(t, h, false)
	b.say(map[string]any{"type": "hello", "id": 1})
	h.want(t, "hello  held=[] alive=true self=true")
	b.Close()
	welcome := <-held
	waitGone(t, h)
	welcome()
	h.want(t, "ended s1 true")

	// The client goes before its mapping is ready: the files are closed.
	b = dialBare(t, h, false)
	b.say(map[string]any{"type": "hello", "id": 1})
	h.want(t, "hello  held=[] alive=true self=true")
	(<-held)()
	b.read("welcome")
	b.say(map[string]any{"type": "map", "id": 1, "claim": "a"})
	h.want(t, "map s2 a ro")
	b.Close()
	h.want(t, "ended s2 true")
	(<-held)()
	if now := openFDs(t); now != before {
		t.Fatalf("%d descriptors, %d before", now, before)
	}
}

func TestASlowReaderIsDisconnected(t *testing.T) {
	h := serve(t, func(c *dataplane.Config) { c.QueueBytes = 64 << 10 })
	var tensors []schemas.Tensor
	for i := range 3000 {
		tensors = append(tensors, schemas.Tensor{Name: fmt.Sprintf("tensor-%d", i)})
	}
	h.grant(t, "a", 10, tensors)
	before := openFDs(t)
	b := dialBare(t, h, true)
	for i := range 20 {
		b.say(map[string]any{"type": "map", "id": i + 2, "claim": "a"})
	}
	h.want(t, "hello  held=[] alive=true self=true")
	for {
		if got := <-h.heard; got == "ended s1 true" {
			break
		}
	}
	// Another client is not held up meanwhile.
	c := dial(t, h, nil)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Close()
	c.Close()
	waitGone(t, h)
	if now := openFDs(t); now != before {
		t.Fatalf("%d descriptors, %d before", now, before)
	}
}
