package node

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
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

func (p place) Name() string { return "" }

func (p place) Size() int64 { return 0 }

func (p place) Mode() fs.FileMode { return p.mode }

func (p place) ModTime() time.Time { return time.Time{} }

func (p place) IsDir() bool { return p.dir }

func (p place) Sys() any { return nil }

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
		NUMA: func() NUMA {
			return NUMA{Nodes: []hostmem.Node{{ID: 0, TotalBytes: 32 << 30, Processors: true}}}
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
	"http":                    one("127.0.0.1:1", "off", "[::1]:4281"),
	"http_remote":             one("true", "true", "true"),
	"otlp_endpoint":           one("http://127.0.0.1:4318", "http://[::1]:4318", "https://collector:4318"),
	"tenants":                 one(`{"name":"a"}`, `{"name":"b","uids":[7]}`, `{"name":"c","quotas":[{"device":"gpu-0","hard":"1GiB"}]}`),
	"tls_cert":                one("/creds", "/creds2", "/creds3"),
	"tls_key":                 one("/creds", "/creds2", "/creds3"),
	"tls_ca":                  one("/creds", "/creds2", "/creds3"),
	"tls_verify":              one("true", "true", "true"),
	"nats_credentials":        one("/creds", "/creds2", "/creds3"),
	"nats_username":           {values: [3][]string{{"ada"}, {"bob"}, {"cleo"}}, beside: map[string][]string{"nats_password": {"x"}}},
	"nats_password":           {values: [3][]string{{"p"}, {"q"}, {"r"}}, beside: map[string][]string{"nats_username": {"ada"}}},
	"nats_nkey":               one("/creds", "/creds2", "/creds3"),
	"nats_server_config":      one("/creds", "/creds2", "/creds3"),
	"jetstream":               one("false", "false", "false"),
	"jetstream_bytes":         one("2GiB", "3GiB", "4GiB"),
	"events_bytes":            one("16MiB", "17MiB", "1000000000"),
	"events_age":              one("1h0m0s", "2h0m0s", "3h0m0s"),
	"devices":                 {values: [3][]string{{"ram:ram-0=1GiB"}, {"sim:gpu-0=24GiB,bandwidth=1000000000,latency=10µs", "ram:r=64MiB", "ram:s@0=64MiB"}, {"sim:x=1GiB"}}},
	"gpus":                    one("on", "off", "on"),
	"cuda_library":            one("/a.so", "/b.so", "/c.so"),
	"nvml_library":            one("/a.so", "/b.so", "/c.so"),
	"forget_devices":          {values: [3][]string{{"gpu-7"}, {"gpu-8", "gpu-9"}, {"old"}}},
	"reserve_bytes":           one("1MiB", "2MiB", "3"),
	"model_roots":             {values: [3][]string{{"/models"}, {"/models", "/more"}, {"/more"}}},
	"allow_uids":              {values: [3][]string{{"1"}, {"2", "3"}, {"4"}}},
	"pool_bytes":              one("0", "1MiB", "2MiB"),
	"stock_bytes":             one("0", "1MiB", "2MiB"),
	"pool_half_life":          one("1s", "10ms", "1h0m0s"),
	"warm":                    {values: [3][]string{{"1MiB:1"}, {"2MiB:2", "4MiB:0"}, {"8MiB:3"}}},
	"pressure_moderate":       one("60/50", "50/40", "61.5/33.3"),
	"pressure_high":           one("75/70", "88/81", "84.9/80.1"),
	"pressure_critical":       one("99/95", "96/92", "100/93"),
	"pressure_basis":          one("unreclaimable", "unreclaimable", "unreclaimable"),
	"pressure_signals":        one("off", "off", "off"),
	"pressure_relief":         one("off", "off", "off"),
	"demote":                  one("off", "off", "off"),
	"churn_guard":             one("off", "off", "off"),
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
	"revoke_overdue":          one("refuse", "end", "refuse"),
	"revoke_end_grace":        one("1s", "2s", "3s"),
	"undo_after":              one("1s", "2s", "3s"),
	"keep_answers":            one("11m0s", "12m0s", "13m0s"),
	"max_answers":             one("100", "101", "102"),
	"max_sessions":            one("1", "2", "3"),
	"log_level":               one("debug", "warn", "error"),
	"log_format":              one("json", "json", "json"),
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
