// Command go asks a node for memory over NATS, maps it over the data socket, writes
// into it and gives it back.
//
//	go run ./examples/go            # needs a node: make run
//	go run ./examples/go -mib 256 -nats nats://127.0.0.1:4222
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	bus "github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

func main() {
	url := flag.String("nats", bus.DefaultURL, "the node's NATS `URL`")
	device := flag.String("device", "", "the `device_id`; may be left out where there is one device")
	mib := flag.Int64("mib", 64, "how many MiB to ask for")
	flag.Parse()
	if err := run(*url, *device, *mib<<20); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url, device string, bytes int64) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, err := bus.Connect(bus.Options{URL: url})
	if err != nil {
		return err
	}
	defer node.Close()

	// Short of memory the command waits in line; Do follows it.
	var grant schemas.AllocateReply
	ask := schemas.AllocateRequest{DeviceID: device, SizeBytes: bytes, Purpose: "example"}
	err = node.Do(ctx, schemas.ActionAllocate, &ask, &grant, func(o schemas.Operation) {
		fmt.Println("waiting:", o.Reason)
	})
	var refused *schemas.Error
	if errors.As(err, &refused) && refused.Code == schemas.CodeOutOfMemory {
		return fmt.Errorf("%w: %v bytes are missing", err, refused.Details["shortfall_bytes"])
	}
	if err != nil {
		return err
	}
	fmt.Printf("granted %d bytes of %s as %s\n", grant.Allocation.GrantedBytes, grant.DeviceID, grant.AllocationID)

	// The data socket is the session: the grant lives as long as it does.
	session, err := data.Dial(ctx, data.Config{SocketPath: grant.Handle.DataSocket, Name: "example"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	m, err := session.Map(ctx, grant.Handle.Claim, data.ReadWrite)
	if err != nil {
		return err
	}
	var n int
	for _, s := range m.Segments {
		for i := range s.Bytes {
			s.Bytes[i] = byte(n)
			n++
		}
	}
	fmt.Printf("wrote %d bytes in place, in %d segment(s)\n", n, len(m.Segments))

	if err := session.Unmap(ctx, m); err != nil {
		return err
	}
	var freed schemas.DeallocateReply
	if err := node.Do(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: grant.AllocationID}, &freed, nil); err != nil {
		return err
	}
	fmt.Printf("freed %d bytes, confirmed: %v\n", freed.FreedBytes, freed.Confirmed)
	return nil
}
