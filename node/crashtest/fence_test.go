package crashtest

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// ram is a node with 128 MiB of main memory.
func ram(dir string) settings {
	return settings{Dir: dir, Devices: []node.DeviceSpec{{Kind: node.DeviceRAM, ID: "ram-0", Bytes: 128 * mib}}}
}

// grant allocates, and has a consumer map it.
func grant(t *testing.T, n *nodeProcess, c *client.Client, x *consumerProcess, r schemas.AllocateRequest, seed uint64) string {
	t.Helper()
	a := must[schemas.AllocateReply](n, c, schemas.ActionAllocate, &r)
	if x != nil {
		x.tell(order{Do: "map", Claims: []string{a.Handle.Claim}, Seed: seed, Write: true})
	}
	return a.AllocationID
}

// held checks that a node has exactly these grants.
func exactly(t *testing.T, b books, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, ok := b.Grants[id]; !ok {
			t.Errorf("grant %s is gone", id)
		}
	}
	if len(b.Grants) != len(ids) {
		t.Errorf("%d grants, want %d: %+v", len(b.Grants), len(ids), b.Grants)
	}
}

// While a node answers, another one is refused and changes nothing; unless it is told to
// take over: then the first is dead before the second touches anything.
func TestSecondNodeIsRefusedOrTakesOver(t *testing.T) {
	s := ram(place(t))
	first := start(t, s)
	k := vaultOf(t, s.Dir)
	c := first.client()
	x := consume(t, first)
	id := grant(t, first, c, x, schemas.AllocateRequest{SizeBytes: 4 * mib}, 1)

	second := launch(t, s)
	if second.hello.Err == "" || !strings.Contains(second.hello.Err, "take-over") {
		t.Fatalf("a second node: %+v", second.hello)
	}
	second.awaitEnd()
	exactly(t, balanced(first, c, k)["ram-0"], id)
	if l := x.again(); l.Resumed+l.New != 0 {
		t.Errorf("the refused node disturbed a session: %+v", l)
	}

	s.TakeOver = true
	third := start(t, s)
	first.awaitEnd()
	exactly(t, balanced(third, third.client(), k)["ram-0"], id)
	x.tell(order{Do: "ping"})
	x.again()
}

// A node that does not answer is ended by the vault when another one starts.
func TestStoppedNodeIsEnded(t *testing.T) {
	s := ram(place(t))
	first := start(t, s)
	k := vaultOf(t, s.Dir)
	x := consume(t, first)
	id := grant(t, first, first.client(), x, schemas.AllocateRequest{SizeBytes: 4 * mib}, 1)
	if err := unix.Kill(first.pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second := start(t, s)
	first.awaitEnd()
	exactly(t, balanced(second, second.client(), k)["ram-0"], id)
	x.tell(order{Do: "ping"})
	x.again()
}

// The vault dies, the node starts another and gives it everything; then the node dies, and
// still nothing is lost.
func TestVaultDiesThenTheNode(t *testing.T) {
	s := ram(place(t))
	n := start(t, s)
	c := n.client()
	x := consume(t, n)
	ids := []string{
		grant(t, n, c, x, schemas.AllocateRequest{SizeBytes: mib}, 1),
		grant(t, n, c, nil, schemas.AllocateRequest{SizeBytes: 20 * mib, Class: schemas.ClassState}, 0),
	}
	for range 3 {
		k := vaultOf(t, s.Dir)
		stats, _ := k.segments()
		fdwire.Kill(k.pidfd)
		k.awaitEnd()
		// A grant of a segment of its own needs the vault: it waits for the next one.
		ids = append(ids, grant(t, n, c, x, schemas.AllocateRequest{SizeBytes: 16 * mib}, uint64(10+len(ids))))
		next := vaultOf(t, s.Dir)
		if next.pid == k.pid {
			t.Fatal("the vault is the one that was killed")
		}
		exactly(t, balanced(n, c, next)["ram-0"], ids...)
		if again, _ := next.segments(); len(again) != len(stats)+1 {
			t.Errorf("%d segments in the vault, then %d", len(stats), len(again))
		}
	}
	n.kill()
	n = start(t, s)
	c = n.client()
	k := vaultOf(t, s.Dir)
	exactly(t, balanced(n, c, k)["ram-0"], ids...)
	x.tell(order{Do: "ping"})
	if l := x.again(); len(l.Lost) > 0 {
		t.Errorf("lost: %+v", l)
	}
	// And what is released now leaves the new vault too.
	x.tell(order{Do: "unmap"})
	for _, id := range ids {
		must[schemas.DeallocateReply](n, c, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id})
	}
	if b := balanced(n, c, k)["ram-0"]; b.own() != 0 {
		t.Errorf("left: %+v", b)
	}
}

// A clean stop releases what nobody owns and leaves the rest to the next node.
func TestCleanStopLeavesWhatHasAnOwner(t *testing.T) {
	s := ram(place(t))
	n := start(t, s)
	k := vaultOf(t, s.Dir)
	c := n.client()
	x := consume(t, n)
	lease := int64(600)
	mapped := grant(t, n, c, x, schemas.AllocateRequest{SizeBytes: 4 * mib}, 1)
	persistent := grant(t, n, c, nil, schemas.AllocateRequest{SizeBytes: 2 * mib, Persistent: true}, 0)
	leased := grant(t, n, c, nil, schemas.AllocateRequest{SizeBytes: 2 * mib, LeaseSeconds: &lease}, 0)
	grant(t, n, c, nil, schemas.AllocateRequest{SizeBytes: 8 * mib}, 0) // nobody's
	if end := n.stop(); end.Grants != 3 {
		t.Fatalf("stays: %+v", end)
	}
	x.again()
	n = start(t, s)
	c = n.client()
	exactly(t, balanced(n, c, k)["ram-0"], mapped, persistent, leased)
	x.tell(order{Do: "ping"})
	for limit := clock.Real().Now().Add(patience); x.again().Resumed != 1; {
		if clock.Real().Now() > limit {
			t.Fatalf("the session was not resumed: %+v", x.sound())
		}
	}
	// With Ephemeral nothing stays, whoever maps it.
	n.stop()
	s.Ephemeral = true
	n = start(t, s)
	exactly(t, balanced(n, n.client(), k)["ram-0"], mapped, persistent, leased)
	x.kill()
	if end := n.stop(); end.Grants != 0 {
		t.Errorf("stays although ephemeral: %+v", end)
	}
	k.awaitEnd()
}
