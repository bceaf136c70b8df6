package contract

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// natsServer runs a server on a port of its own choosing, or on the one it had before.
func natsServer(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	o.Host, o.NoSigs, o.NoLog = "127.0.0.1", true, true
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	return s
}

func on(url string, user ...string) nodetest.Option {
	return nodetest.Set(func(c *node.Config) {
		c.NATSURL = url
		if len(user) == 2 {
			c.NATSUsername, c.NATSPassword = user[0], user[1]
		}
	})
}

func warned(status *schemas.GetStatusReply, code schemas.WarningCode) bool {
	return slices.ContainsFunc(status.Warnings, func(w schemas.HealthWarning) bool { return w.Code == code && w.Fix != "" })
}

// eventually asks until the status is as it should be.
func eventually(t *testing.T, c *client.Client, what string, holds func(*schemas.GetStatusReply) bool) {
	t.Helper()
	ctx := t0(t)
	for {
		var s schemas.GetStatusReply
		err := c.Call(ctx, schemas.ActionGetStatus, &schemas.GetStatusRequest{}, &s)
		if err == nil && holds(&s) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: %v, %+v", what, err, s.Warnings)
		}
	}
}

// Without JetStream, or without permission to use it, a node serves and says what is
// missing.
func TestNATSWithoutStreams(t *testing.T) {
	all := &server.SubjectPermission{Allow: []string{">"}}
	noStreams := &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{">"}, Deny: []string{"$JS.>"}}, Subscribe: all}
	for name, o := range map[string]*server.Options{
		"no JetStream":  {},
		"no permission": {JetStream: true, StoreDir: t.TempDir(), Users: []*server.User{{Username: "u", Password: "p", Permissions: noStreams}}},
	} {
		t.Run(name, func(t *testing.T) {
			url := natsServer(t, o).ClientURL()
			nodetest.Start(t, on(url, "u", "p"))
			c, err := client.Connect(client.Options{URL: url, Username: "u", Password: "p"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			nc, err := nats.Connect(url, nats.UserInfo("u", "p"))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			events, err := nc.SubscribeSync("memory.events.allocation.>")
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, c, "no warning", func(s *schemas.GetStatusReply) bool { return warned(s, schemas.WarnNoHistory) })
			var g schemas.AllocateReply
			if err := c.Call(t0(t), schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: mib}, &g); err != nil {
				t.Fatal(err)
			}
			if _, err := events.NextMsg(patience); err != nil {
				t.Fatal("events are not published: ", err)
			}
		})
	}
}

// NATS goes away and comes back: who asks meanwhile hears so at once, sessions go on, leases
// stand still, and events are there when it is back.
func TestNATSAwayAndBack(t *testing.T) {
	o := &server.Options{}
	s := natsServer(t, o)
	url := s.ClientURL()
	port := s.Addr().(*net.TCPAddr).Port
	n := nodetest.Start(t, on(url))
	c, err := client.Connect(client.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var g schemas.AllocateReply
	lease := int64(1)
	if err := c.Call(t0(t), schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: mib, LeaseSeconds: &lease}, &g); err != nil {
		t.Fatal(err)
	}
	d, err := data.Dial(t0(t), data.Config{SocketPath: n.Info().DataSocket, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m, err := d.Map(t0(t), g.Handle.Claim, data.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}

	s.Shutdown()
	s.WaitForShutdown()
	ctx := t0(t)
	for { // until the client, too, has heard of it
		err := c.Call(ctx, schemas.ActionGetStatus, &schemas.GetStatusRequest{}, nil)
		var typed *schemas.Error
		if errors.As(err, &typed) && typed.Code == schemas.CodeNoNode && strings.Contains(typed.Message, "NATS") {
			break
		}
		if err == nil || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	// The data socket knows nothing of it.
	if err := d.Ping(t0(t)); err != nil {
		t.Fatal(err)
	}
	m.Segments[0].Bytes[0] = 42
	if err := d.Unmap(t0(t), m); err != nil { // makes an event, which waits
		t.Fatal(err)
	}

	again := &server.Options{Port: port}
	natsServer(t, again)
	eventually(t, c, "the node does not come back", func(s *schemas.GetStatusReply) bool { return !warned(s, schemas.WarnDisconnected) })
	// The lease, of a second, has its grace.
	if err := c.Call(t0(t), schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: g.AllocationID}, nil); err != nil {
		t.Fatal(err)
	}
}
