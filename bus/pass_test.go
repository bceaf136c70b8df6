package bus_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// several are services on one server, each with a desk that knows the ids beginning with
// the node's own letter.
type several struct {
	t      *testing.T
	server *bus.Server
	clock  *clock.Manual
	nc     *nats.Conn
	asked  chan string
	all    map[string]*bus.Service
}

func startSeveral(t *testing.T, names ...string) *several {
	t.Helper()
	s := &several{t: t, server: startServer(t, bus.ServerConfig{}), clock: clock.NewManual(1e9, time.Unix(0, 0)), asked: make(chan string, 1000), all: map[string]*bus.Service{}}
	s.nc = plain(t, s.server.URL())
	for _, n := range names {
		s.start(n, nil)
	}
	s.meet(names...)
	return s
}

func (s *several) start(name string, twin func(string)) *bus.Service {
	s.t.Helper()
	service, err := bus.NewService(bus.ServiceConfig{
		Link: localLink(s.t, s.server), Node: name, Version: "1.2.3", Events: newLedger(), Clock: s.clock, Twin: twin,
		Tenants: map[string]string{"default": "", "blue": "isobar.blue."},
		Desk:    desk(func(c *actors.Command) { s.desk(name, c) }),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(service.Close)
	s.all[name] = service
	return service
}

func (s *several) desk(name string, c *actors.Command) {
	s.asked <- name + " " + c.Tenant + " " + string(c.Action)
	r, ok := c.Data.(*schemas.DeallocateRequest)
	switch {
	case !ok:
		c.Reply.Done(nil, nil)
	case strings.HasPrefix(r.AllocationID, name[:1]):
		c.Reply.Done(&schemas.DeallocateReply{Finished: schemas.Done(), Success: true}, nil)
	default:
		c.Reply.Fail(schemas.Errorf(schemas.CodeAllocationNotFound, "no allocation %s on %s", r.AllocationID, name))
	}
}

// meet waits until each node knows all others.
func (s *several) meet(names ...string) {
	s.t.Helper()
	slices.Sort(names)
	want := fmt.Sprint(names)
	for _, n := range names {
		end := time.Now().Add(patience)
		for fmt.Sprint(s.ask("memory.deallocate."+n, `{"allocation_id":"nobody.1"}`).Details["nodes"]) != want {
			if time.Now().After(end) {
				s.t.Fatalf("%s does not know all others", n)
			}
		}
	}
	s.drain()
}

func (s *several) drain() {
	for len(s.asked) > 0 {
		<-s.asked
	}
}

type said struct {
	Success bool           `json:"success"`
	Node    string         `json:"node"`
	Code    string         `json:"error_code"`
	Message string         `json:"error_message"`
	Details map[string]any `json:"details"`
}

func (s *several) ask(subject, data string) said {
	s.t.Helper()
	m := ask(s.t, s.nc, &nats.Msg{Subject: subject, Data: []byte(data)})
	var a said
	if err := json.Unmarshal(m.Data, &a); err != nil {
		s.t.Fatal(err)
	}
	return a
}

func TestANamedNodeIsAsked(t *testing.T) {
	s := startSeveral(t, "alpha", "beta")
	for _, tc := range []struct{ subject, data, node string }{
		{"memory.deallocate", `{"allocation_id":"beta.b1"}`, "beta"},
		{"memory.deallocate.alpha", `{"allocation_id":"beta.b1"}`, "beta"},
		{"memory.deallocate.beta", `{"allocation_id":"beta.b1"}`, "beta"},
		{"memory.command", `{"action":"memory.deallocate","data":{"allocation_id":"alpha.a1"}}`, "alpha"},
		{"memory.allocate", `{"device_id":"beta/gpu-0","size_bytes":1}`, "beta"},
		{"memory.get_status", `{"device_id":"alpha/gpu-0"}`, "alpha"},
		{"isobar.blue.memory.allocate", `{"device_id":"beta/gpu-0","size_bytes":1}`, "beta"},
		{"memory.allocate.beta", `{"size_bytes":1}`, "beta"},
	} {
		for range 4 { // whichever of the two the server picks
			a := s.ask(tc.subject, tc.data)
			if !a.Success || a.Node != tc.node {
				t.Errorf("%s %s: %+v", tc.subject, tc.data, a)
			}
			tenant := "default"
			if strings.HasPrefix(tc.subject, "isobar.") {
				tenant = "blue"
			}
			if got := <-s.asked; !strings.HasPrefix(got, tc.node+" "+tenant+" ") {
				t.Errorf("%s: %s was asked", tc.subject, got)
			}
		}
	}
	a := s.ask("memory.allocate", `{"device_id":"gamma/gpu-0","size_bytes":1}`)
	if a.Code != "NO_NODE" || !strings.Contains(a.Message, "gamma") || fmt.Sprint(a.Details["nodes"]) != "[alpha beta]" {
		t.Errorf("%+v", a)
	}
	a = s.ask("memory.renew", `{"allocation_ids":["alpha.a","beta.b"],"lease_seconds":5}`)
	if a.Code != "INVALID_REQUEST" || a.Details["field"] != "allocation_ids" {
		t.Errorf("%+v", a)
	}
}

func TestABareIdIsLookedUp(t *testing.T) {
	s := startSeveral(t, "alpha", "beta", "gamma")
	for _, subject := range []string{"memory.deallocate", "memory.deallocate.alpha", "isobar.blue.memory.deallocate"} {
		for range 6 {
			if a := s.ask(subject, `{"allocation_id":"b1"}`); !a.Success || a.Node != "beta" {
				t.Errorf("%s: %+v", subject, a)
			}
		}
	}
	s.drain()
	if a := s.ask("memory.deallocate", `{"allocation_id":"x"}`); a.Code != "ALLOCATION_NOT_FOUND" {
		t.Errorf("%+v", a)
	}
	var asked []string
	for len(s.asked) > 0 {
		asked = append(asked, <-s.asked)
	}
	slices.Sort(asked)
	if fmt.Sprint(asked) != "[alpha default deallocate beta default deallocate gamma default deallocate]" {
		t.Errorf("asked %v", asked) // each once
	}
	// What a client writes into the header sends its own command round, once.
	m := ask(t, s.nc, &nats.Msg{Subject: "memory.deallocate.alpha", Data: []byte(`{"allocation_id":"x"}`),
		Header: nats.Header{"Isobar-Passed": []string{"beta,beta,../x,alpha,nobody,beta"}}})
	if !strings.Contains(string(m.Data), "ALLOCATION_NOT_FOUND") {
		t.Errorf("%s", m.Data)
	}
}

func TestANodeHasToBeNamed(t *testing.T) {
	s := startSeveral(t, "alpha", "beta")
	for subject, data := range map[string]string{
		"memory.allocate":     `{"size_bytes":1}`,
		"memory.load_model":   `{"name":"m"}`,
		"memory.get_status":   `{"device_id":"gpu-0"}`,
		"memory.set_limits":   `{"device_id":"gpu-0","limit_bytes":1}`,
		"memory.unload_model": `{"name":"*"}`,
	} {
		a := s.ask(subject, data)
		if a.Code != "NODE_REQUIRED" || fmt.Sprint(a.Details["nodes"]) != "[alpha beta]" {
			t.Errorf("%s: %+v", subject, a)
		}
	}
	for _, subject := range []string{"memory.get_status", "memory.list_devices", "memory.get_pressure"} {
		if a := s.ask(subject, `{}`); !a.Success {
			t.Errorf("%s: %+v", subject, a)
		}
	}
	// With one of them gone there is nothing to choose.
	s.all["beta"].Close()
	if a := s.until("memory.allocate", `{"size_bytes":1}`, func(a said) bool { return a.Success }); a.Node != "alpha" {
		t.Errorf("%+v", a)
	}
	if a := s.ask("memory.deallocate", `{"allocation_id":"beta.b1"}`); a.Code != "NO_NODE" {
		t.Errorf("%+v", a)
	}
}

func (s *several) until(subject, data string, holds func(said) bool) said {
	s.t.Helper()
	for end := time.Now().Add(patience); ; {
		a := s.ask(subject, data)
		if holds(a) || time.Now().After(end) {
			return a
		}
	}
}

// A node that is gone without a word is missed after a while, and at once by who asks it.
func TestASilentNodeIsForgotten(t *testing.T) {
	s := startSeveral(t, "alpha")
	say := func(word string) {
		t.Helper()
		if err := s.nc.Publish("_ISOBAR.nodes", fmt.Appendf(nil, `{"node":"ghost","boot_id":"b","word":%q}`, word)); err != nil {
			t.Fatal(err)
		}
	}
	say("hello")
	if a := s.until("memory.allocate", `{"size_bytes":1}`, func(a said) bool { return !a.Success }); a.Code != "NODE_REQUIRED" {
		t.Fatalf("%+v", a)
	}
	if a := s.ask("memory.deallocate", `{"allocation_id":"g1"}`); a.Code != "ALLOCATION_NOT_FOUND" {
		t.Fatalf("%+v", a)
	}
	for range 4 {
		s.clock.Advance(bus.HeartbeatPeriod)
	}
	if a := s.until("memory.allocate", `{"size_bytes":1}`, func(a said) bool { return a.Success }); !a.Success {
		t.Fatalf("%+v", a)
	}
	// Words that are none are not heard.
	for _, b := range []string{"", "null", `{"node":"A.b","word":"here"}`, strings.Repeat("x", 2000)} {
		if err := s.nc.Publish("_ISOBAR.nodes", []byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	say("who")
	if a := s.ask("memory.allocate", `{"size_bytes":1}`); !a.Success {
		t.Fatalf("%+v", a)
	}
}

func TestTwoNodesOfOneName(t *testing.T) {
	s := startSeveral(t, "alpha")
	heard := make(chan string, 10)
	s.start("alpha", func(boot string) { heard <- boot })
	select {
	case boot := <-heard:
		if boot == "" {
			t.Error("a twin without a boot id")
		}
	case <-time.After(patience):
		t.Fatal("the twin was not noticed")
	}
}
