package tenancy

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/schemas"
)

// history is the stream of events as a user finds it.
func history(t *testing.T, ctx context.Context, c *client.Client) jetstream.Stream {
	t.Helper()
	js, err := jetstream.New(c.Conn())
	if err != nil {
		t.Fatal(err)
	}
	for {
		s, err := js.Stream(ctx, schemas.EventStream)
		if err == nil {
			return s
		}
		if ctx.Err() != nil { // the node makes it in the background
			t.Fatal(err)
		}
	}
}

// reach waits until a subject's last event is about a grant.
func reach(t *testing.T, ctx context.Context, s jetstream.Stream, subject, id string) uint64 {
	t.Helper()
	for {
		m, err := s.GetLastMsgForSubject(ctx, subject)
		if err == nil && strings.Contains(string(m.Data), id) {
			return m.Sequence
		}
		if ctx.Err() != nil {
			t.Fatalf("%s is not kept: %v", id, err)
		}
	}
}

// A tenant reads what happened to its own things, as the contract says of the stream, and
// nothing else; it can leave nothing behind there. Operators read all of it.
func TestATenantsHistory(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		green, blue, operator := w.as(t, "green-client"), w.as(t, "blue-client"), w.as(t, "blue-operator")
		streams := map[*client.Client]jetstream.Stream{}
		for _, c := range []*client.Client{green, blue, operator} {
			streams[c] = history(t, ctx, c)
		}
		grant := func(c *client.Client) string {
			var g schemas.AllocateReply
			if code := call(t, c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib}, &g); code != "" {
				t.Fatal(code)
			}
			return g.AllocationID
		}
		theirs := grant(blue)
		ours := grant(green)
		subject := schemas.AllocationSubject("test", "gpu-0")
		reach(t, ctx, streams[blue], subject, theirs)
		reach(t, ctx, streams[operator], subject, ours)
		last := reach(t, ctx, streams[green], subject, ours)
		for seq := uint64(1); seq <= last; seq++ {
			m, err := streams[green].GetMsg(ctx, seq)
			if err != nil {
				t.Fatal(err)
			}
			if text := m.Subject + string(m.Data); strings.Contains(text, theirs) || strings.Contains(text, "blue") || !strings.HasPrefix(m.Subject, "memory.events.") {
				t.Errorf("green's history tells %s", text)
			}
		}

		// Many at a time, from where one left off.
		nc := green.Conn()
		inbox := nc.NewRespInbox()
		many, err := nc.SubscribeSync(inbox)
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishRequest("$JS.API.DIRECT.GET."+schemas.EventStream, inbox, []byte(`{"seq":1,"batch":1000}`)); err != nil {
			t.Fatal(err)
		}
		for n := uint64(0); ; n++ {
			m, err := many.NextMsg(patience)
			if err != nil {
				t.Fatalf("after %d of %d: %v", n, last, err)
			}
			if m.Header.Get("Status") == "204" { // the end
				if n < last {
					t.Errorf("%d events in a batch, not %d", n, last)
				}
				break
			}
		}

		denied := make(chan error, 16)
		nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err })
		for _, api := range []string{"CONSUMER.CREATE.MEMORY_EVENTS", "CONSUMER.CREATE.MEMORY_EVENTS.x", "STREAM.PURGE.MEMORY_EVENTS", "STREAM.DELETE.MEMORY_EVENTS",
			"STREAM.UPDATE.MEMORY_EVENTS", "STREAM.MSG.DELETE.MEMORY_EVENTS", "DIRECT.GET.MEMORY_EVENTS_blue", "STREAM.INFO.MEMORY_EVENTS_blue", "STREAM.NAMES"} {
			if err := nc.Publish("$JS.API."+api, nil); err != nil {
				t.Fatal(err)
			}
			if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", api, err)
			}
		}
	})
}
