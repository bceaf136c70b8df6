package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/device/hostmem"
)

const everything = ScopeNode | ScopeVault | ScopeClient

// place is what a fake path is.
type place struct {
	dir  bool
	mode fs.FileMode
	err  error
}

func (p place) Name() string       { return "" }
func (p place) Size() int64        { return 0 }
func (p place) Mode() fs.FileMode  { return p.mode }
func (p place) ModTime() time.Time { return time.Time{} }
func (p place) IsDir() bool        { return p.dir }
func (p place) Sys() any           { return nil }

// machine is a fake world: 32 GiB, user 1000, nothing set.
type machine struct {
	World
	files  map[string]string
	places map[string]place
}

func newMachine(environ ...string) *machine {
	m := &machine{files: map[string]string{}, places: map[string]place{"/models": {dir: true, mode: 0o755}, "/more": {dir: true, mode: 0o755},
		"/creds": {mode: 0o600}, "/creds2": {mode: 0o600}, "/creds3": {mode: 0o600}}}
	m.World = World{
		Environ: append([]string{"HOME=/home/ada"}, environ...), UID: 1000, CPUs: 16, TempDir: "/tmp",
		Hostname: func() (string, error) { return "Host_7.example.org", nil },
		ReadFile: func(path string) ([]byte, error) {
			if s, ok := m.files[path]; ok {
				return []byte(s), nil
			}
			if p, ok := m.places[path]; ok && p.err != nil {
				return nil, &fs.PathError{Op: "open", Path: path, Err: p.err}
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
		Stat: func(path string) (fs.FileInfo, error) {
			p, ok := m.places[path]
			if !ok {
				p.err = fs.ErrNotExist
			}
			if p.err != nil {
				return nil, &fs.PathError{Op: "stat", Path: path, Err: p.err}
			}
			return p, nil
		},
		Memory: func() (hostmem.Figures, error) {
			return hostmem.Figures{MemTotal: 32 << 30, MemAvailable: 30 << 30,
				Levels: []hostmem.Level{{Path: "machine", LimitBytes: 32 << 30, UsedBytes: 2 << 30}}}, nil
		},
	}
	return m
}

// sample is three values of one setting, none of them its default on newMachine, and
// what must be set beside it for them to be sound.
type sample struct {
	values [3][]string
	beside map[string][]string
}

func one(a, b, c string) sample { return sample{values: [3][]string{{a}, {b}, {c}}} }

// samples has every setting: a new one without samples fails the tests.
var samples = map[string]sample{
	"node":                    one("a", "b-2", "null"),
	"state_dir":               one("/a", "/b", "/c/d"),
	"runtime_dir":             one("/a", "/b", "/c/d"),
	"ephemeral":               one("true", "true", "true"),
	"take_over":               one("true", "true", "true"),
	"vault":                   one("off", "off", "off"),
	"vault_timeout":           one("1m0s", "2m0s", "3m0s"),
	"drain_timeout":           one("1s", "2s", "3s"),
	"listen":                  one("127.0.0.1:1", "localhost:0", "[::1]:4222"),
	"nats_url":                one("nats://a:4222", "nats://b:4222,nats://c:4222", "tls://d"),
	"nats_credentials":        one("/creds", "/creds2", "/creds3"),
	"nats_username":           {values: [3][]string{{"ada"}, {"bob"}, {"cleo"}}, beside: map[string][]string{"nats_password": {"x"}}},
	"nats_password":           {values: [3][]string{{"p"}, {"q"}, {"r"}}, beside: map[string][]string{"nats_username": {"ada"}}},
	"nats_server_config":      one("/creds", "/creds2", "/creds3"),
	"jetstream":               one("false", "false", "false"),
	"jetstream_bytes":         one("2GiB", "3GiB", "4GiB"),
	"events_bytes":            one("16MiB", "17MiB", "1000000000"),
	"events_age":              one("1h0m0s", "2h0m0s", "3h0m0s"),
	"devices":                 {values: [3][]string{{"ram:ram-0=1GiB"}, {"sim:gpu-0=24GiB,bandwidth=1000000000,latency=10µs", "ram:r=64MiB"}, {"sim:x=1GiB"}}},
	"reserve_bytes":           one("1MiB", "2MiB", "3"),
	"model_roots":             {values: [3][]string{{"/models"}, {"/models", "/more"}, {"/more"}}},
	"allow_uids":              {values: [3][]string{{"1"}, {"2", "3"}, {"4"}}},
	"pool_bytes":              one("0", "1MiB", "2MiB"),
	"warm":                    {values: [3][]string{{"1MiB:1"}, {"2MiB:2", "4MiB:0"}, {"8MiB:3"}}},
	"pressure_moderate":       one("60/50", "50/40", "61.5/33.3"),
	"pressure_high":           one("75/70", "88/81", "84.9/80.1"),
	"pressure_critical":       one("99/95", "96/92", "100/93"),
	"pressure_basis":          one("unreclaimable", "unreclaimable", "unreclaimable"),
	"pressure_dwell":          one("1s", "2s", "4s"),
	"pressure_dwell_critical": one("1s", "2s", "4s"),
	"pressure_unload_hold":    one("1s", "2s", "4s"),
	"pressure_reminder":       one("2s", "3s", "4s"),
	"sample_rest":             one("2s", "3s", "4s"),
	"sample_shortest":         one("1ms", "2ms", "3ms"),
	"load_workers":            one("1", "2", "3"),
	"loads":                   one("1", "3", "4"),
	"copy_workers":            one("1", "2", "3"),
	"resume_grace":            one("1s", "2s", "3s"),
	"undo_after":              one("1s", "2s", "3s"),
	"keep_answers":            one("11m0s", "12m0s", "13m0s"),
	"max_answers":             one("100", "101", "102"),
	"max_sessions":            one("1", "2", "3"),
	"log_level":               one("debug", "warn", "error"),
	"log_format":              one("json", "json", "json"),
}

// Every setting can be set by each source, the higher one wins whatever the lower ones
// say, and Explain names the winner.
func TestEverySettingFromEverySource(t *testing.T) {
	for _, s := range Settings() {
		t.Run(s.Key, func(t *testing.T) {
			sample, ok := samples[s.Key]
			if !ok {
				t.Fatal("the setting has no samples")
			}
			for set := range 8 {
				m := newMachine()
				g := Given{Flags: maps.Clone(sample.beside)}
				if g.Flags == nil || set == 0 {
					g.Flags = map[string][]string{}
				}
				var want []string
				source, where := SourceDefault, ""
				if set&1 != 0 {
					m.files["/home/ada/.config/isobar/config.yaml"] = "# a comment\n" + yamlLine(s, sample.values[0])
					want, source, where = sample.values[0], SourceFile, "/home/ada/.config/isobar/config.yaml:2"
				}
				if set&2 != 0 {
					separator := ""
					if s.List {
						separator = s.Separator[:1]
					}
					m.Environ = append(m.Environ, s.Env+"="+strings.Join(sample.values[1], separator))
					want, source, where = sample.values[1], SourceEnv, "environment "+s.Env
				}
				if set&4 != 0 {
					g.Flags[s.Key] = sample.values[2]
					want, source, where = sample.values[2], SourceFlag, "flag --"+s.Flag
				}
				c, err := Load(&m.World, everything, g)
				if err != nil {
					t.Fatalf("sources %03b: %v", set, err)
				}
				e, ok := explained(&c, s.Key)
				if set == 0 {
					if ok && (e.Origin.Source != SourceDefault || e.Origin.Where == "") {
						t.Errorf("the default is explained as %+v", e.Origin)
					}
					if ok && slices.ContainsFunc(sample.values[:], func(v []string) bool { return slices.Equal(v, e.Values) }) {
						t.Errorf("a sample equals the default %q and shows nothing", e.Values)
					}
					continue
				}
				if s.Secret {
					want = []string{"***"}
				}
				if !ok || !slices.Equal(e.Values, want) || e.Origin != (Origin{source, where}) {
					t.Errorf("sources %03b: got %q from %+v, want %q from %s %s", set, e.Values, e.Origin, want, source, where)
				}
			}
		})
	}
}

func yamlLine(s Setting, values []string) string {
	if !s.List {
		return fmt.Sprintf("%s: %q\n", s.Key, values[0])
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return s.Key + ": [" + strings.Join(quoted, ", ") + "]\n"
}

func explained(c *Config, key string) (Explained, bool) {
	all := c.Explain()
	i := slices.IndexFunc(all, func(e Explained) bool { return e.Setting.Key == key })
	if i < 0 {
		return Explained{}, false
	}
	return all[i], true
}

// Every field of Config that a program may read has a row in the table.
func TestEveryFieldIsSet(t *testing.T) {
	m := newMachine()
	before, err := Defaults(&m.World)
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string][]string{}
	for key, s := range samples {
		flags[key] = s.values[1]
	}
	delete(flags, "nats_server_config") // excluded by nats_url
	after, err := Load(&m.World, everything, Given{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	byProgram := []string{"Log", "Version", "VaultCommand", "NATSServerConfig"}
	b, a := reflect.ValueOf(before), reflect.ValueOf(after)
	for i := range b.NumField() {
		f := b.Type().Field(i)
		if f.IsExported() && !slices.Contains(byProgram, f.Name) && reflect.DeepEqual(b.Field(i).Interface(), a.Field(i).Interface()) {
			t.Errorf("no setting changes Config.%s", f.Name)
		}
	}
}

// A configuration that is written as a file and read back is the same.
func TestYAMLSaysTheSame(t *testing.T) {
	m := newMachine()
	flags := map[string][]string{}
	for key, s := range samples {
		flags[key] = s.values[2]
	}
	delete(flags, "nats_server_config")
	delete(flags, "nats_password") // not written
	delete(flags, "nats_username")
	first, err := Load(&m.World, everything, Given{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := first.WriteYAML(&b); err != nil {
		t.Fatal(err)
	}
	m.files["/c.yaml"] = b.String()
	second, err := Load(&m.World, everything, Given{File: "/c.yaml"})
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	first.file, first.origins, second.file, second.origins = "", nil, "", nil
	if !reflect.DeepEqual(first, second) {
		t.Errorf("wrote\n%+v\nread\n%+v\nfrom\n%s", first, second, b.String())
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	m := newMachine("ISOBAR_NATS_PASSWORD=hunter2", "ISOBAR_NATS_USERNAME=ada")
	c, err := Load(&m.World, everything, Given{})
	if err != nil {
		t.Fatal(err)
	}
	if c.NATSPassword != "hunter2" {
		t.Fatalf("the password is %q", c.NATSPassword)
	}
	var b bytes.Buffer
	for _, write := range []func() error{func() error { return c.WriteTable(&b) }, func() error { return c.WriteJSON(&b) }, func() error { return c.WriteYAML(&b) }} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(b.String(), "hunter2") || strings.Count(b.String(), "***") != 3 {
		t.Errorf("want *** three times and no password:\n%s", b.String())
	}
}

// What is wrong is said with where it was written and what to do.
func TestProblems(t *testing.T) {
	for name, c := range map[string]struct {
		environ []string
		file    string
		flags   map[string][]string
		change  func(*machine)
		scope   Scope
		want    []string // parts of the message
	}{
		"unknown variable":    {environ: []string{"ISOBAR_LISTNE=x"}, want: []string{"ISOBAR_LISTNE", "did you mean ISOBAR_LISTEN?"}},
		"lower case variable": {environ: []string{"ISOBAR_listen=127.0.0.1:1"}, want: []string{"ISOBAR_listen: is not a setting", "ISOBAR_LISTEN"}},
		"unknown key":         {file: "model_root: /models\n", want: []string{"model_root", "config.yaml:1", "did you mean model_roots?"}},
		"far from any key":    {file: "quux: 1\n", want: []string{"quux", "`isobar config` lists"}},
		"key twice":           {file: "loads: 1\nloads: 2\n", want: []string{"loads"}},
		"not YAML":            {file: "a: [\n", want: []string{"not sound YAML"}},
		"not a mapping":       {file: "- a\n", want: []string{"not a mapping"}},
		"two documents":       {file: "loads: 1\n---\nloads: 1\n", want: []string{"more than one document"}},
		"list for one value":  {file: "loads: [1, 2]\n", want: []string{"loads: is not a single value", "config.yaml:1"}},
		"mapping for a list":  {file: "model_roots: {a: b}\n", want: []string{"neither a value nor a sequence"}},
		"odd device field":    {file: "devices: [{kind: ram, name: x}]\n", want: []string{`not "name"`}},
		"missing file":        {flags: map[string][]string{}, environ: []string{"ISOBAR_CONFIG=/nowhere.yaml"}, want: []string{"/nowhere.yaml", "environment ISOBAR_CONFIG", "correct its path"}},
		"unreadable file":     {change: func(m *machine) { m.places["/etc/isobar/config.yaml"] = place{err: fs.ErrPermission} }, want: []string{"cannot be read"}},
		"node name":           {flags: map[string][]string{"node": {"My Host"}}, want: []string{`"My Host"`, `"my-host" would do`, "flag --node"}},
		"size":                {environ: []string{"ISOBAR_POOL_BYTES=many"}, want: []string{`"many" is not a size`, "512MiB", "environment ISOBAR_POOL_BYTES"}},
		"duration":            {flags: map[string][]string{"pressure_dwell": {"3"}}, want: []string{"write a number with a unit"}},
		"count":               {flags: map[string][]string{"load_workers": {"0"}}, want: []string{"from 1 to 256"}},
		"given twice":         {flags: map[string][]string{"loads": {"1", "2"}}, want: []string{"given 2 times"}},
		"log level":           {flags: map[string][]string{"log_level": {"loud"}}, want: []string{"choose debug, info, warn, error"}},
		"small device":        {flags: map[string][]string{"devices": {"ram:ram-0=8MiB"}}, want: []string{"too small", "at least 16MiB"}},
		"device kind":         {flags: map[string][]string{"devices": {"cuda:gpu-0=1GiB"}}, want: []string{"choose ram or sim"}},
		"device twice":        {flags: map[string][]string{"devices": {"sim:a=1GiB", "sim:a=1GiB"}}, want: []string{"two devices have the id a"}},
		"no device":           {file: "devices: []\n", want: []string{"there is none", "--device ram:ram-0"}},
		"more than there is":  {flags: map[string][]string{"devices": {"ram:a=20GiB", "ram:b=20GiB"}}, want: []string{"40.0 GiB", "32.0 GiB", "--device ram:ram-0=16GiB"}},
		"no size for sim":     {flags: map[string][]string{"devices": {"sim:gpu-0"}}, want: []string{"needs a size: sim:gpu-0=24GiB"}},
		"bandwidth of ram":    {flags: map[string][]string{"devices": {"ram:a=1GiB,bandwidth=1GiB"}}, want: []string{"only simulated devices"}},
		"no memory figures": {change: func(m *machine) {
			m.Memory = func() (hostmem.Figures, error) { return hostmem.Figures{}, errors.New("no /proc") }
		}, want: []string{"devices", "no /proc", "set --device"}},
		"model root missing":  {flags: map[string][]string{"model_roots": {"/nowhere"}}, want: []string{"there is no folder /nowhere", "mkdir -p /nowhere"}},
		"model root a file":   {flags: map[string][]string{"model_roots": {"/creds"}}, want: []string{"/creds is not a folder", "--model-root /"}},
		"relative root":       {flags: map[string][]string{"model_roots": {"models"}}, want: []string{"not an absolute path"}},
		"open to the world":   {flags: map[string][]string{"listen": {"0.0.0.0:4222"}}, want: []string{"not a loopback address", "set nats_username and nats_password"}},
		"listen":              {flags: map[string][]string{"listen": {"4222"}}, want: []string{"HOST:PORT"}},
		"port":                {flags: map[string][]string{"listen": {"127.0.0.1:70000"}}, want: []string{"65535"}},
		"user alone":          {flags: map[string][]string{"nats_username": {"ada"}}, want: []string{"nats_password: is missing"}},
		"password alone":      {environ: []string{"ISOBAR_NATS_PASSWORD=x"}, want: []string{"nats_password: is set without nats_username"}},
		"url scheme":          {flags: map[string][]string{"nats_url": {"http://x"}}, want: []string{"nats, tls, ws or wss"}},
		"credentials missing": {flags: map[string][]string{"nats_credentials": {"/no.creds"}}, want: []string{"/no.creds", "correct the path"}},
		"two servers":         {flags: map[string][]string{"nats_server_config": {"/creds"}, "nats_url": {"nats://x"}}, want: []string{"nats_server_config", "remove one"}},
		"long runtime dir":    {flags: map[string][]string{"runtime_dir": {"/" + strings.Repeat("x", 100)}}, want: []string{"112 bytes long", "107", "--runtime-dir /tmp/isobar-1000"}},
		"runtime dir a file":  {flags: map[string][]string{"runtime_dir": {"/creds"}}, want: []string{"is not a folder"}},
		"runtime dir shared":  {flags: map[string][]string{"runtime_dir": {"/open"}}, change: func(m *machine) { m.places["/open"] = place{dir: true, mode: 0o777} }, want: []string{"written to by others", "chmod go-w /open"}},
		"levels do not rise":  {flags: map[string][]string{"pressure_high": {"60/50"}}, want: []string{"pressure_high", "do not rise"}},
		"level left too high": {flags: map[string][]string{"pressure_high": {"60/70"}}, want: []string{"must be left below"}},
		"samples":             {flags: map[string][]string{"sample_rest": {"10ms"}}, want: []string{"sample_shortest", "longer than sample_rest"}},
		"events in JetStream": {flags: map[string][]string{"jetstream_bytes": {"1MiB"}}, want: []string{"events_bytes", "more than jetstream_bytes"}},
		"unknown flag":        {flags: map[string][]string{"lisen": {"x"}}, want: []string{"lisen", "did you mean listen?"}},
		"answers kept":        {flags: map[string][]string{"keep_answers": {"1m"}}, want: []string{"10m0s"}},
		"secret value":        {environ: []string{"ISOBAR_NATS_PASSWORD=x"}, want: []string{"nats_password"}},
		"warm class":          {flags: map[string][]string{"warm": {"3MiB:1"}}, want: []string{"a power of two"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(c.environ...)
			if c.file != "" {
				m.files["/home/ada/.config/isobar/config.yaml"] = c.file
			}
			if c.change != nil {
				c.change(m)
			}
			_, err := Load(&m.World, everything, Given{Flags: c.flags})
			var problems *ConfigError
			if !errors.As(err, &problems) {
				t.Fatalf("got error %v", err)
			}
			if len(problems.Problems) != 1 {
				t.Errorf("%d problems, want one:\n%v", len(problems.Problems), err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message lacks %q: %v", part, err)
				}
			}
		})
	}
}

// Everything that is wrong is told at once.
func TestAllProblemsAtOnce(t *testing.T) {
	m := newMachine("ISOBAR_LOADS=x", "ISOBAR_NODES=y")
	_, err := Load(&m.World, everything, Given{Flags: map[string][]string{"listen": {"0.0.0.0:1"}, "model_roots": {"/nowhere"}}})
	var problems *ConfigError
	if !errors.As(err, &problems) || len(problems.Problems) != 4 {
		t.Errorf("want four problems: %v", err)
	}
}

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
