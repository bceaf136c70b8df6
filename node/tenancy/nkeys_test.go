package tenancy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/accounts"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// key is a pair of keys as somebody has them: the public one, and a file of the seed.
type key struct {
	pair               nkeys.KeyPair
	public, seed, file string
}

func newKey(t *testing.T, make func() (nkeys.KeyPair, error)) key {
	t.Helper()
	pair, err := make()
	if err != nil {
		t.Fatal(err)
	}
	k := key{pair: pair, file: filepath.Join(t.TempDir(), "seed")}
	if k.public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	k.seed = string(seed)
	if err := os.WriteFile(k.file, append(seed, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

// keyed are the tenants of the test, with a user that has an nkey.
func keyed(public string) []node.TenantSpec {
	ts := tenants()
	ts[0].Users = append(ts[0].Users, node.UserSpec{Name: "blue-keyed", Role: schemas.RoleClient, NKey: public})
	return ts
}

// A tenant's user may have an nkey instead of a password, on either server; the role is as
// with a password. Another's key, and a password in place of the key, open nothing.
func TestNKeys(t *testing.T) {
	mine, other := newKey(t, nkeys.CreateUser), newKey(t, nkeys.CreateUser)
	for _, where := range []string{"embedded", "external"} {
		t.Run(where, func(t *testing.T) {
			log := &logged{}
			options := []nodetest.Option{recorded(log), nodetest.Set(func(c *node.Config) { c.Tenants = keyed(mine.public) })}
			at := ""
			if where == "external" {
				at = externalOf(t, keyed(mine.public), "")
				options = append(options, nodetest.Set(func(c *node.Config) {
					c.NATSURL, c.NATSUsername, c.NATSPassword = at, "node-1", nodeSecret
				}))
			}
			n := nodetest.Start(t, options...)
			o := client.Options{URL: n.Info().URL, NKeyFile: mine.file, InboxPrefix: accounts.InboxPrefix("blue-keyed"), Attempts: 1}
			c, err := client.Connect(o)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var g schemas.AllocateReply
			if code := call(t, c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib}, &g); code != "" || g.Allocation.Owner.Tenant != "blue" {
				t.Errorf("%q, granted to %+v", code, g.Allocation.Owner)
			}
			if code := call(t, c, schemas.ActionSetLimits, map[string]any{}, nil); code != schemas.CodeForbidden {
				t.Errorf("a client sets limits: %q", code)
			}
			for why, o := range map[string]client.Options{"another key": {NKeyFile: other.file}, "a password": {Username: "blue-keyed", Password: secret}, "the key as a name": {Username: mine.public, Password: mine.public}} {
				o.URL = n.Info().URL
				refused(t, why, "credentials", o)
			}
			mustNotLog(t, log, mine.seed, other.seed, secret, nodeSecret, g.Handle.Claim)
		})
	}
}

// refused wants an error of the connection whose fix speaks of what is wrong.
func refused(t *testing.T, why, about string, o client.Options) {
	t.Helper()
	c, err := client.Connect(o)
	if err == nil {
		c.Close()
		t.Errorf("%s: let in", why)
		return
	}
	var e *conn.ConnectError
	if !errors.As(err, &e) || !strings.Contains(e.Fix, about) {
		t.Errorf("%s: %v", why, err)
	}
}

// A node shows an nkey of its own to a server that knows it by one.
func TestTheNodesOwnNKey(t *testing.T) {
	mine, other := newKey(t, nkeys.CreateUser), newKey(t, nkeys.CreateUser)
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(fmt.Sprintf("authorization { users: [ { nkey: %s } ] }\n", mine.public)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bus.StartServer(bus.ServerConfig{Listen: "127.0.0.1:0", ConfigFile: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	mustServeWith(t, s.URL(), mine.seed, func(c *node.Config) { c.NATSNKey = mine.file }, client.Options{NKeyFile: mine.file})
	mustNotStart(t, s.URL(), func(c *node.Config) { c.NATSNKey = other.file })
}

// A server in operator mode: the node and its clients show .creds files.
func TestCredentialsFiles(t *testing.T) {
	operator, account, user := newKey(t, nkeys.CreateOperator), newKey(t, nkeys.CreateAccount), newKey(t, nkeys.CreateUser)
	sign := func(c interface {
		Encode(nkeys.KeyPair) (string, error)
	}, by key) string {
		t.Helper()
		s, err := c.Encode(by.pair)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	text := fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: {\n  %s: %s\n}\n",
		sign(jwt.NewOperatorClaims(operator.public), operator), account.public, sign(jwt.NewAccountClaims(account.public), operator))
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	creds := func(name string, u, of key) string {
		t.Helper()
		b, err := jwt.FormatUserConfig(sign(jwt.NewUserClaims(u.public), of), []byte(u.seed))
		if err != nil {
			t.Fatal(err)
		}
		return write(name, b)
	}
	s, err := bus.StartServer(bus.ServerConfig{Listen: "127.0.0.1:0", ConfigFile: write("nats.conf", []byte(text))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	file := creds("node.creds", user, account)
	mustServeWith(t, s.URL(), user.seed, func(c *node.Config) { c.NATSCredentials = file }, client.Options{CredentialsFile: file})

	bad := creds("stranger.creds", user, newKey(t, nkeys.CreateAccount)) // of an account that the operator does not know
	mustNotStart(t, s.URL(), func(c *node.Config) { c.NATSCredentials = bad })
}

// mustServeWith starts a node on a server and asks it for something; the seed is in no log.
func mustServeWith(t *testing.T, at, seed string, set func(*node.Config), o client.Options) {
	t.Helper()
	log := &logged{}
	nodetest.Start(t, recorded(log), nodetest.Set(func(c *node.Config) { c.NATSURL = at }), nodetest.Set(set))
	o.URL, o.Attempts = at, 1
	c, err := client.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if code := call(t, c, schemas.ActionGetStatus, nil, nil); code != "" {
		t.Error(code)
	}
	mustNotLog(t, log, seed)
	refused(t, "nobody", "credentials", client.Options{URL: at})
}

// mustNotStart wants a node to say that its credentials are no good.
func mustNotStart(t *testing.T, at string, set func(*node.Config)) {
	t.Helper()
	c := nodetest.Config(t.TempDir())
	c.NATSURL = at
	set(&c)
	n, err := node.Open(t.Context(), c, node.Hooks{})
	if err == nil {
		_, _ = n.Stop(t.Context()) // it should not be there
		t.Fatal("it starts")
	}
	if !strings.Contains(err.Error(), "the server refuses these credentials") {
		t.Error(err)
	}
}
