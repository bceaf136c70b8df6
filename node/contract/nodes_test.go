package contract

import (
	"fmt"
	"testing"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"

	data "github.com/isobar-project/isobar/dataplane/client"
)

// Two nodes on one NATS: each is reached through any, whoever is named.
func TestTwoNodesOnOneServer(t *testing.T) {
	quick := nodetest.Set(func(c *node.Config) { c.JetStream = false })
	one := nodetest.Start(t, quick, nodetest.Set(func(c *node.Config) { c.Node = "one" }))
	two := nodetest.Start(t, quick, nodetest.Set(func(c *node.Config) { c.Node, c.NATSURL = "two", one.Info().URL }))
	c := one.Client(t)
	ctx := t0(t)
	named := func(name string) []client.CallOption { return []client.CallOption{client.WithNode(name)} }

	// They have met when both say so.
	ask := &schemas.AllocateRequest{SizeBytes: 4 * mib}
	for _, from := range []string{"one", "two"} {
		for {
			err := c.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: "nobody.x"}, nil, named(from)...)
			e := refusal(t, err, schemas.CodeNoNode)
			if fmt.Sprint(e.Details["nodes"]) == "[one two]" {
				break
			}
		}
	}
	for range 4 {
		e := refusal(t, c.Call(ctx, schemas.ActionAllocate, ask, nil), schemas.CodeNodeRequired)
		if fmt.Sprint(e.Details["nodes"]) != "[one two]" {
			t.Fatalf("%v", e.Details)
		}
	}

	// A device or a subject names the node; its memory comes from there.
	for name, n := range map[string]*nodetest.Node{"one": one, "two": two} {
		for i, call := range []struct {
			device string
			how    []client.CallOption
		}{{name + "/gpu-0", nil}, {"gpu-0", named(name)}} {
			var g schemas.AllocateReply
			in := *ask
			in.DeviceID = call.device
			if err := c.Call(ctx, schemas.ActionAllocate, &in, &g, call.how...); err != nil {
				t.Fatal(err)
			}
			if g.Allocation.Node != name || g.Handle.Node != name || g.Handle.DataSocket != n.Info().DataSocket {
				t.Fatalf("%s: %+v", name, g)
			}
			d, err := data.Dial(ctx, data.Config{SocketPath: g.Handle.DataSocket, Name: "test"})
			if err != nil {
				t.Fatal(err)
			}
			m, err := d.Map(ctx, g.Handle.Claim, data.ReadWrite)
			if err != nil || m.SizeBytes != 4*mib {
				t.Fatal(err)
			}
			t.Cleanup(func() { d.Close() }) // the grant is its session's
			// The id alone is enough, whomever one asks; and so is the id with its node.
			for _, asked := range []string{"", "one", "two"} {
				for _, id := range []string{g.AllocationID, name + "." + g.AllocationID} {
					var r schemas.GetAllocationReply
					if err := c.Call(ctx, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: id}, &r, named(asked)...); err != nil || r.Allocation.Node != name {
						t.Fatalf("%s by %q: %+v, %v", id, asked, r, err)
					}
				}
			}
			id := g.AllocationID
			if i == 1 {
				id = name + "." + id
			}
			if err := d.Unmap(ctx, m); err != nil {
				t.Fatal(err)
			}
			var freed schemas.DeallocateReply
			if err := c.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id}, &freed); err != nil || freed.FreedBytes != 4*mib {
				t.Fatalf("%+v, %v", freed, err)
			}
			refusal(t, c.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id}, nil), schemas.CodeAllocationNotFound)
		}
	}

	// One leaves: nothing has to be named any more, and what was there is gone clearly.
	if _, err := two.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for {
		err := c.Call(ctx, schemas.ActionAllocate, ask, nil)
		if err == nil {
			break
		}
		refusal(t, err, schemas.CodeNodeRequired) // until it is heard that the other has left
	}
	refusal(t, c.Call(ctx, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: "two.x"}, nil), schemas.CodeNoNode)
}

// refusal is the error of a command that must be refused so.
func refusal(t *testing.T, err error, code schemas.Code) *schemas.Error {
	t.Helper()
	e, ok := err.(*schemas.Error)
	if !ok || e.Code != code {
		t.Fatalf("%v, not %s", err, code)
	}
	return e
}
