package crashtest

import (
	"context"
	"maps"
	"testing"

	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// The vault is killed: the node says that nothing would survive it, starts another, gives it
// everything and takes the warning back; after that it may itself be killed.
func TestAKilledVaultIsTold(t *testing.T) {
	s := settings{Dir: place(t), Devices: []node.DeviceSpec{{Kind: node.DeviceRAM, ID: "ram-0", Bytes: 64 * mib}}}
	n := start(t, s)
	k := vaultOf(t, s.Dir)
	c := n.client()
	x := consume(t, n)
	grant(t, n, c, x, schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 4 * mib}, 7)
	before := balanced(n, c, k)
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	events, err := c.Events(ctx, schemas.NodeSubject(n.hello.Info.Node))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()

	if err := fdwire.Kill(k.pidfd); err != nil {
		t.Fatal(err)
	}
	for _, want := range []schemas.EventKind{schemas.EventWarningRaised, schemas.EventWarningCleared} {
		for {
			e, err := events.Next(ctx)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			var d schemas.NodeEvent
			if err := e.Decode(&d); err != nil || d.Warning == nil || d.Warning.Code != schemas.WarnVaultMissing {
				continue
			}
			if e.Event.Event != want {
				t.Fatalf("%s instead of %s", e.Event.Event, want)
			}
			break
		}
	}
	if r := must[schemas.GetStatusReply](n, c, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: schemas.DeviceIDAll}); len(r.Warnings) > 0 && r.Warnings[0].Code == schemas.WarnVaultMissing {
		t.Errorf("a warning stays: %+v", r.Warnings)
	}
	second := vaultOf(t, s.Dir)
	if second.pid == k.pid {
		t.Fatal("the vault is the one that was killed")
	}

	n.kill()
	n = start(t, s)
	if after := balanced(n, n.client(), second)["ram-0"]; !maps.EqualFunc(after.Grants, before["ram-0"].Grants, func(a, b schemas.Allocation) bool { return a.GrantedBytes == b.GrantedBytes && a.Status == b.Status }) {
		t.Errorf("after: %+v, before: %+v", after, before["ram-0"])
	}
	x.tell(order{Do: "ping"})
	if l := x.again(); l.New != 0 || len(l.Lost) != 0 || l.Mapped != 1 {
		t.Errorf("the consumer: %+v", l)
	}
}
