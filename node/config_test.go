package node

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/device/hostmem"
)

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
	delete(flags, "nats_nkey")          // excluded by nats_password
	after, err := Load(&m.World, everything, Given{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	byProgram := []string{"Log", "Version", "VaultCommand", "NATSServerConfig", "NATSNKey", "Blocking"}
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
	delete(flags, "tenants") // nor are the hashes of passwords
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
		"device kind":         {flags: map[string][]string{"devices": {"vulkan:gpu-0=1GiB"}}, want: []string{"choose ram, cuda or sim"}},
		"which GPU":           {flags: map[string][]string{"devices": {"cuda:big"}}, want: []string{"which GPU is it?", "cuda:big,gpu=0"}},
		"no GPU's name":       {flags: map[string][]string{"devices": {"cuda:gpu-0,gpu=x"}}, want: []string{"neither a GPU's number nor its UUID", "nvidia-smi -L"}},
		"device twice":        {flags: map[string][]string{"devices": {"sim:a=1GiB", "sim:a=1GiB"}}, want: []string{"two devices have the id a"}},
		"no device":           {file: "devices: []\n", want: []string{"there is none", "--device ram:ram-0"}},
		"more than there is":  {flags: map[string][]string{"devices": {"ram:a=20GiB", "ram:b=20GiB"}}, want: []string{"40.0 GiB", "32.0 GiB", "--device ram:ram-0=16GiB"}},
		"no size for sim":     {flags: map[string][]string{"devices": {"sim:gpu-0"}}, want: []string{"needs a size: sim:gpu-0=24GiB"}},
		"bandwidth of ram":    {flags: map[string][]string{"devices": {"ram:a=1GiB,bandwidth=1GiB"}}, want: []string{"only simulated devices"}},
		"no memory figures": {change: func(m *machine) {
			m.Memory = func() (hostmem.Figures, error) { return hostmem.Figures{}, errors.New("no /proc") }
		}, want: []string{"devices", "no /proc", "set --device"}},
		"model root missing": {flags: map[string][]string{"model_roots": {"/nowhere"}}, want: []string{"there is no folder /nowhere", "mkdir -p /nowhere"}},
		"model root a file":  {flags: map[string][]string{"model_roots": {"/creds"}}, want: []string{"/creds is not a folder", "--model-root /"}},
		"relative root":      {flags: map[string][]string{"model_roots": {"models"}}, want: []string{"not an absolute path"}},
		"open to the world":  {flags: map[string][]string{"listen": {"0.0.0.0:4222"}}, want: []string{"not a loopback address", "nats_username and nats_password"}},
		"listen":             {flags: map[string][]string{"listen": {"4222"}}, want: []string{"HOST:PORT"}},
		"port":               {flags: map[string][]string{"listen": {"127.0.0.1:70000"}}, want: []string{"65535"}},
		"user alone":         {flags: map[string][]string{"nats_username": {"ada"}}, want: []string{"nats_password: is missing"}},
		"password alone":     {environ: []string{"ISOBAR_NATS_PASSWORD=x"}, want: []string{"nats_password: is set without nats_username"}},
		"url scheme":         {flags: map[string][]string{"nats_url": {"http://x"}}, want: []string{"nats, tls, ws or wss"}},
		"user in the url":    {flags: map[string][]string{"nats_url": {"nats://ada:hunter2@x"}}, want: []string{"nats_url: it names a user", "nats_password"}},
		"open key":           {flags: map[string][]string{"tls_key": {"/k"}}, change: func(m *machine) { m.places["/k"] = place{mode: 0o644} }, want: []string{"tls_key", "mode 0644", "chmod o-rwx /k"}},
		"open credentials":   {flags: map[string][]string{"nats_credentials": {"/k"}}, change: func(m *machine) { m.places["/k"] = place{mode: 0o604} }, want: []string{"nats_credentials", "chmod o-rwx /k"}},
		"open seed":          {flags: map[string][]string{"nats_nkey": {"/k"}}, change: func(m *machine) { m.places["/k"] = place{mode: 0o660} }, want: []string{"nats_nkey", "chmod g-w /k"}},
		"open password file": {file: "nats_username: ada\nnats_password: hunter2\n",
			change: func(m *machine) { m.places["/home/ada/.config/isobar/config.yaml"] = place{mode: 0o644} }, want: []string{"nats_password", "mode 0644", "chmod o-rwx"}},
		"password and nkey":   {flags: map[string][]string{"nats_nkey": {"/creds"}, "nats_username": {"ada"}}, environ: []string{"ISOBAR_NATS_PASSWORD=hunter2"}, want: []string{"nats_password: is set beside nats_nkey"}},
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
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in %v", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message lacks %q: %v", part, err)
				}
			}
		})
	}
}

// What is private enough is taken, and so is a user's name beside an nkey.
func TestPrivateFiles(t *testing.T) {
	m := newMachine()
	m.files["/c.yaml"] = "nats_url: nats://x\nnats_username: ada\nnats_nkey: /seed\ntls_key: /key\n"
	m.places["/c.yaml"], m.places["/seed"], m.places["/key"] = place{mode: 0o644}, place{mode: 0o400}, place{mode: 0o640}
	c, err := Load(&m.World, everything, Given{File: "/c.yaml"})
	if err != nil || c.NATSNKey != "/seed" || c.NATSUsername != "ada" {
		t.Errorf("%v, %+v", err, c)
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
