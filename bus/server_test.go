package bus_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/conn"
)

// Each failure is of a kind that a program can branch on, and its text tells a
// person what to do.
func TestWhatStopsAStartNamesItsFix(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("{ not a configuration"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	used := t.TempDir()
	startServer(t, bus.ServerConfig{StoreDir: used})
	for name, c := range map[string]struct {
		config bus.ServerConfig
		kind   bus.StartErrorKind
		says   string
	}{
		"port taken": {bus.ServerConfig{Listen: taken.Addr().String()}, bus.PortTaken,
			"port " + port + " is taken by another process: stop it, or choose --listen 127.0.0.1:0, or use it with --nats-url nats://" + taken.Addr().String()},
		"every interface":     {bus.ServerConfig{Listen: "0.0.0.0:0"}, bus.ListenRefused, "configure credentials"},
		"every interface, v6": {bus.ServerConfig{Listen: "[::]:0"}, bus.ListenRefused, "configure credentials"},
		"no host":             {bus.ServerConfig{Listen: ":0"}, bus.ListenRefused, "configure credentials"},
		"no port":             {bus.ServerConfig{Listen: "127.0.0.1"}, bus.ConfigInvalid, "host:port"},
		"port too large":      {bus.ServerConfig{Listen: "127.0.0.1:70000"}, bus.ConfigInvalid, "from 0"},
		"store is a file":     {bus.ServerConfig{Listen: "127.0.0.1:0", StoreDir: filepath.Join(file, "js")}, bus.StoreUnwritable, "or choose another with --state-dir"},
		"store is taken":      {bus.ServerConfig{Listen: "127.0.0.1:0", StoreDir: used}, bus.StoreTaken, "another server keeps its streams in " + used + ": stop the node"},
		"configuration":       {bus.ServerConfig{Listen: "127.0.0.1:0", ConfigFile: file}, bus.ConfigInvalid, "correct " + file},
	} {
		s, err := bus.StartServer(c.config)
		if err == nil {
			s.Close()
			t.Errorf("%s: started", name)
			continue
		}
		var e *bus.StartError
		if !errors.As(err, &e) || e.Kind != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: kind %d, %v", name, e.Kind, err)
		}
	}
}

func TestCredentialsOpenOtherInterfaces(t *testing.T) {
	s := startServer(t, bus.ServerConfig{Listen: "0.0.0.0:0", Username: "u", Password: "p"})
	if _, err := conn.Dial(conn.Config{URL: s.URL()}); err == nil || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("without credentials: %v", err)
	}
	user, password := s.Credentials()
	if nc := dial(t, conn.Config{InProcess: s, Username: user, Password: password}); !nc.IsConnected() {
		t.Error("with credentials: not connected")
	}
}

// The payload limit lies above the codec's, so that too large a request is
// answered; only far beyond it the server cuts the connection.
func TestTheServerLetsTheCodecRefuse(t *testing.T) {
	s := startServer(t, bus.ServerConfig{})
	nc := plain(t, s.URL())
	if got := nc.MaxPayload(); got <= 256<<10 || got > 1<<20 {
		t.Errorf("MaxPayload %d", got)
	}
}

func TestAConfigurationFileKeepsTheLimits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nats.conf")
	text := `
max_payload: 8MB
port: 1
accounts { a { users [ {user: u, password: p} ] } }
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, bus.ServerConfig{ConfigFile: file})
	nc := plain(t, s.URL(), nats.UserInfo("u", "p"))
	if nc.MaxPayload() > 1<<20 {
		t.Errorf("MaxPayload %d", nc.MaxPayload())
	}
}

func TestOpenAndClose(t *testing.T) {
	var b *bus.Bus
	b, err := bus.Open(bus.Config{Server: &bus.ServerConfig{Listen: "127.0.0.1:0", StoreDir: t.TempDir()}, Node: "here", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(patience)
	if err := b.Serve(grantAll); err != nil {
		t.Fatal(err)
	}
	if err := b.Serve(grantAll); err == nil {
		t.Error("served twice")
	}
	nc := plain(t, b.URL())
	ask(t, nc, &nats.Msg{Subject: "memory.list_devices"})
	b.StopTaking()
	// The subscriptions are drained in the background; then nobody answers.
	for err := error(nil); !errors.Is(err, nats.ErrNoResponders); {
		_, err = nc.Request("memory.list_devices", nil, patience)
	}
	b.Close(patience)
	b.Close(patience)
	if b.BootID() == "" {
		t.Error("no boot id")
	}
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	if _, err := bus.Open(bus.Config{Conn: conn.Config{URL: "nats://127.0.0.1:1"}, Node: "here", Version: "1.0.0"}); err == nil || !strings.Contains(err.Error(), "correct its URL") {
		t.Errorf("%v", err)
	}
	changes := make(chan []bus.Warning, 16)
	external := startServer(t, bus.ServerConfig{})
	b, err := bus.Open(bus.Config{Conn: conn.Config{URL: external.URL()}, Node: "here", Version: "1.0.0", OnHealth: func(w []bus.Warning) { changes <- w }})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(0)
	if w := <-changes; len(w) != 1 || w[0].Code != bus.WarnNoHistory || w[0].Fix == "" {
		t.Errorf("%+v", w)
	}
	if w := b.Health(); len(w) != 1 {
		t.Errorf("%+v", w)
	}
}
