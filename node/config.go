package node

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/pressure"
)

// Config is everything that can be set about a node. Load makes one from flags,
// environment, file and defaults, and checks it; Defaults makes one from defaults
// alone. The table in config_settings.go is the one place that names, parses,
// explains and defaults each field: a field without a row there is one of the last
// four, which the program sets. A Config is a value; whoever holds one may change its copy.
type Config struct {
	// Node is the node's name on the bus: one token, unique in the cluster.
	Node string

	// Listen is host:port of the embedded NATS server; port 0 is a free one.
	// Without effect where NATSURL is set.
	Listen string
	// NATSURL is an existing server, or several separated by commas; "" runs the embedded one.
	NATSURL string
	// NATSCredentials is the path of a .creds file, shown to the server of NATSURL.
	NATSCredentials string
	// NATSNKey is the path of a file with the seed of a user's nkey, by which the server
	// of NATSURL knows us. NATSUsername beside it is the name of that user, whose inbox is
	// named after it.
	NATSNKey string
	// NATSUsername and NATSPassword are shown to the server of NATSURL, and asked from
	// every client by the embedded one.
	NATSUsername, NATSPassword string
	// NATSServerConfig is a nats-server configuration file for the embedded server, for
	// accounts, permissions, TLS and clusters.
	NATSServerConfig string

	// Tenants have accounts of their own on the server; none: everybody is the default
	// tenant's operator.
	Tenants []TenantSpec
	// TLSCert, TLSKey and TLSCA are files in PEM, for the embedded server and for
	// connections to another. TLSVerify asks clients of the embedded one for certificates.
	TLSCert, TLSKey, TLSCA string
	TLSVerify              bool

	// StateDir holds JetStream's files, RuntimeDir the sockets. Absolute paths.
	StateDir, RuntimeDir string

	// Devices are the memory devices, at least one.
	Devices []DeviceSpec
	// GPUs says which GPUs of the machine become devices. CUDALibrary and NVMLLibrary are the
	// names or paths of the driver's libraries, "" for NVIDIA's own.
	GPUs                     GPUMode
	CUDALibrary, NVMLLibrary string
	// ForgetDevices are the ids of devices that are no longer there: what an earlier node
	// granted on them is let go of instead of kept.
	ForgetDevices []string
	// ModelRoots are the folders that models may be loaded from, absolute paths.
	// None: no model can be loaded by path.
	ModelRoots []string
	// AllowUIDs are users beside the node's own and root who may use the data socket.
	AllowUIDs []uint32

	// Ephemeral drops all grants and models when the node stops.
	Ephemeral bool
	// TakeOver ends a node that runs, instead of refusing to start beside it.
	TakeOver bool
	// VaultOff runs without the vault: nothing survives the process. For measurements only.
	VaultOff bool
	// VaultTimeout is how long the vault keeps memory for a node that does not return.
	VaultTimeout time.Duration

	// HTTP is HOST:PORT of metrics and probes, "" for none; HTTPRemote lets it be another
	// address than loopback.
	HTTP       string
	HTTPRemote bool
	// OTLPEndpoint is the URL of a collector of traces, "" for none.
	OTLPEndpoint string

	LogLevel  slog.Level
	LogFormat LogFormat

	// JetStream keeps the history of events on disk.
	JetStream bool
	// JetStreamBytes bounds the embedded server's files, EventsBytes and EventsAge the
	// stream of events in them.
	JetStreamBytes, EventsBytes int64
	EventsAge                   time.Duration

	// Thresholds are where the pressure levels are entered and left, PressureBasis which
	// bytes count.
	Thresholds    pressure.Thresholds
	PressureBasis pressure.Basis
	// SignalsOff ignores what the kernel says beside the figures; ReliefOff, for
	// measurements, releases nothing because of pressure.
	SignalsOff, ReliefOff bool
	// DemoteOff drops the models that go from a GPU to make room, instead of keeping them in main
	// memory where it has room.
	DemoteOff bool
	// GuardOff lets what was just loaded go as soon as anything else lacks the room.
	GuardOff bool
	// Dwell and DwellCritical are how long a level holds before it falls, UnloadHold how
	// long a fall waits for unloads in flight, Reminder the period of reminders.
	Dwell, DwellCritical, UnloadHold, Reminder time.Duration
	// SampleRest and SampleShortest bound the period of samples of outside use.
	SampleRest, SampleShortest time.Duration

	// ReserveBytes of every device are never granted.
	ReserveBytes int64
	// PoolBytes bounds the idle memory kept warm on a device, beside an eighth of the
	// device; see PoolBytesOf. Warm are the classes kept ready in it; half of what it has
	// beyond them is given back in each PoolHalfLife of rest.
	PoolBytes    int64
	PoolHalfLife time.Duration
	// StockBytes bounds the main memory that a node with GPUs keeps of models that were dropped from
	// it, for the next that come down; see StockBytesOf. It wanes as the pool does.
	StockBytes int64
	Warm       []ledger.WarmClass

	// LoadWorkers read one model at a time, Loads models are read at a time, and
	// CopyWorkers make and clear memory of one device.
	LoadWorkers, Loads, CopyWorkers int
	// Blocking, if set, is told when so many goroutines begin (more than 0) or end (less) to
	// sit in system calls, 0 when one is about to sit in a short one; see places.
	Blocking func(n int)

	// ResumeGrace is how long a session may stay away after a take-over.
	ResumeGrace time.Duration
	// RevokeOverdue is what follows where memory is held past the deadline of its revocation,
	// RevokeEndGrace how long a process that is told to end may take before it is killed.
	RevokeOverdue  ledger.Overdue
	RevokeEndGrace time.Duration
	// UndoAfter is how long a grant that was answered as queued waits to be fetched.
	UndoAfter time.Duration
	// KeepAnswers is how long outcomes are remembered for retries, MaxAnswers how many.
	KeepAnswers time.Duration
	MaxAnswers  int
	// MaxSessions bounds the sessions on the data socket.
	MaxSessions int
	// DrainTimeout bounds a clean stop.
	DrainTimeout time.Duration

	// Log takes the node's records; nil discards them. Set by the program, see Logger.
	Log *slog.Logger
	// Version is the program's, SemVer. Set by the program.
	Version string
	// VaultCommand starts a vault process, see VaultArgs; none: a vault must be running.
	// Set by the program.
	VaultCommand []string

	file    string // the configuration file that was read, "" for none
	origins map[string]Origin
}

// Names of the sockets in RuntimeDir. The longest decides how long RuntimeDir may be.
const (
	dataSocketName  = "data.sock"
	vaultSocketName = "vault.sock"
)

// DataSocket is the path of the data socket.
func (c *Config) DataSocket() string { return filepath.Join(c.RuntimeDir, dataSocketName) }

// VaultSocket is the path of the vault's socket.
func (c *Config) VaultSocket() string { return filepath.Join(c.RuntimeDir, vaultSocketName) }

// VaultLog is the file that gets what a vault started by this node says.
func (c *Config) VaultLog() string { return filepath.Join(c.RuntimeDir, "vault.log") }

// VaultArgs are the arguments with which the program is the vault of this node.
func (c *Config) VaultArgs() []string {
	return []string{"vault", "--runtime-dir", c.RuntimeDir, "--vault-timeout", c.VaultTimeout.String(),
		"--log-level", strings.ToLower(c.LogLevel.String()), "--log-format", c.LogFormat.String()}
}

// JetStreamDir is where the embedded server keeps streams, "" for nowhere.
func (c *Config) JetStreamDir() string {
	if !c.JetStream {
		return ""
	}
	return filepath.Join(c.StateDir, "jetstream")
}

// History is the bound of the stream of events.
func (c *Config) History() bus.HistoryConfig {
	return bus.HistoryConfig{MaxAge: c.EventsAge, MaxBytes: c.EventsBytes}
}

// Pressure is how levels are judged.
func (c *Config) Pressure() pressure.Config {
	return pressure.Config{Thresholds: c.Thresholds, Basis: c.PressureBasis, Dwell: c.Dwell, DwellCritical: c.DwellCritical,
		UnloadHold: c.UnloadHold, Reminder: c.Reminder}
}

// Sampling is how often the outside is looked at.
func (c *Config) Sampling(d device.Info) pressure.Sampling {
	s := pressure.Sampling{Rest: c.SampleRest, Shortest: c.SampleShortest}
	if d.Type == device.RAM {
		s.FastestFill = ramFill
	}
	return s
}

// ramFill is how fast others can fill main memory, in bytes a second: pages are zeroed on
// first touch, which takes a processor as long as writing them.
const ramFill = 6e9

// PoolBytesOf is the bound of a device's warm pool: PoolBytes, and never more than an
// eighth of the device, so that a small device is not all pool.
func (c *Config) PoolBytesOf(d DeviceSpec) int64 { return min(c.PoolBytes, d.Bytes/8) }

// StockBytesOf is the bound of what is kept of a device of main memory: StockBytes, and never more
// than half of the device.
func (c *Config) StockBytesOf(d DeviceSpec) int64 { return min(c.StockBytes, d.Bytes/2) }

// ClientURL is where a client of this configuration finds the node: NATSURL, or the
// embedded server as seen from this machine.
func (c *Config) ClientURL() string {
	if c.NATSURL != "" {
		return c.NATSURL
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "nats://" + c.Listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "nats://" + net.JoinHostPort(host, port)
}

// DeviceKind says which driver a device has.
type DeviceKind string

// The kinds of devices.
const (
	DeviceRAM DeviceKind = "ram" // main memory, package device/hostram
	DeviceSim DeviceKind = "sim" // a simulated GPU, package device/sim
	// DeviceCUDA is a GPU of NVIDIA's, package device/cuda, in programs that have it (HasGPUs).
	DeviceCUDA DeviceKind = "cuda"
)

// Type is the type of memory of a device of this kind.
func (k DeviceKind) Type() device.Type {
	switch k {
	case DeviceRAM:
		return device.RAM
	case DeviceSim, DeviceCUDA:
		return device.VRAM
	}
	return device.Unknown
}

// DeviceSpec is one device as configured.
type DeviceSpec struct {
	Kind DeviceKind
	// ID is the device's name on the wire, one token.
	ID string
	// Bytes is its size, a multiple of 2 MiB: of main memory and of a GPU how much the node may
	// use (0: all of a GPU), of a simulated device how much there is.
	Bytes int64
	// GPU is the number or the UUID of a GPU; "" is the number at the end of ID.
	GPU string
	// Bound has main memory come from one NUMA node, NUMANode.
	Bound    bool
	NUMANode int
	// BandwidthBytesPerSecond and Latency are a simulated device's; 0: none.
	BandwidthBytesPerSecond int64
	Latency                 time.Duration
}
