package crashtest

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// kills is how many consumers die.
const kills = 20

// awaitEvent reads events until one of an allocation comes.
func awaitEvent(t *testing.T, events *client.Events, kind schemas.EventKind, match func(schemas.AllocationItem) bool) schemas.AllocationItem {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		e, err := events.Next(ctx)
		if err != nil {
			t.Fatalf("no event %s: %v", kind, err)
		}
		var data schemas.AllocationBatch
		if err := e.Decode(&data); err != nil {
			t.Fatal(err)
		}
		for _, item := range data.Items {
			if item.Event == kind && match(item) {
				return item
			}
		}
	}
}

// A consumer is killed, and whoever waits for exactly its bytes gets them.
func TestKilledConsumerMakesRoom(t *testing.T) {
	const size = 64 * mib
	s := settings{Dir: place(t), Devices: []node.DeviceSpec{{Kind: node.DeviceRAM, ID: "ram-0", Bytes: size}}}
	n := start(t, s)
	k := vaultOf(t, s.Dir)
	c := n.client()
	events, err := c.Events(t.Context(), schemas.AllocationSubject("test", "ram-0"))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	patient := int64(600)
	ask := func(i int) error {
		_, err := call[struct{}](n, c, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: size, TimeoutSeconds: &patient},
			client.WithRequestID(rid("kill", i)), client.WithWait(0))
		return err
	}
	r := must[schemas.AllocateReply](n, c, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: size})
	claim := r.Handle.Claim
	var took []time.Duration
	for i := range kills {
		x := consume(t, n)
		x.tell(order{Do: "map", Claims: []string{claim}, Seed: uint64(i), Write: true})
		pidfd := openPidFD(t, x.pid())
		if err := ask(i); err == nil {
			t.Fatal("granted beside the one who has it all")
		}
		died := make(chan clock.Instant, 1)
		go func() {
			awaitExit(pidfd)
			died <- clock.Real().Now()
		}()
		x.kill()
		awaitEvent(t, events, schemas.EventAllocated, func(a schemas.AllocationItem) bool { return a.RequestID == rid("kill", i) })
		heard := clock.Real().Now()
		took = append(took, max(0, heard.Sub(<-died)))
		ctx, cancel := context.WithTimeout(n.ctx, patience)
		var next schemas.GetOperationReply
		err := c.Call(ctx, schemas.ActionGetOperation, &schemas.GetOperationRequest{RequestID: rid("kill", i)}, &next)
		var granted schemas.AllocateReply
		if err == nil {
			err = c.Await(ctx, next.Operation.OperationID, &granted, nil)
		}
		cancel()
		if err != nil || granted.Handle == nil {
			t.Fatalf("%v: %+v", err, next)
		}
		claim = granted.Handle.Claim
		b := balanced(n, c, k)["ram-0"]
		exactly(t, b, granted.AllocationID)
		if b.own() != size || b.Memory.PooledMemory != 0 {
			t.Fatalf("leaked: %+v", b)
		}
	}
	slices.Sort(took)
	t.Logf("| killed consumer | %d kills, 64 MiB each | from its pidfd to the event of the next owner: p50 %v, largest %v |", kills, took[len(took)/2], took[len(took)-1])
}

// A consumer dies and a child that it forked still maps the memory: the bytes are zombies
// with the child's name on them, and nobody gets them before the child ends.
func TestForkedChildKeepsBytesAsZombies(t *testing.T) {
	s := ram(place(t))
	n := start(t, s)
	k := vaultOf(t, s.Dir)
	c := n.client()
	events, err := c.Events(t.Context(), schemas.AllocationSubject("test", "ram-0"))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	x := consume(t, n)
	id := grant(t, n, c, x, schemas.AllocateRequest{SizeBytes: 16 * mib}, 7)
	child, err := strconv.Atoi(x.tell(order{Do: "fork"}).IDs[0])
	if err != nil {
		t.Fatal(err)
	}
	pidfd := openPidFD(t, child)
	x.again()
	x.kill()
	this := func(a schemas.AllocationItem) bool { return a.AllocationID == id }
	// First it is said that the bytes are zombies, and when they were looked for, whose.
	z := awaitEvent(t, events, schemas.EventZombie, func(a schemas.AllocationItem) bool { return this(a) && a.PID == child })
	if z.GrantedBytes != 16*mib {
		t.Errorf("zombie: %+v", z)
	}
	b := balanced(n, c, k)["ram-0"]
	if b.Memory.ZombieMemory != 16*mib || b.own() != 16*mib || b.Grants[id].Status != schemas.AllocationZombie {
		t.Errorf("books: %+v", b)
	}
	if m := b.Grants[id].MappedBy; len(m) != 1 || m[0].PID != child {
		t.Errorf("mapped by %+v, want pid %d", m, child)
	}
	// The next node knows of it too.
	n.kill()
	n = start(t, s)
	c = n.client()
	again, err := c.Events(t.Context(), schemas.AllocationSubject("test", "ram-0"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if b := balanced(n, c, k)["ram-0"]; b.own() != 16*mib {
		t.Errorf("after a take-over: %+v", b)
	}
	ended := clock.Real().Now()
	x.linger.Close()
	if err := awaitExit(pidfd); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, again, schemas.EventConfirmed, this)
	if b := balanced(n, c, k)["ram-0"]; b.own() != 0 || len(b.Grants) != 0 {
		t.Errorf("left: %+v", b)
	}
	t.Logf("| forked child | zombie bytes on its pid | confirmed %v after its end |", clock.Real().Now().Sub(ended))
}
