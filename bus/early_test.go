package bus_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus"
)

// pausedLink runs a function when the service asks whether its subscriptions are taken.
type pausedLink struct {
	bus.Link
	whole func()
}

func (l *pausedLink) Flush(timeout time.Duration) error {
	if whole := l.whole; whole != nil {
		l.whole = nil
		whole()
	}
	return l.Link.Flush(timeout)
}

// TestEarlyCommandsWait: a command that comes before the service is whole is answered, but
// not before every other action is answered too.
func TestEarlyCommandsWait(t *testing.T) {
	server := startServer(t, bus.ServerConfig{})
	client := plain(t, server.URL())
	answers := make(chan *nats.Msg, 16)
	if _, err := client.ChanSubscribe("answers", answers); err != nil {
		t.Fatal(err)
	}
	subjects := []string{"memory.get_status", "memory.allocate", "memory.command"}
	link := &pausedLink{Link: localLink(t, server)}
	link.whole = func() {
		if err := link.Link.Flush(patience); err != nil { // the server has the subscriptions
			t.Error(err)
		}
		for _, s := range subjects {
			m := &nats.Msg{Subject: s, Reply: "answers", Header: nats.Header{}, Data: []byte(`{"action":"get_status","data":{"device_id":"ram-0","size_bytes":1}}`)}
			if err := client.PublishMsg(m); err != nil {
				t.Error(err)
			}
		}
		if err := client.Flush(); err != nil {
			t.Error(err)
		}
		if err := link.Link.Flush(patience); err != nil { // it has handled what came before
			t.Error(err)
		}
		if err := client.Flush(); err != nil { // and its answers are here
			t.Error(err)
		}
		if len(answers) > 0 {
			t.Errorf("%d commands were answered before the service was whole", len(answers))
		}
	}
	s, err := bus.NewService(bus.ServiceConfig{Link: link, Node: "here", Version: "1.2.3", Events: newLedger(),
		Desk: grantAll})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for range subjects {
		select {
		case m := <-answers:
			if status := m.Header.Get("Status"); status != "" {
				t.Errorf("answered by status %s", status)
			}
		case <-time.After(patience):
			t.Fatal("an early command was not answered")
		}
	}
}
