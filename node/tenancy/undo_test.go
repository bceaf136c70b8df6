package tenancy

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/accounts"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// A tenant's client that has hung up is behind an import of its account: the server's word
// that nobody listened for the answer must reach the node all the same, and the grant go back.
func TestAnUnheardGrantOfATenantIsUndone(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		for _, user := range []string{"blue-client", "green-client", "blue-operator"} {
			c := w.as(t, user)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			events, err := c.Events(ctx, "memory.events.allocation.>")
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			lost := "lost-" + user
			ask, err := json.Marshal(map[string]any{"request_id": lost, "data": map[string]any{"device_id": "gpu-0", "size_bytes": 4 * mib}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Conn().PublishRequest("memory.allocate", accounts.InboxPrefix(user)+".hung.up", ask); err != nil {
				t.Fatal(err)
			}
			id := ""
			for gone := false; !gone; {
				e, err := events.Next(ctx)
				if err != nil {
					t.Fatalf("%s: the grant %q is not undone: %v", user, id, err)
				}
				var batch schemas.AllocationBatch
				if err := e.Decode(&batch); err != nil {
					t.Fatal(err)
				}
				for _, i := range batch.Items {
					switch {
					case i.Event == schemas.EventAllocated && i.RequestID == lost:
						id = i.AllocationID
					case i.Event == schemas.EventExpired && i.AllocationID == id:
						if gone = true; i.Reason != "nobody heard the answer" {
							t.Errorf("%s: %+v", user, i)
						}
					}
				}
			}
			// It is forgotten: the same request makes another one.
			var g schemas.AllocateReply
			if code := call(t, c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 4 * mib}, &g, client.WithRequestID(lost)); code != "" || g.Replayed || g.AllocationID == id {
				t.Errorf("%s: asked again: %q, replayed %v", user, code, g.Replayed)
			}
			var list schemas.GetAllocationsReply
			if code := call(t, c, schemas.ActionGetAllocations, nil, &list); code != "" || slices.ContainsFunc(list.Allocations, func(a schemas.Allocation) bool { return a.AllocationID == id }) {
				t.Errorf("%s: %q, %+v", user, code, list.Allocations)
			}
			if code := call(t, c, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID}, nil); code != "" {
				t.Errorf("%s: the second: %q", user, code)
			}
		}
	})
}

// Two nodes on one server: what a tenant asks one of them of the other's is passed on, and
// answered, though asker and nodes are in different accounts.
func TestATenantsCommandIsPassedOn(t *testing.T) {
	at := external(t)
	for _, name := range []string{"one", "two"} {
		nodetest.Start(t, nodetest.Set(func(c *node.Config) {
			c.Node, c.Tenants, c.NATSURL, c.NATSUsername, c.NATSPassword = name, tenants(), at, "node-1", nodeSecret
		}))
	}
	c := (&world{url: at}).as(t, "blue-client")
	for _, name := range []string{"one", "two"} {
		var g schemas.AllocateReply
		if code := call(t, c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib}, &g, client.WithNode(name)); code != "" {
			t.Fatal(code)
		}
		for range 8 { // either node may be asked
			var a schemas.GetAllocationReply
			if code := call(t, c, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: g.AllocationID}, &a); code != "" || a.Allocation.Node != name {
				t.Errorf("of node %s: %q, %+v", name, code, a.Allocation)
			}
		}
		if code := call(t, (&world{url: at}).as(t, "green-client"), schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: g.AllocationID}, nil); code != schemas.CodeAllocationNotFound {
			t.Errorf("another tenant: %q", code)
		}
	}
}

// Whatever subject a tenant names to be answered at, the answer stays in its account.
func TestAnswersStayInTheirAccount(t *testing.T) {
	at := external(t)
	nodetest.Start(t, nodetest.Set(func(c *node.Config) {
		c.Tenants, c.NATSURL, c.NATSUsername, c.NATSPassword = tenants(), at, "node-1", nodeSecret
	}))
	w := &world{url: at}
	nodes, err := client.Connect(client.Options{URL: at, Username: "node-1", Password: nodeSecret, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer nodes.Close()
	green, blue := w.as(t, "green-client"), w.as(t, "blue-client")
	inbox := accounts.InboxPrefix("green-client") + ".x"
	heard := make(chan *nats.Msg, 64)
	for subject, c := range map[string]*client.Client{"memory.deallocate.elsewhere": nodes, "isobar.green.memory.deallocate.elsewhere": nodes, inbox: green} {
		if _, err := c.Conn().ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
		if err := c.Conn().Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for _, reply := range []string{"memory.deallocate.elsewhere", "isobar.green.memory.deallocate.elsewhere", inbox, "isobar.green." + schemas.InboxSubject(inbox)} {
		if err := blue.Conn().PublishRequest("memory.list_devices", reply, nil); err != nil {
			t.Fatal(err)
		}
		if code := call(t, blue, schemas.ActionListDevices, nil, nil); code != "" { // asked after it, answered after it
			t.Fatal(code)
		}
	}
	for _, c := range []*client.Client{nodes, green} {
		if err := c.Conn().Flush(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case m := <-heard:
		t.Errorf("an answer for blue is at %s", m.Subject)
	default:
	}
}

// Accounts that somebody wrote by hand, by importing the nodes' subjects as a service, are
// served as well.
func TestAccountsWrittenByHand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nats.conf")
	text := fmt.Sprintf(`accounts {
  NODES { users: [{user: "node-1", password: %q}], exports: [{service: "isobar.blue.memory.>"}] }
  BLUE { users: [{user: "blue-client", password: %q}], imports: [{service: {account: NODES, subject: "isobar.blue.memory.>"}, to: "memory.>"}] }
}`, nodeHash, secretHash)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bus.StartServer(bus.ServerConfig{Listen: "127.0.0.1:0", ConfigFile: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	nodetest.Start(t, nodetest.Set(func(c *node.Config) {
		c.Tenants, c.NATSURL, c.NATSUsername, c.NATSPassword = tenants(), s.URL(), "node-1", nodeSecret
	}))
	var g schemas.AllocateReply
	if code := call(t, (&world{url: s.URL()}).as(t, "blue-client"), schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib}, &g); code != "" || g.Allocation.Owner.Tenant != "blue" {
		t.Errorf("%q, granted to %+v", code, g.Allocation.Owner)
	}
}
