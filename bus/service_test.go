package bus_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

// grantAll answers allocate as done and everything else with an empty success.
var grantAll = desk(func(c *actors.Command) {
	if c.Action == schemas.ActionAllocate {
		c.Reply.Done(granted(), nil)
		return
	}
	c.Reply.Done(nil, nil)
})

func ask(t testing.TB, nc *nats.Conn, m *nats.Msg) *nats.Msg {
	t.Helper()
	r, err := nc.RequestMsg(m, patience)
	if err != nil {
		t.Fatalf("%s: %v", m.Subject, err)
	}
	return r
}

func TestEveryFormatAndSubject(t *testing.T) {
	var seen atomic.Pointer[actors.Command]
	n := startNode(t, desk(func(c *actors.Command) { seen.Store(c); grantAll(c) }), func(c *bus.ServiceConfig) {
		c.Tenants = map[string]string{"default": "", "blue": "isobar.blue."}
		c.Operators = map[string]string{"blue": "isobar.blue.operator."}
	})
	nc := plain(t, n.server.URL())
	payload := func(subject, contentType string) []byte {
		t.Helper()
		c := codec.Call{RequestID: "r-1", Data: map[string]any{"device_id": "ram-0", "size_bytes": 1048576, "wait_ms": 70}}
		if strings.Contains(subject, "memory.command") {
			c.Action = schemas.ActionAllocate
		}
		f := codec.JSON
		if contentType == codec.ContentTypeMsgPack {
			f = codec.MsgPack
		}
		b, err := codec.EncodeRequest(nil, f, c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, at := range []struct{ subject, tenant string }{
		{"memory.allocate", "default"}, {"memory.allocate.here", "default"}, {"memory.command", "default"}, {"memory.command.here", "default"},
		{"isobar.blue.memory.allocate", "blue"}, {"isobar.blue.memory.allocate.here", "blue"}, {"isobar.blue.operator.memory.command", "blue"},
	} {
		for _, f := range []struct {
			contentType, accept string
			out                 codec.Format
		}{
			{"", "", codec.JSON}, {"application/json", "", codec.JSON}, {"application/msgpack", "", codec.MsgPack},
			{"application/msgpack", "application/json", codec.JSON}, {"", "application/msgpack", codec.MsgPack},
		} {
			t.Run(fmt.Sprintf("%s/%s→%s", at.subject, f.contentType, f.accept), func(t *testing.T) {
				m := &nats.Msg{Subject: at.subject, Header: nats.Header{}, Data: payload(at.subject, f.contentType)}
				if f.contentType != "" {
					m.Header.Set("Content-Type", f.contentType)
				}
				if f.accept != "" {
					m.Header.Set("Accept", f.accept)
				}
				r := ask(t, nc, m)
				var got schemas.AllocateReply
				h, err := codec.DecodeReply(r.Data, f.out, &got)
				if err != nil {
					t.Fatalf("%v: %q", err, r.Data)
				}
				if h.RequestID != "r-1" || h.Node != "here" || !h.Success || h.Timestamp.IsZero() {
					t.Errorf("envelope %+v", h)
				}
				want := granted()
				if got.Handle == nil || got.Handle.Claim != want.Handle.Claim || got.AllocationID != want.AllocationID || !got.AllocatedAt.Equal(want.AllocatedAt) {
					t.Errorf("got %+v", got)
				}
				c := seen.Load()
				if c.Tenant != at.tenant || c.Action != schemas.ActionAllocate || !c.Chosen || c.Wait != 70*time.Millisecond || c.Digest == [32]byte{} {
					t.Errorf("the desk got %+v", c)
				}
				if d := c.Data.(*schemas.AllocateRequest); d.SizeBytes != 1<<20 || d.DeviceID != "ram-0" || d.Class != schemas.ClassScratch {
					t.Errorf("the desk got %+v", d)
				}
			})
		}
	}
}

func TestTheTenantComesFromTheSubjectAlone(t *testing.T) {
	var tenant atomic.Value
	n := startNode(t, desk(func(c *actors.Command) { tenant.Store(c.Tenant); c.Reply.Done(nil, nil) }), nil)
	nc := plain(t, n.server.URL())
	m := &nats.Msg{Subject: "memory.list_devices", Header: nats.Header{}}
	m.Header.Set("Nats-Request-Info", `{"acc":"blue"}`)
	m.Header.Set("Tenant", "blue")
	ask(t, nc, m)
	if got := tenant.Load(); got != "default" {
		t.Errorf("tenant %v", got)
	}
	if _, err := nc.Request("isobar.blue.memory.list_devices", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a tenant that is not configured: %v", err)
	}
}

func TestEveryActionHasItsEndpoint(t *testing.T) {
	n := startNode(t, grantAll, nil)
	nc := plain(t, n.server.URL())
	for _, spec := range schemas.All() {
		for _, name := range append([]schemas.Action{spec.Action}, spec.Aliases...) {
			r := ask(t, nc, &nats.Msg{Subject: schemas.CommandSubject(name)})
			_, err := codec.DecodeReply(r.Data, codec.JSON, nil)
			var e *schemas.Error
			if err != nil && (!errors.As(err, &e) || e.Code != schemas.CodeInvalidRequest) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestTheMicroServiceShowsItself(t *testing.T) {
	n := startNode(t, grantAll, nil)
	nc := plain(t, n.server.URL())
	r := ask(t, nc, &nats.Msg{Subject: "$SRV.INFO.memory"})
	var info micro.Info
	if err := json.Unmarshal(r.Data, &info); err != nil {
		t.Fatal(err)
	}
	if info.Name != "memory" || info.Version != "1.2.3" || info.Metadata["node"] != "here" {
		t.Errorf("info %+v", info.ServiceIdentity)
	}
	found := map[string]micro.EndpointInfo{}
	for _, e := range info.Endpoints {
		found[e.Subject] = e
	}
	for _, spec := range schemas.All() {
		e, ok := found[schemas.CommandSubject(spec.Action)]
		if _, byNode := found[schemas.NodeCommandSubject(spec.Action, "here")]; !ok || !byNode {
			t.Errorf("%s is not shown", spec.Action)
		}
		if e.QueueGroup == "" || e.Metadata["description"] != spec.Summary {
			t.Errorf("%s: %+v", spec.Action, e)
		}
	}
	if m := found["memory.allocate"].Metadata; !strings.Contains(m["request"], "size_bytes") || !strings.Contains(m["reply"], "allocation_id") || !strings.Contains(m["reply"], "status") {
		t.Errorf("metadata of allocate: %v", m)
	}
}

// Bad payloads get an error with the right code, never reach the desk, and leave the
// node as it was.
func TestBadPayloads(t *testing.T) {
	var reached atomic.Int64
	n := startNode(t, desk(func(c *actors.Command) { reached.Add(1); grantAll(c) }), nil)
	nc := plain(t, n.server.URL())
	deep := []byte(`{"data":` + strings.Repeat(`{"a":`, 10_000) + `1` + strings.Repeat(`}`, 10_000) + `}`)
	for _, c := range []struct {
		name, contentType, accept string
		payload                   []byte
		code                      schemas.Code
	}{
		{"oversized", "", "", append([]byte(`{"data":{"purpose":"`), bytes.Repeat([]byte("x"), 300<<10)...), schemas.CodePayloadTooLarge},
		{"just oversized", "", "", bytes.Repeat([]byte(" "), 256<<10+1), schemas.CodePayloadTooLarge},
		{"deep JSON", "", "", deep, schemas.CodeInvalidRequest},
		{"deep JSON arrays", "", "", bytes.Repeat([]byte("["), 200_000), schemas.CodeInvalidRequest},
		{"not JSON", "", "", []byte("size_bytes=1"), schemas.CodeInvalidRequest},
		{"msgpack array of 4 G", "application/msgpack", "", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, schemas.CodeInvalidRequest},
		{"msgpack map of 4 G", "application/msgpack", "", []byte{0xdf, 0xff, 0xff, 0xff, 0xff}, schemas.CodeInvalidRequest},
		{"msgpack map of 4 G inside data", "application/msgpack", "", append([]byte{0x81, 0xa4, 'd', 'a', 't', 'a'}, 0xdf, 0xff, 0xff, 0xff, 0xff), schemas.CodeInvalidRequest},
		{"deep msgpack", "application/msgpack", "", bytes.Repeat([]byte{0x91}, 200_000), schemas.CodeInvalidRequest},
		{"trailing msgpack", "application/msgpack", "", []byte{0x80, 0x80}, schemas.CodeInvalidRequest},
		{"JSON called msgpack", "application/msgpack", "", []byte(`{"size_bytes":1}`), schemas.CodeInvalidRequest},
		{"another media type", "text/xml", "", []byte(`<a/>`), schemas.CodeUnsupportedMediaType},
		{"another accept", "", "text/xml", []byte(`{}`), schemas.CodeUnsupportedMediaType},
		{"negative", "", "", []byte(`{"size_bytes":-1}`), schemas.CodeInvalidRequest},
		{"overflowing", "", "", []byte(`{"size_bytes":1e300}`), schemas.CodeInvalidRequest},
		{"unknown field", "", "", []byte(`{"size_bytes":1,"sise":2}`), schemas.CodeInvalidRequest},
		{"other action", "", "", []byte(`{"action":"memory.deallocate","data":{}}`), schemas.CodeInvalidRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &nats.Msg{Subject: "memory.allocate", Header: nats.Header{}, Data: c.payload}
			if c.contentType != "" {
				m.Header.Set("Content-Type", c.contentType)
			}
			if c.accept != "" {
				m.Header.Set("Accept", c.accept)
			}
			r := ask(t, nc, m)
			f := codec.JSON
			if r.Header.Get("Content-Type") == codec.ContentTypeMsgPack {
				f = codec.MsgPack
			}
			h, err := codec.DecodeReply(r.Data, f, nil)
			var e *schemas.Error
			if !errors.As(err, &e) || e.Code != c.code || e.Status != c.code.Status() || e.Message == "" {
				t.Fatalf("answered %v (%q)", err, r.Data)
			}
			if h.RequestID == "" || r.Header.Get("Nats-Service-Error-Code") != fmt.Sprint(c.code.Status()) {
				t.Errorf("request_id %q, headers %v", h.RequestID, r.Header)
			}
		})
	}
	if reached.Load() != 0 {
		t.Errorf("%d bad commands reached the desk", reached.Load())
	}
	ask(t, nc, &nats.Msg{Subject: "memory.allocate", Data: []byte(`{"size_bytes":1}`)})
	if reached.Load() != 1 {
		t.Error("the node does not go on")
	}
}

func TestAnsweringTwiceIsADefectThatDoesNoHarm(t *testing.T) {
	submitted := make(chan struct{}, 2)
	n := startNode(t, desk(func(c *actors.Command) {
		c.Reply.Done(nil, nil)
		c.Reply.Fail(schemas.Errorf(schemas.CodeBusy, "no"))
		c.Reply.Done(nil, nil)
		submitted <- struct{}{}
	}), nil)
	nc := plain(t, n.server.URL())
	sub, err := nc.SubscribeSync("answers")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("memory.list_devices", "answers", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(patience); err != nil {
		t.Fatal(err)
	}
	ask(t, nc, &nats.Msg{Subject: "memory.list_devices"}) // what was published before it has arrived by now
	if msgs, _, _ := sub.Pending(); msgs != 0 {
		t.Errorf("%d answers too many", msgs)
	}
	<-submitted
	<-submitted
	if got := strings.Count(n.log.String(), "answered twice"); got != 4 {
		t.Errorf("%d defects logged, of two commands with two each:\n%s", got, n.log)
	}
}

func TestACommandWithoutReplySubjectIsTold(t *testing.T) {
	n := startNode(t, grantAll, nil)
	nc := plain(t, n.server.URL())
	for _, c := range []struct {
		payload string
		kind    schemas.EventKind
		code    schemas.Code
	}{
		{`{"request_id":"quiet","data":{"size_bytes":4096}}`, schemas.EventCompleted, ""},
		{`{"request_id":"quiet","data":{"size_bytes":-4096}}`, schemas.EventFailed, schemas.CodeInvalidRequest},
	} {
		if err := nc.Publish("memory.allocate", []byte(c.payload)); err != nil {
			t.Fatal(err)
		}
		e := n.events.next(t)
		d := e.Data.(*schemas.CommandEvent)
		if e.Subject != "memory.events.command.here" || e.Event != c.kind || d.RequestID != "quiet" || d.Action != schemas.ActionAllocate || d.ErrorCode != c.code || d.Tenant != "default" {
			t.Errorf("event %+v, data %+v", e, d)
		}
		if c.code != "" {
			continue
		}
		text := codec.Append(nil, codec.JSON, d)
		if !bytes.Contains(text, []byte(granted().AllocationID)) || bytes.Contains(text, []byte(granted().Handle.Claim)) {
			t.Errorf("the event must have the id and not the claim: %s", text)
		}
	}
}

// No reply type of the contract can carry a claim into an event.
func TestNoClaimInAnyCommandEvent(t *testing.T) {
	for _, spec := range schemas.All() {
		t.Run(string(spec.Action), func(t *testing.T) {
			reply := spec.NewReply()
			if fill(reflect.ValueOf(reply)) == 0 {
				return
			}
			n := startNode(t, desk(func(c *actors.Command) { c.Reply.Done(reply, nil) }), nil)
			nc := plain(t, n.server.URL())
			if err := nc.Publish("memory.list_devices", nil); err != nil {
				t.Fatal(err)
			}
			if text := codec.Append(nil, codec.JSON, n.events.next(t).Data); bytes.Contains(text, []byte("the-claim")) {
				t.Errorf("%s", text)
			}
		})
	}
}

// fill puts a claim wherever one fits and returns how many.
func fill(v reflect.Value) int {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return fill(v.Elem())
	case reflect.Interface:
		if !v.CanSet() {
			return 0
		}
		v.Set(reflect.ValueOf(&schemas.Handle{Claim: "the-claim"}))
		return 1
	case reflect.Struct:
		if h, ok := v.Addr().Interface().(*schemas.Handle); ok {
			h.Claim = "the-claim"
			return 1
		}
		n := 0
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Field(i).CanSet() && v.Type() != reflect.TypeFor[time.Time]() {
				n += fill(v.Field(i))
			}
		}
		return n
	}
	return 0
}

// A requester that is gone before the answer gets its grant undone, once.
func TestAnUnheardGrantIsUndone(t *testing.T) {
	hold := make(chan *actors.Command, 1)
	n := startNode(t, desk(func(c *actors.Command) { hold <- c }), nil)
	leave := map[string]func(*nats.Conn, *nats.Subscription) error{
		"inbox closed":      func(_ *nats.Conn, s *nats.Subscription) error { return s.Unsubscribe() },
		"connection closed": func(nc *nats.Conn, _ *nats.Subscription) error { nc.Close(); return nil },
		"stays":             func(*nats.Conn, *nats.Subscription) error { return nil },
	}
	for name, away := range leave {
		t.Run(name, func(t *testing.T) {
			nc := plain(t, n.server.URL())
			sub, err := nc.SubscribeSync(nats.NewInbox())
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.PublishRequest("memory.allocate", sub.Subject, []byte(`{"size_bytes":4096}`)); err != nil {
				t.Fatal(err)
			}
			c := <-hold
			if err := away(nc, sub); err != nil {
				t.Fatal(err)
			}
			if nc.IsClosed() {
				// The server sees the end of the connection a moment later.
				waitGone(t, n, sub.Subject)
			} else if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			undone := make(chan struct{}, 2)
			c.Reply.Done(granted(), func() { undone <- struct{}{} })
			if name == "stays" {
				if _, err := sub.NextMsg(patience); err != nil {
					t.Fatal(err)
				}
				roundTrip(t, n)
				if len(undone) != 0 {
					t.Error("a heard grant was undone")
				}
				return
			}
			select {
			case <-undone:
			case <-time.After(patience):
				t.Fatal("not undone")
			}
			roundTrip(t, n)
			if len(undone) != 0 {
				t.Error("undone twice")
			}
		})
	}
}

// waitGone asks the server until nobody listens on the subject.
func waitGone(t *testing.T, n *node, subject string) {
	t.Helper()
	nc := plain(t, n.server.URL())
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := nc.Request(subject, nil, time.Millisecond); errors.Is(err, nats.ErrNoResponders) {
			return
		}
	}
	t.Fatal("the server still knows the inbox")
}

// roundTrip returns when the service has handled everything the server had for it.
func roundTrip(t *testing.T, n *node) {
	t.Helper()
	nc := plain(t, n.server.URL())
	ask(t, nc, &nats.Msg{Subject: "$SRV.PING.memory"})
}

func TestAnAnswerTooLargeIsAnErrorAndUndone(t *testing.T) {
	undone := make(chan struct{})
	n := startNode(t, desk(func(c *actors.Command) {
		big := granted()
		big.Message = strings.Repeat("x", 400<<10)
		c.Reply.Done(big, func() { close(undone) })
	}), nil)
	r := ask(t, plain(t, n.server.URL()), &nats.Msg{Subject: "memory.allocate", Data: []byte(`{"size_bytes":1}`)})
	if _, err := codec.DecodeReply(r.Data, codec.JSON, nil); !errors.Is(err, schemas.Errorf(schemas.CodePayloadTooLarge, "")) {
		t.Errorf("answered %v", err)
	}
	select {
	case <-undone:
	case <-time.After(patience):
		t.Error("not undone")
	}
}

func TestObserveSeesEveryOutcome(t *testing.T) {
	outcomes := make(chan bus.Outcome, 8)
	n := startNode(t, grantAll, func(c *bus.ServiceConfig) { c.Observe = func(o bus.Outcome) { outcomes <- o } })
	nc := plain(t, n.server.URL())
	ask(t, nc, &nats.Msg{Subject: "memory.allocate", Data: []byte(`{"request_id":"a","data":{"size_bytes":1}}`)})
	if o := <-outcomes; o.Code != "" || o.Command.RequestID != "a" || !o.Answered || o.Took <= 0 {
		t.Errorf("%+v", o)
	}
	ask(t, nc, &nats.Msg{Subject: "memory.allocate", Data: []byte(`{"request_id":"b","data":{}}`)})
	if o := <-outcomes; o.Code != schemas.CodeInvalidRequest || o.Command.RequestID != "b" {
		t.Errorf("%+v", o)
	}
}

func TestServiceConfigIsChecked(t *testing.T) {
	s := startServer(t, bus.ServerConfig{})
	nc := dial(t, conn.Config{InProcess: s})
	for name, change := range map[string]func(*bus.ServiceConfig){
		"node name":    func(c *bus.ServiceConfig) { c.Node = "A.b" },
		"no desk":      func(c *bus.ServiceConfig) { c.Desk = nil },
		"tenant name":  func(c *bus.ServiceConfig) { c.Tenants = map[string]string{"a.b": ""} },
		"prefix":       func(c *bus.ServiceConfig) { c.Tenants = map[string]string{"a": "isobar.*."} },
		"same prefix":  func(c *bus.ServiceConfig) { c.Tenants = map[string]string{"a": "x.", "b": "x."} },
		"prefix's end": func(c *bus.ServiceConfig) { c.Tenants = map[string]string{"a": "x"} },
		"version":      func(c *bus.ServiceConfig) { c.Version = "new" },
	} {
		c := bus.ServiceConfig{Link: bus.LinkOf(nc), Node: "here", Version: "1.0.0", Desk: grantAll, Events: newLedger()}
		change(&c)
		if _, err := bus.NewService(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
