package bus_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// oneDevice stands for the actors: it answers every command at once.
type oneDevice struct{}

func (oneDevice) Submit(c *actors.Command) {
	switch c.Action {
	case schemas.ActionListDevices:
		c.Reply.Done(&schemas.ListDevicesReply{Devices: []schemas.Device{{DeviceID: "ram-0", Type: schemas.DeviceTypeRAM}}}, nil)
	default:
		c.Reply.Fail(schemas.Errorf(schemas.CodeInvalidDevice, "there is no such device"))
	}
}

func ExampleOpen() {
	b, err := bus.Open(bus.Config{Server: &bus.ServerConfig{Listen: "127.0.0.1:0"}, Node: "here", Version: "1.0.0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close(time.Second)
	if err := b.Serve(oneDevice{}); err != nil {
		fmt.Println(err)
		return
	}

	c, err := client.Connect(client.Options{URL: b.URL()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	var devices schemas.ListDevicesReply
	err = c.Call(context.Background(), schemas.ActionListDevices, nil, &devices)
	fmt.Println(devices.Devices[0].DeviceID, err)
	err = c.Call(context.Background(), schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-7", SizeBytes: 4096}, nil)
	fmt.Println(err)
	// Output:
	// ram-0 <nil>
	// INVALID_DEVICE: there is no such device
}

func ExampleStdio() {
	in := strings.NewReader(`{"request_id": "1", "action": "memory.make_coffee"}` + "\n")
	at := fixedClock{}
	if err := bus.Stdio(context.Background(), in, os.Stdout, bus.StdioConfig{Node: "here", Desk: oneDevice{}, Clock: at}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// {"success":false,"request_id":"1","timestamp":"2026-01-02T03:04:05Z","node":"here","error_code":"UNKNOWN_ACTION","error_message":"there is no action \"make_coffee\"","status_code":404,"details":{"action":"make_coffee"}}
}

// fixedClock stands still.
type fixedClock struct{ clock.Clock }

func (fixedClock) Now() clock.Instant { return 0 }
func (fixedClock) Wall() time.Time    { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func (c fixedClock) Both() (clock.Instant, time.Time) { return c.Now(), c.Wall() }
