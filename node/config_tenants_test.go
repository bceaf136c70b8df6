package node

import (
	"strings"
	"testing"

	"github.com/isobar-project/isobar/schemas"
)

const testHash = "$2a$04$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234"

const tenantsFile = `
tenants:
  - name: blue
    users:
      - {name: ann, role: client, password_hash: "` + testHash + `"}
      - {name: bob, role: operator, password_hash: "` + testHash + `"}
    uids: [1001]
    quotas:
      - {device: gpu-0, floor: 1GiB, hard: 4294967296, weight: 2}
  - name: green
`

// The file has tenants as people write them.
func TestTenantsInAFile(t *testing.T) {
	m := newMachine()
	m.files["/c.yaml"] = tenantsFile
	c, err := Load(&m.World, everything, Given{File: "/c.yaml", Flags: map[string][]string{"listen": {"0.0.0.0:4222"}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Tenants) != 2 || c.Tenants[0].Users[1].Role != schemas.RoleOperator {
		t.Fatalf("read %+v", c.Tenants)
	}
	tenants, operators := c.prefixes()
	if tenants["blue"] != "isobar.blue." || tenants["default"] != "" || operators["blue"] != "isobar.blue.operator." || operators["green"] != "" {
		t.Errorf("prefixes %v, %v", tenants, operators)
	}
	q := c.quotasOf("gpu-0")
	if len(q) != 1 || *q[0].Floor != 1<<30 || *q[0].Hard != 4<<30 || *q[0].Soft != 0 || *q[0].Weight != 2 || len(c.quotasOf("ram-0")) != 0 {
		t.Errorf("quotas %+v", q)
	}
	of := c.tenantOf()
	if who, ok := of(1001); !ok || who != "blue" {
		t.Errorf("user 1001 is %q", who)
	}
	if who, ok := of(1002); ok {
		t.Errorf("user 1002 is %q", who)
	}
	if uid, ok := c.uidOf()("blue"); !ok || uid != 1001 {
		t.Errorf("blue is user %d", uid)
	}
}

func TestTenantsThatCannotBe(t *testing.T) {
	for want, text := range map[string]string{
		"unknown field":       "tenants: [{name: a, colour: red}]",
		"is not a size":       "tenants: [{name: a, quotas: [{device: gpu-0, hard: much}]}]",
		"a quota is on":       "tenants: [{name: a, quotas: [{hard: 1GiB}]}]",
		"lower-case":          "tenants: [{name: A.B}]",
		"either":              "tenants: [{name: a, users: [{name: x, role: client}]}]",
		"is in a and in b":    "tenants: [{name: a, uids: [7]}, {name: b, uids: [7]}]",
		"reader, client or o": "tenants: [{name: a, users: [{name: x, role: king, password_hash: \"" + testHash + "\"}]}]",
	} {
		m := newMachine()
		m.files["/c.yaml"] = text
		_, err := Load(&m.World, everything, Given{File: "/c.yaml"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The generated accounts need the nodes' user, and have its password as a hash only.
func TestAccountsForAnotherServer(t *testing.T) {
	m := newMachine("ISOBAR_NATS_PASSWORD=hunter2", "ISOBAR_NATS_USERNAME=node-1")
	m.files["/c.yaml"] = tenantsFile
	c, err := Load(&m.World, everything, Given{File: "/c.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.NATSConfig()
	if err != nil || strings.Contains(text, "hunter2") || !strings.Contains(text, `user: "node-1"`) {
		t.Errorf("%v: %s", err, text)
	}
	c.NATSUsername = ""
	if _, err := c.NATSConfig(); err == nil || !strings.Contains(err.Error(), "nats_username") {
		t.Errorf("without a user for nodes: %v", err)
	}
	c.Tenants = nil
	if _, err := c.NATSConfig(); err == nil || !strings.Contains(err.Error(), "no tenants") {
		t.Errorf("without tenants: %v", err)
	}
}
