package forward_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/bus/forward"
	"github.com/isobar-project/isobar/schemas"
)

func Example() {
	b, err := bus.Open(bus.Config{Server: &bus.ServerConfig{Listen: "127.0.0.1:0"}, Node: "here", Version: "1.0.0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close(time.Second)
	// A node would answer here.
	if err := b.Serve(desk(func(c *actors.Command) {
		fmt.Println(c.Action, c.RequestID)
		c.Reply.Fail(schemas.Errorf(schemas.CodeBusy, "later"))
	})); err != nil {
		fmt.Println(err)
		return
	}

	c, err := client.Connect(client.Options{URL: b.URL(), Attempts: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	d := forward.New(context.Background(), c)
	in := strings.NewReader(`{"request_id": "r-1", "action": "get_pressure"}` + "\n")
	if err := bus.Stdio(context.Background(), in, io.Discard, bus.StdioConfig{Node: "here", Desk: d}); err != nil {
		fmt.Println(err)
	}
	d.Wait()
	// Output: get_pressure r-1
}
