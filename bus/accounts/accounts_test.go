package accounts_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isobar-project/isobar/bus/accounts"
	"github.com/isobar-project/isobar/schemas"
)

const (
	hash = "$2a$04$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234"
	nkey = "UAQJ5XQ2WJ6RPLXA5KJGZQXCS6Q5SR5CXF3ZQ2F6X6FDZ7FQGYSHXXXX"
)

func config() *accounts.Config {
	return &accounts.Config{
		Nodes: []accounts.User{{Name: "node", PasswordHash: "secret", Plain: true}},
		Tenants: []accounts.Tenant{
			{Name: "blue", Users: []accounts.User{{Name: "ann", PasswordHash: hash, Role: schemas.RoleReader}, {Name: "bob", PasswordHash: hash, Role: schemas.RoleOperator}}},
			{Name: "green", Users: []accounts.User{{Name: "cid", PasswordHash: hash, Role: schemas.RoleClient}}},
		},
	}
}

// What is written a server reads, as it is meant.
func TestAServerReadsIt(t *testing.T) {
	c := config()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, jetstream := range []bool{false, true} {
		c.JetStream = jetstream
		o := &server.Options{}
		if err := o.ProcessConfigString(c.Text()); err != nil {
			t.Fatalf("%v in\n%s", err, c.Text())
		}
		in := map[string]string{}
		for _, u := range o.Users {
			in[u.Username] = u.Account.Name
		}
		if got := fmt.Sprint(in); got != "map[ann:tenant-blue bob:operators-blue cid:tenant-green node:ISOBAR]" {
			t.Error(got)
		}
	}
}

func TestWhatCannotBe(t *testing.T) {
	for want, change := range map[string]func(c *accounts.Config){
		"is taken":         func(c *accounts.Config) { c.Tenants[1].Users[0].Name = "ann" },
		"there twice":      func(c *accounts.Config) { c.Tenants[1].Name = "blue" },
		"lower-case":       func(c *accounts.Config) { c.Tenants[1].Name = "a.b" },
		"letters, digits":  func(c *accounts.Config) { c.Tenants[1].Users[0].Name = "a.>" },
		"is a bcrypt hash": func(c *accounts.Config) { c.Tenants[1].Users[0].PasswordHash = "in the clear" },
		"is the public key": func(c *accounts.Config) {
			c.Tenants[1].Users[0] = accounts.User{Name: "x", NKey: "SUSEED", Role: schemas.RoleClient}
		},
		"either":                func(c *accounts.Config) { c.Tenants[1].Users[0].NKey = nkey },
		"choose reader, client": func(c *accounts.Config) { c.Tenants[1].Users[0].Role = "king" },
	} {
		c := config()
		change(c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		} else if strings.Contains(err.Error(), "in the clear") || strings.Contains(err.Error(), "SUSEED") {
			t.Errorf("a secret is in %q", err)
		}
	}
}

// Each role may do what the one before it may, and no more than the actions say.
func TestRolesRise(t *testing.T) {
	has := func(role schemas.Role) map[string]bool {
		m := map[string]bool{}
		for _, s := range accounts.Publish(role) {
			m[s] = true
		}
		return m
	}
	reader, client := has(schemas.RoleReader), has(schemas.RoleClient)
	for s := range reader {
		if !client[s] {
			t.Errorf("a client may not %s, a reader may", s)
		}
	}
	for _, s := range schemas.All() {
		at := schemas.CommandSubject(s.Action)
		if reader[at] != (s.Role == schemas.RoleReader) || client[at] != (s.Role != schemas.RoleOperator) {
			t.Errorf("%s of role %s: reader %v, client %v", s.Action, s.Role, reader[at], client[at])
		}
	}
	if reader[schemas.AnyCommandSubject()] || client[schemas.AnyCommandSubject()] {
		t.Error("not only operators may use memory.command")
	}
}

func ExampleConfig_Text() {
	c := accounts.Config{
		Nodes:   []accounts.User{{Name: "node-1", PasswordHash: hash}},
		Tenants: []accounts.Tenant{{Name: "blue", Users: []accounts.User{{Name: "ann", NKey: nkey, Role: schemas.RoleClient}}}},
	}
	other := regexp.MustCompile(`"memory\.[b-z][a-z_]*\.\*"|"memory\.a[cn][a-z_]*\.\*"`) // each action has its lines
	for line := range strings.Lines(c.Text()) {
		if strings.Contains(line, "permissions") {
			line, _, _ = strings.Cut(line, "[")
			line += "…\n"
		}
		if !other.MatchString(line) || strings.Contains(line, "heartbeat") {
			fmt.Print(line)
		}
	}
	// Output:
	// # Accounts of Isobar's nodes and tenants. Generated: do not edit.
	// accounts {
	//   ISOBAR {
	//     users: [
	//       {user: "node-1", password: "$2a$04$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234"}
	//     ]
	//     exports: [
	//       {stream: "isobar.blue.memory.events.>", accounts: [tenant-blue]}
	//       {stream: "isobar.blue.memory.heartbeat.*", accounts: [tenant-blue]}
	//       {service: "$JS.API.STREAM.INFO.MEMORY_EVENTS_blue", response_type: "stream", accounts: [tenant-blue]}
	//       {service: "$JS.API.DIRECT.GET.MEMORY_EVENTS_blue", response_type: "stream", accounts: [tenant-blue]}
	//       {service: "$JS.API.DIRECT.GET.MEMORY_EVENTS_blue.>", response_type: "stream", accounts: [tenant-blue]}
	//     ]
	//     imports: [
	//       {stream: {account: tenant-blue, subject: "memory.*"}, to: "isobar.blue.memory.*"}
	//       {stream: {account: tenant-blue, subject: "memory.allocate.*"}, to: "isobar.blue.memory.allocate.*"}
	//       {service: {account: tenant-blue, subject: "_INBOX_ann.>"}, to: "isobar.blue.inbox._INBOX_ann.>"}
	//     ]
	//   }
	//   tenant-blue {
	//     users: [
	//       {nkey: UAQJ5XQ2WJ6RPLXA5KJGZQXCS6Q5SR5CXF3ZQ2F6X6FDZ7FQGYSHXXXX, permissions: {publish: {allow: …
	//     ]
	//     exports: [
	//       {stream: "memory.*", accounts: [ISOBAR]}
	//       {stream: "memory.allocate.*", accounts: [ISOBAR]}
	//       {service: "_INBOX_ann.>", threshold: "10s", accounts: [ISOBAR]}
	//     ]
	//     imports: [
	//       {stream: {account: ISOBAR, subject: "isobar.blue.memory.events.>"}, to: "memory.events.>"}
	//       {stream: {account: ISOBAR, subject: "isobar.blue.memory.heartbeat.*"}, to: "memory.heartbeat.*"}
	//       {service: {account: ISOBAR, subject: "$JS.API.STREAM.INFO.MEMORY_EVENTS_blue"}, to: "$JS.API.STREAM.INFO.MEMORY_EVENTS"}
	//       {service: {account: ISOBAR, subject: "$JS.API.DIRECT.GET.MEMORY_EVENTS_blue"}, to: "$JS.API.DIRECT.GET.MEMORY_EVENTS"}
	//       {service: {account: ISOBAR, subject: "$JS.API.DIRECT.GET.MEMORY_EVENTS_blue.>"}, to: "$JS.API.DIRECT.GET.MEMORY_EVENTS.>"}
	//     ]
	//   }
	// }
}
