package client_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/schemas"
)

func ExampleClient_Do() {
	b, err := bus.Open(bus.Config{Server: &bus.ServerConfig{Listen: "127.0.0.1:0"}, Node: "here", Version: "1.0.0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close(time.Second)
	// A node would grant memory here.
	if err := b.Serve(desk(func(c *actors.Command) {
		c.Reply.Fail(schemas.Errorf(schemas.CodeOutOfMemory, "no room for 64 GiB").With("shortfall_bytes", int64(3<<30)))
	})); err != nil {
		fmt.Println(err)
		return
	}

	c, err := client.Connect(client.Options{URL: b.URL()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var grant schemas.AllocateReply
	err = c.Do(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 64 << 30}, &grant, nil)
	var refused *schemas.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Code, refused.Details["shortfall_bytes"])
	}
	// Output: OUT_OF_MEMORY 3221225472
}
