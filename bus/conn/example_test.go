package conn_test

import (
	"errors"
	"fmt"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/conn"
)

func ExampleDial() {
	s, err := bus.StartServer(bus.ServerConfig{Listen: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	closed := make(chan conn.Event, 16)
	nc, err := conn.Dial(conn.Config{URL: s.URL(), Name: "example", Notify: func(e conn.Event) { closed <- e }})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(nc.IsConnected())
	nc.Close()
	fmt.Println((<-closed).Kind)
	s.Close()

	// The first attempt must succeed, and says what to do where it does not.
	_, err = conn.Dial(conn.Config{URL: s.URL()})
	var failed *conn.ConnectError
	if errors.As(err, &failed) {
		fmt.Println(failed.Fix)
	}
	// Output:
	// true
	// closed
	// no server answers there: start one (`isobar run` brings its own), or correct its URL
}
