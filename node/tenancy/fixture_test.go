package tenancy

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/accounts"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

const (
	mib      = 1 << 20
	patience = 20 * time.Second
	// secret is every user's password; it must never be in a log.
	secret     = "correct-horse-battery"
	secretHash = "$2a$04$xgms1ZBEslTcLSk.NkyEhekJ5tzd5Znjc2RYolh5oYw7QcE3vvDNq" // cheap: a test asks often
	nodeSecret = "staple-of-the-node"
	nodeHash   = "$2a$04$/7PDi7NL5dgvyQfe2fmxbux97aXQGNdpudnfAlHmSWWI0ey16BiS2"
)

// users are the users of the test by name, with their roles.
var users = map[string]schemas.Role{"blue-reader": schemas.RoleReader, "blue-client": schemas.RoleClient, "blue-operator": schemas.RoleOperator, "green-client": schemas.RoleClient}

func tenants() []node.TenantSpec {
	user := func(name string) node.UserSpec {
		return node.UserSpec{Name: name, Role: users[name], PasswordHash: secretHash}
	}
	return []node.TenantSpec{
		{Name: "blue", Users: []node.UserSpec{user("blue-reader"), user("blue-client"), user("blue-operator")}},
		{Name: "green", Users: []node.UserSpec{user("green-client")},
			Quotas: []node.QuotaSpec{{Device: "gpu-0", Hard: "512MiB"}}},
	}
}

// logged is a log that many goroutines write.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// world is a node and where to reach it.
type world struct {
	url string
	log *logged
}

// inEach runs a test on a node with its own server, and on one that uses another server
// with the generated accounts.
func inEach(t *testing.T, f func(t *testing.T, w *world)) {
	set := func(w *world) nodetest.Option {
		return nodetest.Set(func(c *node.Config) {
			c.Tenants = tenants()
			c.Log = slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
	}
	t.Run("embedded", func(t *testing.T) {
		w := &world{log: &logged{}}
		w.url = nodetest.Start(t, set(w)).Info().URL
		f(t, w)
	})
	t.Run("external", func(t *testing.T) {
		w := &world{log: &logged{}}
		w.url = external(t)
		nodetest.Start(t, set(w), nodetest.Set(func(c *node.Config) {
			c.NATSURL, c.NATSUsername, c.NATSPassword = w.url, "node-1", nodeSecret
		}))
		f(t, w)
	})
}

// external starts a server as somebody would with `isobar config --nats`.
func external(t *testing.T) string {
	t.Helper()
	return externalOf(t, tenants(), "")
}

// externalOf is that of any tenants, with more in the server's file.
func externalOf(t *testing.T, of []node.TenantSpec, more string) string {
	t.Helper()
	c := nodetest.Config(t.TempDir())
	// The hash is a cheap one: a costly one takes seconds under the race detector on a busy machine, and with them the
	// handshake of the NATS client, which does not expect a PING before its PONG.
	c.Tenants, c.NATSUsername, c.NATSPassword = of, "node-1", nodeHash
	text, err := c.NATSConfig()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains([]byte(text), []byte(nodeSecret)) {
		t.Error("the generated configuration has the node's password")
	}
	file := filepath.Join(t.TempDir(), "isobar.conf")
	if err := os.WriteFile(file, []byte(text+more), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bus.StartServer(bus.ServerConfig{Listen: "127.0.0.1:0", StoreDir: t.TempDir(), ConfigFile: file})
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	t.Cleanup(s.Close)
	return s.URL()
}

// as connects as a user.
func (w *world) as(t testing.TB, user string) *client.Client {
	t.Helper()
	c, err := client.Connect(client.Options{URL: w.url, Username: user, Password: secret, InboxPrefix: accounts.InboxPrefix(user), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// call gives a command and returns the code of its error, "" for none.
func call(t testing.TB, c *client.Client, action schemas.Action, in, out any, opts ...client.CallOption) schemas.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.Call(ctx, action, in, out, opts...)
	var refused *schemas.Error
	switch {
	case err == nil:
		return ""
	case asError(err, &refused):
		return refused.Code
	}
	t.Fatalf("%s: %v", action, err)
	return ""
}
