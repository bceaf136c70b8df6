package bus_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/schemas"
)

// narrow is a link to a server that takes less at once than ours.
type narrow struct {
	bus.Link
	max int
}

func (n narrow) Publish(subject, reply string, header nats.Header, payload []byte) error {
	if len(payload) > n.max {
		return nats.ErrMaxPayload
	}
	return n.Link.Publish(subject, reply, header, payload)
}

// infoOf asks for INFO, and gives the endpoints by their subjects.
func infoOf(t *testing.T, n *node) (found map[string]micro.EndpointInfo, size int) {
	t.Helper()
	r := ask(t, plain(t, n.server.URL()), &nats.Msg{Subject: "$SRV.INFO.memory"})
	var info micro.Info
	if err := json.Unmarshal(r.Data, &info); err != nil {
		t.Fatal(err)
	}
	found = map[string]micro.EndpointInfo{}
	for _, e := range info.Endpoints {
		found[e.Subject] = e
	}
	return found, len(r.Data)
}

func TestInfoShowsTheSchemas(t *testing.T) {
	found, size := infoOf(t, startNode(t, grantAll, nil))
	if size > 256<<10 {
		t.Errorf("INFO has %d bytes: too near to what the server takes at once", size)
	}
	for _, spec := range schemas.All() {
		m := found[schemas.CommandSubject(spec.Action)].Metadata
		for _, part := range []string{"request", "reply"} {
			doc, err := validator.UnmarshalJSON(strings.NewReader(m[part]))
			if err != nil {
				t.Fatalf("%s: %s: %v", spec.Action, part, err)
			}
			c := validator.NewCompiler()
			id := m["schema"] + "." + part
			if err := c.AddResource(id, doc); err != nil {
				t.Fatal(err)
			}
			s, err := c.Compile(id)
			if err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			if s.ID != id+"#" && s.ID != id {
				t.Errorf("the schema of %s calls itself %s", id, s.ID)
			}
		}
		if m := found[schemas.NodeCommandSubject(spec.Action, "here")].Metadata; m["schema"] == "" || m["request"] != "" {
			t.Errorf("%s of one node: %v", spec.Action, m)
		}
	}
}

func TestInfoOfManyTenantsFits(t *testing.T) {
	tenants := map[string]string{"default": ""}
	for _, name := range []string{"blue", "green", "red", "white", "black", "grey", "pink", "teal", "cyan"} {
		tenants[name] = schemas.TenantSubject(name, "")
	}
	found, size := infoOf(t, startNode(t, grantAll, func(c *bus.ServiceConfig) { c.Tenants = tenants }))
	if want := len(tenants) * 2 * (len(schemas.All()) + 2); len(found) != want {
		t.Errorf("%d endpoints in %d bytes, not %d", len(found), size, want)
	}
}

// A server that takes little at once gets what it takes.
func TestInfoOnANarrowServer(t *testing.T) {
	for max, want := range map[int][]string{100 << 10: {"description", "schema"}, 12 << 10: nil} {
		found, size := infoOf(t, startNode(t, grantAll, func(c *bus.ServiceConfig) { c.Link = narrow{c.Link, max} }))
		m := found["memory.allocate"].Metadata
		if size > max || len(found) == 0 || m["request"] != "" || len(want) == 0 && len(m) > 0 {
			t.Errorf("at most %d bytes: %d bytes, %d endpoints, metadata %v", max, size, len(found), m)
		}
		for _, key := range want {
			if m[key] == "" {
				t.Errorf("at most %d bytes: no %s in %v", max, key, m)
			}
		}
	}
}
