package node

import (
	"bytes"
	"errors"
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

// numa is a machine of 32 GiB on these nodes.
func numa(t *testing.T, cgroup int64, unbound error, nodes ...hostmem.Node) *machine {
	t.Helper()
	m := newMachine()
	m.NUMA = func() NUMA { return NUMA{Nodes: nodes, Unbound: unbound} }
	if cgroup > 0 {
		m.Memory = func() (hostmem.Figures, error) {
			return hostmem.Figures{MemTotal: 32 << 30, Levels: []hostmem.Level{{Path: "machine", LimitBytes: 32 << 30}, {Path: "/x", LimitBytes: cgroup}}}, nil
		}
	}
	return m
}

// Each node with processors is a device, and all together are no more than the one would be.
func TestNUMADeviceDefaults(t *testing.T) {
	node := func(id int, gib int64) hostmem.Node {
		return hostmem.Node{ID: id, TotalBytes: gib << 30, Processors: true}
	}
	far := hostmem.Node{ID: 2, TotalBytes: 96 << 30}
	for name, c := range map[string]struct {
		m      *machine
		want   []string
		reason string
	}{
		"one node":             {numa(t, 0, nil, node(0, 32)), []string{"ram:ram-0=16GiB"}, "half of what the machine"},
		"two":                  {numa(t, 0, nil, node(0, 16), node(1, 16)), []string{"ram:ram-0@0=8GiB", "ram:ram-1@1=8GiB"}, "one a NUMA node"},
		"two that differ":      {numa(t, 0, nil, node(0, 8), node(8, 24)), []string{"ram:ram-0@0=4GiB", "ram:ram-8@8=12GiB"}, "one a NUMA node"},
		"in a control group":   {numa(t, 8<<30, nil, node(0, 8), node(1, 24)), []string{"ram:ram-0@0=1GiB", "ram:ram-1@1=3GiB"}, "one a NUMA node"},
		"in a tiny one":        {numa(t, 80<<20, nil, node(0, 8), node(1, 24)), []string{"ram:ram-0=40MiB"}, "too little"},
		"one has no processor": {numa(t, 0, nil, node(0, 32), far), []string{"ram:ram-0=16GiB"}, "half of what the machine"},
		"two and far memory":   {numa(t, 0, nil, node(0, 16), node(1, 16), far), []string{"ram:ram-0@0=8GiB", "ram:ram-1@1=8GiB"}, "one a NUMA node"},
		"mbind is forbidden":   {numa(t, 0, errors.New("EPERM"), node(0, 16), node(1, 16)), []string{"ram:ram-0=16GiB"}, "one for all 2 NUMA nodes"},
	} {
		cfg, err := Load(&c.m.World, everything, Given{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e, _ := explained(&cfg, "devices")
		if !slices.Equal(e.Values, c.want) || !strings.Contains(e.Origin.Where, c.reason) {
			t.Errorf("%s: %q because %q, want %q because %q", name, e.Values, e.Origin.Where, c.want, c.reason)
		}
	}
}

// A device may name its node, by flag and in the file, or none as before.
func TestDevicesOnNodes(t *testing.T) {
	two := func() *machine {
		return numa(t, 0, nil, hostmem.Node{ID: 0, TotalBytes: 8 << 30, Processors: true}, hostmem.Node{ID: 1, TotalBytes: 24 << 30, Processors: true})
	}
	for flag, want := range map[string]string{
		"ram:ram-1=8GiB":    "ram:ram-1=8GiB",
		"ram:near@1=8GiB":   "ram:near@1=8GiB",
		"ram:ram-0@0":       "ram:ram-0@0=4GiB",
		"ram:ram-1@1":       "ram:ram-1@1=12GiB",
		" ram:ram-1@1 =1g ": "ram:ram-1@1=1GiB",
	} {
		cfg, err := Load(&two().World, everything, Given{Flags: map[string][]string{"devices": {flag}}})
		if err != nil {
			t.Errorf("%q: %v", flag, err)
		} else if e, _ := explained(&cfg, "devices"); !slices.Equal(e.Values, []string{want}) {
			t.Errorf("%q: %q, want %q", flag, e.Values, want)
		}
	}
	for flag, want := range map[string]string{
		"ram:a@3=1GiB":    "there are 0, 1",
		"ram:a@0=9GiB":    "more than its 8.00 GiB",
		"ram:a@x=1GiB":    "not the number of a NUMA node",
		"ram:a@=1GiB":     "not the number of a NUMA node",
		"ram:a@1024=1GiB": "not the number of a NUMA node",
		"sim:a@1=1GiB":    "only main memory",
	} {
		if _, err := Load(&two().World, everything, Given{Flags: map[string][]string{"devices": {flag}}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", flag, err, want)
		}
	}
	m := two()
	m.files["/home/ada/.config/isobar/config.yaml"] = "devices: [{kind: ram, id: near, numa_node: 1, size: 2GiB}]\nforget_devices: [gpu-0]\n"
	cfg, err := Load(&m.World, everything, Given{})
	if err != nil || len(cfg.Devices) != 1 || cfg.Devices[0] != (DeviceSpec{Kind: DeviceRAM, ID: "near", Bytes: 2 << 30, Bound: true, NUMANode: 1}) {
		t.Errorf("%+v, %v", cfg.Devices, err)
	}
	_, err = Load(&m.World, everything, Given{Flags: map[string][]string{"forget_devices": {"near"}}})
	if err == nil || !strings.Contains(err.Error(), "near is configured and to be forgotten") {
		t.Errorf("configured and forgotten: %v", err)
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
