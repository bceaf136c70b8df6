package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

func TestGrantIsMappedAndReleased(t *testing.T) {
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=256MiB"))
	c := n.Client(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var r schemas.AllocateReply
	if err := c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 20 << 20}, &r); err != nil {
		t.Fatal(err)
	}
	d, err := client.Dial(ctx, client.Config{SocketPath: r.Handle.DataSocket, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m, err := d.Map(ctx, r.Handle.Claim, client.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	m.Segments[0].Bytes[0] = 42
	if err := d.Unmap(ctx, m); err != nil {
		t.Fatal(err)
	}
	var gone schemas.DeallocateReply
	if err := c.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: r.AllocationID}, &gone); err != nil {
		t.Fatal(err)
	}
	if !gone.Confirmed {
		t.Fatalf("not confirmed: %+v", gone)
	}
}
