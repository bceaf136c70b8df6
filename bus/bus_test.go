package bus_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/bus"
)

// closings counts, beside what records keeps, the connections that ended.
type closings struct {
	slog.Handler
	ended chan struct{}
}

func (closings) Enabled(context.Context, slog.Level) bool { return true }

func (c closings) Handle(ctx context.Context, r slog.Record) error {
	err := c.Handler.Handle(ctx, r)
	if strings.Contains(r.Message, "connection closed") {
		c.ended <- struct{}{}
	}
	return err
}

// A bus that closes its own connections has lost none of them.
func TestAStopIsNotADisconnect(t *testing.T) {
	log := &records{}
	c := closings{log.logger().Handler(), make(chan struct{}, 16)}
	b, err := bus.Open(bus.Config{
		Server: &bus.ServerConfig{Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}, Node: "here", Version: "1.2.3",
		Log: slog.New(c),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Close(patience)
	for range 3 { // commands, events, pressure
		select {
		case <-c.ended:
		case <-time.After(patience):
			t.Fatal("the connections are still open")
		}
	}
	for _, w := range b.Health() {
		if w.Code == bus.WarnDisconnected {
			t.Errorf("%+v", w)
		}
	}
	if text := log.String(); strings.Contains(text, "kind=lost") || strings.Contains(text, "level=WARN") {
		t.Errorf("logged at a clean stop:\n%s", text)
	}
}
