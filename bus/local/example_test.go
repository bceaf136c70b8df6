package local_test

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/local"
)

func ExampleDial() {
	s, err := bus.StartServer(bus.ServerConfig{Listen: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	l, err := local.Dial(local.Config{Server: s, Name: "example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	got := make(chan string)
	if _, err := l.Subscribe("greetings", "", func(m *nats.Msg) { got <- string(m.Data) }); err != nil {
		fmt.Println(err)
		return
	}
	if err := l.Flush(time.Second); err != nil {
		fmt.Println(err)
		return
	}
	if err := l.Publish("greetings", "", nil, []byte("hello")); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(<-got)
	// Output: hello
}
