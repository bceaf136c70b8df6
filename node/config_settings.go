package node

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/tracing"
)

// Scope says which programs a setting concerns.
type Scope uint8

// The scopes. A setting may have several.
const (
	ScopeNode   Scope = 1 << iota // the node: `isobar run`
	ScopeVault                    // the vault
	ScopeClient                   // programs that talk to a node
)

// Setting describes one thing that can be set. Key is its name in the file; the
// flag is --Flag, the environment variable Env.
type Setting struct {
	Key, Flag, Env string
	// Help is one sentence in lower case without a full stop.
	Help string
	// Form is how a value is written: SIZE, HOST:PORT and so on; "" for a switch.
	Form string
	// Group is a heading for people.
	Group string
	// List settings have any number of values: a flag given again, a sequence in the file,
	// in the environment separated by any of Separator's characters.
	List      bool
	Separator string
	// Switch settings are true or false; their flag needs no value.
	Switch bool
	// Secret values are never shown.
	Secret bool
	// Hidden settings are for tests and measurements.
	Hidden bool
	Scope  Scope
}

// setting is a row of the table.
type setting struct {
	Setting
	value
	// fallback gives the default as text, and the reason for it. c has the settings of
	// the rows above.
	fallback func(w *World, c *Config) (texts []string, reason string, err error)
}

// always is a default that depends on nothing.
func always(text, reason string) func(*World, *Config) ([]string, string, error) {
	return func(*World, *Config) ([]string, string, error) { return []string{text}, reason, nil }
}

// none is the default of a list that is empty.
func none(reason string) func(*World, *Config) ([]string, string, error) {
	return func(*World, *Config) ([]string, string, error) { return []string{}, reason, nil }
}

// The groups.
const (
	groupNode     = "Node"
	groupNATS     = "NATS"
	groupDevices  = "Devices and models"
	groupPressure = "Pressure"
	groupWork     = "Work and limits"
	groupOperate  = "Metrics and traces"
	groupLog      = "Log"
)

const week = 7 * 24 * time.Hour

// table is every setting, in the order in which people read them. It is a function
// so that nothing is global; Load calls it once.
func table() []setting {
	const (
		node   = ScopeNode
		vault  = ScopeVault
		client = ScopeClient
	)
	rows := []setting{
		{Setting{Key: "node", Form: "NAME", Group: groupNode, Scope: node,
			Help: "the node's name on the bus, unique in a cluster"},
			text(func(c *Config) *string { return &c.Node }, nodeName), defaultNode},
		{Setting{Key: "state_dir", Form: "DIR", Group: groupNode, Scope: node,
			Help: "the folder of what is kept on disk: the history of events"},
			path(func(c *Config) *string { return &c.StateDir }), defaultStateDir},
		{Setting{Key: "runtime_dir", Form: "DIR", Group: groupNode, Scope: node | vault,
			Help: "the folder of the data socket and the vault's socket, private to this user"},
			path(func(c *Config) *string { return &c.RuntimeDir }), defaultRuntimeDir},
		{Setting{Key: "ephemeral", Switch: true, Group: groupNode, Scope: node,
			Help: "drop all grants and models when the node stops, instead of keeping them for the next one"},
			flag(func(c *Config) *bool { return &c.Ephemeral }), always("false", "memory outlives a restart")},
		{Setting{Key: "take_over", Switch: true, Group: groupNode, Scope: node,
			Help: "end a node that is running, and take its memory over"},
			flag(func(c *Config) *bool { return &c.TakeOver }), always("false", "two nodes must not fight for one memory")},
		{Setting{Key: "vault", Form: "on|off", Hidden: true, Group: groupNode, Scope: node,
			Help: "off runs without the vault, so that nothing survives the process; for measurements only"},
			oneOf(func(c *Config) *bool { return &c.VaultOff }, onOff, false, true), always("on", "grants survive the node")},
		{Setting{Key: "vault_timeout", Form: "DURATION", Group: groupNode, Scope: node | vault,
			Help: "how long the vault keeps memory for a node that does not return"},
			duration(func(c *Config) *time.Duration { return &c.VaultTimeout }, time.Second, 52*week),
			always("10m0s", "long enough to upgrade, short enough not to hold a machine's memory for nobody")},
		{Setting{Key: "drain_timeout", Form: "DURATION", Group: groupNode, Scope: node,
			Help: "how long a clean stop may take"},
			duration(func(c *Config) *time.Duration { return &c.DrainTimeout }, 0, time.Hour),
			always("10s", "well under the 90 s after which systemd kills")},

		{Setting{Key: "listen", Form: "HOST:PORT", Group: groupNATS, Scope: node | client,
			Help: "where the embedded NATS server listens; port 0 is any free one"},
			text(func(c *Config) *string { return &c.Listen }, hostPort),
			always("127.0.0.1:4222", "NATS's own port, for this machine alone")},
		{Setting{Key: "nats_url", Form: "URL", Group: groupNATS, Scope: node | client,
			Help: "an existing NATS server to use instead of the embedded one; several separated by commas"},
			text(func(c *Config) *string { return &c.NATSURL }, natsURL), always("", "the embedded server needs no other program")},
		{Setting{Key: "nats_credentials", Form: "FILE", Group: groupNATS, Scope: node | client,
			Help: "a .creds file to show to that server"},
			path(func(c *Config) *string { return &c.NATSCredentials }), always("", "the server is taken to ask for none")},
		{Setting{Key: "nats_nkey", Form: "FILE", Group: groupNATS, Scope: node | client,
			Help: "a file with the seed of an nkey (SU…), by which the server knows the user nats_username"},
			path(func(c *Config) *string { return &c.NATSNKey }), always("", "the server is taken to ask for none")},
		{Setting{Key: "nats_username", Form: "NAME", Group: groupNATS, Scope: node | client,
			Help: "the user to connect as; the embedded server asks every client for it"},
			text(func(c *Config) *string { return &c.NATSUsername }, nil), always("", "on loopback nobody is asked")},
		{Setting{Key: "nats_password", Form: "PASSWORD", Secret: true, Group: groupNATS, Scope: node | client,
			Help: "its password; better in the environment or a private file, since others can see a flag"},
			text(func(c *Config) *string { return &c.NATSPassword }, nil), always("", "on loopback nobody is asked")},
		{Setting{Key: "nats_server_config", Form: "FILE", Group: groupNATS, Scope: node,
			Help: "a nats-server configuration file for the embedded server: accounts, permissions, TLS, clusters"},
			path(func(c *Config) *string { return &c.NATSServerConfig }), always("", "one server for this machine needs none")},
		{Setting{Key: "tenants", Flag: "tenant", Form: "JSON", List: true, Separator: "\n", Secret: true, Group: groupNATS, Scope: node,
			Help: "a tenant: its users with their roles, its uids and quotas; better in the file, as a list of mappings"},
			list(func(c *Config) *[]TenantSpec { return &c.Tenants }, parseTenant, showTenant), none("everybody who may connect is one tenant")},
		{Setting{Key: "tls_cert", Form: "FILE", Group: groupNATS, Scope: node | client,
			Help: "the embedded server's certificate, or the one to show to another; PEM"},
			path(func(c *Config) *string { return &c.TLSCert }), always("", "on loopback nothing is encrypted")},
		{Setting{Key: "tls_key", Form: "FILE", Group: groupNATS, Scope: node | client,
			Help: "its key"},
			path(func(c *Config) *string { return &c.TLSKey }), always("", "on loopback nothing is encrypted")},
		{Setting{Key: "tls_ca", Form: "FILE", Group: groupNATS, Scope: node | client,
			Help: "the authority of the server's certificate, and of clients'"},
			path(func(c *Config) *string { return &c.TLSCA }), always("", "the machine's authorities")},
		{Setting{Key: "tls_verify", Switch: true, Group: groupNATS, Scope: node,
			Help: "ask every client of the embedded server for a certificate of that authority"},
			flag(func(c *Config) *bool { return &c.TLSVerify }), always("false", "clients show passwords or nkeys")},
		{Setting{Key: "jetstream", Switch: true, Group: groupNATS, Scope: node,
			Help: "keep the history of events on disk, in the embedded server"},
			flag(func(c *Config) *bool { return &c.JetStream }), always("true", "who comes late can read what happened")},
		{Setting{Key: "jetstream_bytes", Form: "SIZE", Group: groupNATS, Scope: node,
			Help: "the most that the embedded server keeps on disk"},
			size(func(c *Config) *int64 { return &c.JetStreamBytes }, 1<<20), always("1GiB", "four times the events, room for streams of others")},
		{Setting{Key: "events_bytes", Form: "SIZE", Group: groupNATS, Scope: node,
			Help: "the most that the history of events takes; the oldest go first"},
			size(func(c *Config) *int64 { return &c.EventsBytes }, 1<<20), always("256MiB", "about a million events")},
		{Setting{Key: "events_age", Form: "DURATION", Group: groupNATS, Scope: node,
			Help: "how long events are kept"},
			duration(func(c *Config) *time.Duration { return &c.EventsAge }, time.Second, 520*week), always("24h0m0s", "a day shows every daily pattern")},

		{Setting{Key: "devices", Flag: "device", Form: "KIND:ID[@NODE][=SIZE]", List: true, Separator: " ;", Group: groupDevices, Scope: node,
			Help: "a memory device: ram (of one NUMA node with @), cuda (a GPU: cuda:gpu-0=40GiB limits it; ,gpu=UUID names one) or sim (,bandwidth=SIZE,latency=DURATION); where only cuda devices are named, main memory stays"},
			list(func(c *Config) *[]DeviceSpec { return &c.Devices }, ParseDevice, DeviceSpec.String), defaultDevices},
		{Setting{Key: "gpus", Form: "auto|on|off", Group: groupDevices, Scope: node,
			Help: "which GPUs become devices: those named by device, or every one where none is named; on takes every one in any case"},
			oneOf(func(c *Config) *GPUMode { return &c.GPUs }, GPUMode.String, GPUsAuto, GPUsOn, GPUsOff), always("auto", "a machine's GPUs are there to be shared")},
		{Setting{Key: "cuda_library", Form: "FILE", Hidden: true, Group: groupDevices, Scope: node,
			Help: "the CUDA driver's library, where it is not libcuda.so.1 of the loader's path"},
			path(func(c *Config) *string { return &c.CUDALibrary }), always("", "the loader finds it")},
		{Setting{Key: "nvml_library", Form: "FILE", Hidden: true, Group: groupDevices, Scope: node,
			Help: "NVML's library, where it is not libnvidia-ml.so.1 of the loader's path"},
			path(func(c *Config) *string { return &c.NVMLLibrary }), always("", "the loader finds it")},
		{Setting{Key: "forget_devices", Flag: "forget-device", Form: "ID", List: true, Separator: " ,", Group: groupDevices, Scope: node,
			Help: "a device that is no longer configured: let go of what was granted on it, which is kept otherwise"},
			list(func(c *Config) *[]string { return &c.ForgetDevices }, deviceID, same), none("memory outlives a forgotten flag")},
		{Setting{Key: "reserve_bytes", Form: "SIZE", Group: groupDevices, Scope: node,
			Help: "bytes of every device that are never granted"},
			size(func(c *Config) *int64 { return &c.ReserveBytes }, 0), always("0", "the size of a device says already what the node may use")},
		{Setting{Key: "model_roots", Flag: "model-root", Form: "DIR", List: true, Separator: ":", Group: groupDevices, Scope: node,
			Help: "a folder that models may be loaded from"},
			list(func(c *Config) *[]string { return &c.ModelRoots }, absolute, same),
			none("a client must not make the node read files that nobody offered")},
		{Setting{Key: "allow_uids", Flag: "allow-uid", Form: "UID", List: true, Separator: ",", Group: groupDevices, Scope: node,
			Help: "a user beside this one and root who may map memory"},
			list(func(c *Config) *[]uint32 { return &c.AllowUIDs }, parseUID, showUID), none("one user is one trust domain")},
		{Setting{Key: "pool_bytes", Form: "SIZE", Group: groupDevices, Scope: node,
			Help: "idle memory kept warm on each device, at most an eighth of it; given up before anything is refused"},
			size(func(c *Config) *int64 { return &c.PoolBytes }, 0), always("512MiB", "twice what the warm classes hold, so that what is returned is kept")},
		{Setting{Key: "pool_half_life", Form: "DURATION", Group: groupDevices, Scope: node,
			Help: "in what time a device that rests gives back half of the idle memory that it keeps beyond its warm segments"},
			duration(func(c *Config) *time.Duration { return &c.PoolHalfLife }, time.Millisecond, 24*time.Hour), always("10s", "a pause of a second costs little, a minute's gives nearly all back")},
		{Setting{Key: "stock_bytes", Form: "SIZE", Group: groupDevices, Scope: node,
			Help: "main memory of models that were dropped from it which a node with GPUs keeps for the next to come down, at most half of each device; counts as free, wanes as the pool does"},
			size(func(c *Config) *int64 { return &c.StockBytes }, 0), always("64GiB", "making memory is what a demotion waits for; whoever else needs it has it")},
		{Setting{Key: "warm", Form: "SIZE:COUNT", List: true, Separator: ",", Group: groupDevices, Scope: node,
			Help: "how many cleared segments of a size are kept ready"},
			list(func(c *Config) *[]ledger.WarmClass { return &c.Warm }, parseWarm, showWarm), defaultWarm},

		{Setting{Key: "pressure_moderate", Form: "ENTER[/LEAVE]", Group: groupPressure, Scope: node,
			Help: "where the level moderate is entered and left, in percent of a device's limit"},
			threshold(func(c *Config) *pressure.Threshold { return &c.Thresholds.Moderate }, 5), always("70/65", "time to think")},
		{Setting{Key: "pressure_high", Form: "ENTER[/LEAVE]", Group: groupPressure, Scope: node,
			Help: "the same for high, on which unread models are released"},
			threshold(func(c *Config) *pressure.Threshold { return &c.Thresholds.High }, 5), always("85/80", "room for one more model of usual size")},
		{Setting{Key: "pressure_critical", Form: "ENTER[/LEAVE]", Group: groupPressure, Scope: node,
			Help: "the same for critical"},
			threshold(func(c *Config) *pressure.Threshold { return &c.Thresholds.Critical }, 4), always("95/91", "the next request may be refused")},
		{Setting{Key: "pressure_basis", Form: "used|unreclaimable", Group: groupPressure, Scope: node,
			Help: "which bytes count: all used ones, or without idle models, for hosts where nothing allocates behind the node's back"},
			oneOf(func(c *Config) *pressure.Basis { return &c.PressureBasis }, pressure.Basis.String, pressure.BasisUsed, pressure.BasisUnreclaimable),
			always("used", "others may allocate without asking")},
		{Setting{Key: "pressure_signals", Form: "on|off", Group: groupPressure, Scope: node,
			Help: "whether the kernel's own word counts for main memory: PSI, and the events of control groups"},
			oneOf(func(c *Config) *bool { return &c.SignalsOff }, onOff, false, true), always("on", "processes wait for memory before figures show why")},
		{Setting{Key: "pressure_relief", Form: "on|off", Hidden: true, Group: groupPressure, Scope: node,
			Help: "off releases no model for the sake of pressure, only for requests; for measurements only"},
			oneOf(func(c *Config) *bool { return &c.ReliefOff }, onOff, false, true), always("on", "others may allocate without asking")},
		{Setting{Key: "demote", Form: "on|off", Group: groupPressure, Scope: node,
			Help: "whether a model that goes from a GPU to make room is kept in main memory, where that has room below high and is worth the way"},
			oneOf(func(c *Config) *bool { return &c.DemoteOff }, onOff, false, true), always("on", "from there it is back sooner than from its file")},
		{Setting{Key: "churn_guard", Form: "on|off", Group: groupPressure, Scope: node,
			Help: "whether a model that was just loaded is kept for as long as its load took (250 ms to 5 s) from requests that are worth no more"},
			oneOf(func(c *Config) *bool { return &c.GuardOff }, onOff, false, true), always("on", "two who load in turn would evict what the other has not used yet")},
		{Setting{Key: "pressure_dwell", Form: "DURATION", Group: groupPressure, Scope: node,
			Help: "how long use must stay lower before the level falls"},
			duration(func(c *Config) *time.Duration { return &c.Dwell }, time.Millisecond, time.Hour), always("3s", "noise does not flap, recovery shows")},
		{Setting{Key: "pressure_dwell_critical", Form: "DURATION", Group: groupPressure, Scope: node,
			Help: "the same from critical"},
			duration(func(c *Config) *time.Duration { return &c.DwellCritical }, time.Millisecond, time.Hour), always("10s", "an all-clear that does not hold is worse than none")},
		{Setting{Key: "pressure_unload_hold", Form: "DURATION", Group: groupPressure, Scope: node,
			Help: "the longest that a fall waits for unloads in flight"},
			duration(func(c *Config) *time.Duration { return &c.UnloadHold }, time.Millisecond, time.Hour), always("10s", "their bytes may yet turn out to be pinned")},
		{Setting{Key: "pressure_reminder", Form: "DURATION", Group: groupPressure, Scope: node,
			Help: "the time between reminders while critical with a deficit"},
			duration(func(c *Config) *time.Duration { return &c.Reminder }, 10*time.Millisecond, time.Hour), always("1s", "who missed the event can still act")},
		{Setting{Key: "sample_rest", Form: "DURATION", Group: groupPressure, Scope: node,
			Help: "the period of samples of what others use, with ample room"},
			duration(func(c *Config) *time.Duration { return &c.SampleRest }, time.Millisecond, time.Hour), always("1s", "costs nothing that shows")},
		{Setting{Key: "sample_shortest", Form: "DURATION", Group: groupPressure, Scope: node,
			Help: "the same near the limit"},
			duration(func(c *Config) *time.Duration { return &c.SampleShortest }, time.Millisecond, time.Hour), always("50ms", "a sample costs microseconds")},

		{Setting{Key: "load_workers", Form: "COUNT", Group: groupWork, Scope: node,
			Help: "readers of one model that is being loaded"},
			count(func(c *Config) *int { return &c.LoadWorkers }, 1, 256), defaultLoadWorkers},
		{Setting{Key: "loads", Form: "COUNT", Group: groupWork, Scope: node,
			Help: "models that are loaded at a time"},
			count(func(c *Config) *int { return &c.Loads }, 1, 64), always("2", "a small one need not wait for a large one, a disk is not thrashed")},
		{Setting{Key: "copy_workers", Form: "COUNT", Group: groupWork, Scope: node,
			Help: "workers of a device that make and clear memory"},
			count(func(c *Config) *int { return &c.CopyWorkers }, 1, 256), defaultCopyWorkers},
		{Setting{Key: "resume_grace", Form: "DURATION", Group: groupWork, Scope: node,
			Help: "how long a client may take to come back after the node has"},
			duration(func(c *Config) *time.Duration { return &c.ResumeGrace }, time.Second, 24*time.Hour), always("30s", "a client tries again within a second; one that does not is gone")},
		{Setting{Key: "revoke_overdue", Form: "keep|refuse|end", Group: groupWork, Scope: node,
			Help: "what follows where a process holds memory past the deadline of its revocation: count it, refuse its tenant more of the device, or end the process"},
			oneOf(func(c *Config) *ledger.Overdue { return &c.RevokeOverdue }, ledger.Overdue.String, ledger.OverdueKeep, ledger.OverdueRefuse, ledger.OverdueEnd),
			always("keep", "a process is nobody's to end unless somebody says so")},
		{Setting{Key: "revoke_end_grace", Form: "DURATION", Group: groupWork, Scope: node,
			Help: "how long a process that was sent SIGTERM may take before SIGKILL"},
			duration(func(c *Config) *time.Duration { return &c.RevokeEndGrace }, time.Millisecond, time.Hour), always("5s", "time to write a file, not to serve a queue")},
		{Setting{Key: "undo_after", Form: "DURATION", Group: groupWork, Scope: node,
			Help: "how long a grant that was answered as queued waits to be fetched"},
			duration(func(c *Config) *time.Duration { return &c.UndoAfter }, time.Second, 24*time.Hour), always("1m0s", "as long as a claim lives")},
		{Setting{Key: "keep_answers", Form: "DURATION", Group: groupWork, Scope: node,
			Help: "how long outcomes are remembered, so that a repeated request has no second effect"},
			duration(func(c *Config) *time.Duration { return &c.KeepAnswers }, 10*time.Minute, week), always("10m0s", "the contract's least")},
		{Setting{Key: "max_answers", Form: "COUNT", Group: groupWork, Scope: node,
			Help: "how many outcomes are remembered"},
			count(func(c *Config) *int { return &c.MaxAnswers }, 100, 10_000_000), always("200000", "three hundred commands a second for the time above")},
		{Setting{Key: "max_sessions", Form: "COUNT", Group: groupWork, Scope: node,
			Help: "how many sessions may be on the data socket"},
			count(func(c *Config) *int { return &c.MaxSessions }, 1, 1_000_000), always("4096", "each holds descriptors")},

		{Setting{Key: "http", Form: "HOST:PORT|off", Group: groupOperate, Scope: node,
			Help: "where /metrics, /livez and /readyz are served"},
			text(func(c *Config) *string { return &c.HTTP }, nil).offOr(hostPort), always("127.0.0.1:4280", "for this machine alone: figures name tenants")},
		{Setting{Key: "http_remote", Switch: true, Group: groupOperate, Scope: node,
			Help: "let that be an address that other machines reach, though nobody is asked who he is"},
			flag(func(c *Config) *bool { return &c.HTTPRemote }), always("false", "a scraper runs beside the node, or a proxy asks who it is")},
		{Setting{Key: "otlp_endpoint", Form: "URL|off", Group: groupOperate, Scope: node,
			Help: "a collector of OpenTelemetry traces that takes OTLP over HTTP, such as http://127.0.0.1:4318"},
			text(func(c *Config) *string { return &c.OTLPEndpoint }, nil).offOr(tracing.CheckEndpoint), always("off", "nothing is sent anywhere unasked")},

		{Setting{Key: "log_level", Form: "debug|info|warn|error", Group: groupLog, Scope: node | vault,
			Help: "the least important records that are written"},
			oneOf(func(c *Config) *slog.Level { return &c.LogLevel }, logLevel, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError),
			always("info", "one record a command")},
		{Setting{Key: "log_format", Form: "text|json", Group: groupLog, Scope: node | vault,
			Help: "how records are written"},
			oneOf(func(c *Config) *LogFormat { return &c.LogFormat }, LogFormat.String, LogText, LogJSON), always("text", "for people")},
	}
	for i := range rows {
		s := &rows[i].Setting
		if s.Flag == "" {
			s.Flag = strings.ReplaceAll(s.Key, "_", "-")
		}
		s.Env = envPrefix + strings.ToUpper(s.Key)
	}
	return rows
}

// Settings describes every setting, in the order of the documentation.
func Settings() []Setting {
	var out []Setting
	for _, s := range table() {
		out = append(out, s.Setting)
	}
	return out
}

func defaultNode(w *World, _ *Config) ([]string, string, error) {
	host, err := w.Hostname()
	if err != nil {
		return []string{"node"}, fmt.Sprintf("the host name is not known: %v", err), nil
	}
	return []string{Token(host)}, "the host's name", nil
}

// Token makes a valid name of any text: lower-case letters, digits and dashes.
func Token(s string) string {
	s, _, _ = strings.Cut(s, ".") // a host's name without its domain
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, s)
	if len(mapped) > 63 {
		mapped = mapped[:63]
	}
	mapped = strings.Trim(mapped, "-")
	if !schemas.ValidToken(mapped) {
		return "node"
	}
	return mapped
}

func defaultWarm(*World, *Config) ([]string, string, error) {
	return []string{"1MiB:64", "4MiB:16", "16MiB:4", "64MiB:1"}, "64 MiB of each: a burst is granted without asking the kernel", nil
}

func defaultLoadWorkers(w *World, _ *Config) ([]string, string, error) {
	return []string{fmt.Sprint(min(max(w.CPUs, 1), 8))}, "one a processor, at most 8: more do not read faster", nil
}

func defaultCopyWorkers(w *World, _ *Config) ([]string, string, error) {
	return []string{fmt.Sprint(min(max(w.CPUs, 1), 4))}, "one a processor, at most 4: memory bandwidth is shared", nil
}
