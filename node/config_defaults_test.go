package node

import (
	"bytes"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/device/hostmem"
)

// A client of another user goes on without the node's own file; the node does not.
func TestClientsIgnoreAFileTheyMayNotRead(t *testing.T) {
	m := newMachine()
	m.places["/etc/isobar/config.yaml"] = place{err: fs.ErrPermission}
	if _, err := Load(&m.World, ScopeClient, Given{}); err != nil {
		t.Error(err)
	}
	if _, err := Load(&m.World, ScopeNode, Given{}); err == nil {
		t.Error("the node started without its file")
	}
}

func TestEmptyVariablesAreUnset(t *testing.T) {
	m := newMachine("ISOBAR_LISTEN=")
	c, err := Load(&m.World, everything, Given{})
	if err != nil || c.Listen != "127.0.0.1:4222" {
		t.Errorf("listen %q, error %v", c.Listen, err)
	}
}

func TestDefaultsReadNothingOfOurs(t *testing.T) {
	m := newMachine("ISOBAR_LISTEN=127.0.0.1:9", "ISOBAR_NONSENSE=1")
	m.files["/home/ada/.config/isobar/config.yaml"] = "loads: 7\n"
	c, err := Defaults(&m.World)
	if err != nil || c.Listen != "127.0.0.1:4222" || c.Loads != 2 || c.Node != "host-7" {
		t.Errorf("%+v, error %v", c, err)
	}
}

func TestFolders(t *testing.T) {
	for name, c := range map[string]struct {
		environ        []string
		uid            int
		state, runtime string
	}{
		"desktop": {[]string{"HOME=/home/ada", "XDG_RUNTIME_DIR=/run/user/1000"}, 1000, "/home/ada/.local/state/isobar", "/run/user/1000/isobar"},
		"XDG_RUNTIME_DIR that is not there": {[]string{"HOME=/home/ada", "XDG_RUNTIME_DIR=/run/user/7"}, 1000,
			"/home/ada/.local/state/isobar", "/tmp/isobar-1000"},
		"relative XDG":    {[]string{"HOME=/home/ada", "XDG_STATE_HOME=state"}, 1000, "/home/ada/.local/state/isobar", "/tmp/isobar-1000"},
		"XDG_STATE_HOME":  {[]string{"HOME=/home/ada", "XDG_STATE_HOME=/s"}, 1000, "/s/isobar", "/tmp/isobar-1000"},
		"systemd":         {[]string{"STATE_DIRECTORY=/var/lib/iso:/x", "RUNTIME_DIRECTORY=/run/iso"}, 997, "/var/lib/iso", "/run/iso"},
		"root":            {[]string{"HOME=/root"}, 0, "/var/lib/isobar", "/run/isobar"},
		"container":       {nil, 4711, "/tmp/isobar-4711/state", "/tmp/isobar-4711"},
		"container, HOME": {[]string{"HOME=/"}, 4711, "/tmp/isobar-4711/state", "/tmp/isobar-4711"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			m.Environ, m.UID = c.environ, c.uid
			m.places["/run/user/1000"] = place{dir: true, mode: 0o700}
			cfg, err := Load(&m.World, everything, Given{})
			if err != nil || cfg.StateDir != c.state || cfg.RuntimeDir != c.runtime {
				t.Errorf("state %s, runtime %s, error %v; want %s and %s", cfg.StateDir, cfg.RuntimeDir, err, c.state, c.runtime)
			}
		})
	}
}

// The tightest of machine and control group decides, and what has no size shares the half.
func TestDeviceDefaults(t *testing.T) {
	m := newMachine()
	m.Memory = func() (hostmem.Figures, error) {
		return hostmem.Figures{MemTotal: 32 << 30, HasCgroup: true, CgroupLimit: 3 << 30,
			Levels: []hostmem.Level{{Path: "machine", LimitBytes: 32 << 30}, {Path: "/sys/fs/cgroup/x", LimitBytes: 3<<30 + 12345}}}, nil
	}
	for _, c := range []struct{ flags, want []string }{
		{nil, []string{"ram:ram-0=1536MiB"}},
		{[]string{"ram:a", "ram:b"}, []string{"ram:a=768MiB", "ram:b=768MiB"}},
		{[]string{"ram:a=1GiB", "ram:b"}, []string{"ram:a=1GiB", "ram:b=512MiB"}},
		{[]string{"ram:a=100_000_001"}, []string{"ram:a=94MiB"}},
		{[]string{"sim:g=4TiB"}, []string{"sim:g=4TiB"}},
	} {
		g := Given{}
		if c.flags != nil {
			g.Flags = map[string][]string{"devices": c.flags}
		}
		cfg, err := Load(&m.World, everything, g)
		if err != nil {
			t.Fatal(err)
		}
		if e, _ := explained(&cfg, "devices"); !slices.Equal(e.Values, c.want) {
			t.Errorf("%q: got %q, want %q", c.flags, e.Values, c.want)
		}
	}
}

func TestYAMLDevices(t *testing.T) {
	m := newMachine()
	m.files["/etc/isobar/config.yaml"] = "devices:\n- kind: sim\n  id: gpu-0\n  size: 24GiB\n  bandwidth: 25GB\n  latency: 10us\n- ram:ram-0=1GiB\n"
	c, err := Load(&m.World, everything, Given{})
	if err != nil {
		t.Fatal(err)
	}
	want := []DeviceSpec{{Kind: DeviceSim, ID: "gpu-0", Bytes: 24 << 30, BandwidthBytesPerSecond: 25e9, Latency: 10 * time.Microsecond},
		{Kind: DeviceRAM, ID: "ram-0", Bytes: 1 << 30}}
	if !slices.Equal(c.Devices, want) {
		t.Errorf("got %+v", c.Devices)
	}
}

func TestClientURL(t *testing.T) {
	for listen, want := range map[string]string{"127.0.0.1:4222": "nats://127.0.0.1:4222", "0.0.0.0:5": "nats://127.0.0.1:5", ":6": "nats://127.0.0.1:6",
		"[::]:7": "nats://127.0.0.1:7", "[::1]:8": "nats://[::1]:8", "host:9": "nats://host:9"} {
		if got := (&Config{Listen: listen}).ClientURL(); got != want {
			t.Errorf("%s: got %s, want %s", listen, got, want)
		}
	}
	if got := (&Config{Listen: "x:1", NATSURL: "nats://y"}).ClientURL(); got != "nats://y" {
		t.Errorf("got %s", got)
	}
}

func TestToken(t *testing.T) {
	for in, want := range map[string]string{"": "node", "A_b.example": "a-b", "--x--": "x", "ärm": "rm", strings.Repeat("a", 80): strings.Repeat("a", 63), "...": "node"} {
		if got := Token(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	for format, want := range map[LogFormat]string{LogText: "msg=hello", LogJSON: `"msg":"hello"`} {
		b.Reset()
		c := Config{LogFormat: format}
		c.Logger(&b).Debug("hidden")
		c.Logger(&b).Info("hello")
		if s := b.String(); !strings.Contains(s, want) || strings.Contains(s, "hidden") {
			t.Errorf("%s: %s", format, s)
		}
	}
}
