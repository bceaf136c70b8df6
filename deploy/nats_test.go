package deploy_test

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const patience = 20 * time.Second

// natsOptions reads a configuration and moves what it names to free ports and a folder of
// the test.
func natsOptions(t *testing.T, file string, env map[string]string) *server.Options {
	t.Helper()
	for k, v := range env {
		t.Setenv(k, v)
	}
	o, err := server.ProcessConfigFile(filepath.Join("nats", file))
	if err != nil {
		t.Fatal(err)
	}
	if o.MaxPayload < 256<<10 || !o.JetStream || o.StoreDir == "" {
		t.Errorf("%s: payload %d, JetStream %v in %q", file, o.MaxPayload, o.JetStream, o.StoreDir)
	}
	o.Host, o.Port, o.StoreDir, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, t.TempDir(), true, true
	return o
}

func startNATS(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	return s
}

// hears sends on one server and receives on the other, as often as their meeting takes.
func hears(t *testing.T, from, to string, opts ...nats.Option) {
	t.Helper()
	var at [2]*nats.Conn
	for i, u := range []string{from, to} {
		nc, err := nats.Connect(u, opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		at[i] = nc
	}
	sub, err := at[1].SubscribeSync("memory.get_status")
	if err != nil || at[1].Flush() != nil {
		t.Fatal(err)
	}
	for tries := 0; ; tries++ {
		if err := at[0].Publish("memory.get_status", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := sub.NextMsg(100 * time.Millisecond); err == nil {
			return
		}
		if tries == 200 {
			t.Fatalf("%s does not hear %s", to, from)
		}
	}
}

func TestOneHost(t *testing.T) {
	s := startNATS(t, natsOptions(t, "single.conf", nil))
	hears(t, s.ClientURL(), s.ClientURL())
	if !s.JetStreamEnabled() {
		t.Error("no JetStream")
	}
}

func TestLeafNodes(t *testing.T) {
	env := map[string]string{"ISOBAR_NATS_PASSWORD": "secret-a", "LEAF_PASSWORD": "secret-b"}
	o := natsOptions(t, "hub.conf", env)
	o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", server.RANDOM_PORT
	hub := startNATS(t, o)
	env["HUB_URL"] = fmt.Sprintf("nats-leaf://leaf:secret-b@127.0.0.1:%d", o.LeafNode.Port)
	leaf := startNATS(t, natsOptions(t, "leaf.conf", env))
	login := nats.UserInfo("isobar", "secret-a")
	hears(t, hub.ClientURL(), leaf.ClientURL(), login)
	hears(t, leaf.ClientURL(), hub.ClientURL(), login)
	for _, s := range []*server.Server{hub, leaf} {
		if nc, err := nats.Connect(s.ClientURL()); err == nil {
			nc.Close()
			t.Error("a client without credentials was let in")
		}
	}
	hub.Shutdown() // whoever is beside the leaf goes on
	hears(t, leaf.ClientURL(), leaf.ClientURL(), login)
}

func TestACluster(t *testing.T) {
	env := map[string]string{"ISOBAR_NATS_PASSWORD": "secret-a", "SYS_PASSWORD": "secret-b", "ROUTES_PASSWORD": "secret-c"}
	// The servers name each other, so their ports must be known before they start.
	var ports []int
	var free []net.Listener
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		env[fmt.Sprintf("ROUTE_%d", i+1)] = fmt.Sprintf("nats-route://routes:secret-c@127.0.0.1:%d", ports[i])
		t.Cleanup(func() { l.Close() })
		free = append(free, l)
	}
	var urls []string
	for i := range 3 {
		env["NATS_NAME"] = fmt.Sprintf("nats-%d", i+1)
		o := natsOptions(t, "cluster.conf", env)
		if o.ServerName != env["NATS_NAME"] || len(o.Routes) != 3 {
			t.Fatalf("server %q with routes %v", o.ServerName, o.Routes)
		}
		o.Cluster.Host, o.Cluster.Port = "127.0.0.1", ports[i]
		free[i].Close()
		urls = append(urls, startNATS(t, o).ClientURL())
	}
	login := nats.UserInfo("isobar", "secret-a")
	for i := range urls {
		hears(t, urls[i], urls[(i+1)%3], login)
	}
}
