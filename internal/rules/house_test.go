package rules

// room is what one room of the house may import of the project and of others. A name
// with a trailing "/..." means a package and all below it.
type room struct {
	// imports are the packages of the project that its code may import; a room's own
	// packages are always allowed. tests may be imported by its tests besides.
	imports, tests []string
	// pure rooms have no goroutine, channel, lock, clock, file or network.
	pure bool
}

// house lists every room. The longest name that fits a package is its room. A package
// that fits none fails the test: a new room is a decision.
var house = map[string]room{
	// Leaves.
	"schemas": {},
	"clock":   {},
	"weights": {},

	"health": {imports: []string{"schemas", "clock"}},

	// The outer forms of what schemas declares.
	"codec":     {imports: []string{"schemas"}},
	"fdwire":    {imports: []string{"codec", "clock", "internal/epoll"}},
	"vault":     {imports: []string{"fdwire", "clock", "internal/fdroom"}},
	"dataplane": {imports: []string{"fdwire", "schemas", "codec", "clock"}, tests: []string{"device/..."}},

	// Pure cores.
	"heap":            {pure: true},
	"heap/replay":     {imports: []string{"heap", "eviction", "eviction/replay", "clock"}},
	"pressure":        {pure: true, imports: []string{"clock"}},
	"history":         {pure: true, imports: []string{"clock"}},
	"eviction":        {pure: true, imports: []string{"clock"}},
	"eviction/replay": {imports: []string{"eviction", "clock"}},
	"admission":       {pure: true},
	"ledger":          {pure: true, imports: []string{"admission", "heap", "schemas", "clock", "ledger/store"}},
	"ledger/store":    {pure: true},
	"catalog": {pure: true, imports: []string{"schemas", "clock", "eviction", "ledger", "ledger/store"},
		tests: []string{"ledger/ledgertest"}},

	// Hardware.
	"device": {imports: []string{"clock", "internal/epoll"}},

	// Shells.
	"actors/seam": {tests: []string{"clock"}},
	"actors": {
		imports: []string{"actors/seam", "schemas", "codec", "clock", "device", "device/proctree", "weights", "heap", "ledger/...",
			"catalog", "pressure", "eviction", "history", "vault", "dataplane",
			"eviction/replay", // for what more memory would save, by what was seen
			"fdwire"},         // for fdwire.Peer alone: who a client of the data socket is
		tests: []string{"device/...", "weights/weightstest"},
	},
	"bus":        {imports: []string{"actors", "bus/conn", "schemas/...", "codec", "clock"}, tests: []string{"bus/..."}},
	"bus/conn":   {tests: []string{"bus"}},
	"bus/client": {imports: []string{"bus/conn", "schemas", "codec"}, tests: []string{"bus", "actors", "clock"}},

	// The actors' desk, far away: for programs that hand commands on.
	"bus/forward": {imports: []string{"actors", "bus/client", "schemas"}, tests: []string{"bus", "clock"}},

	// For operators.
	"metrics":          {imports: []string{"actors", "schemas"}, tests: []string{"ledger"}},
	"telemetry":        {imports: []string{"metrics"}},
	"doctor":           {imports: []string{"device/..."}},
	"tracing":          {imports: []string{"clock"}},
	"deploy/dashboard": {tests: []string{"metrics", "schemas"}},

	// Wiring, and what is built on it. The command line parses and calls.
	"node":        {imports: []string{"..."}},
	"node/places": {imports: []string{"clock"}},
	"cmd/node":    {imports: []string{"node/...", "bus/...", "doctor", "schemas", "codec", "clock", "vault"}, tests: []string{"..."}},
	"cmd/bus-test": {imports: []string{"node/...", "bus/client", "bus/conn", "dataplane/client", "schemas/...", "codec", "clock",
		"weights/weightstest", // makes the models that it loads
		"vault"},              // soak compares what the vault holds with what the node says
		tests: []string{"..."}},
	"cmd/bench-eviction": {imports: []string{"eviction", "eviction/replay", "internal/bench"}},
	"cmd/bench-heap":     {imports: []string{"heap", "heap/replay", "eviction/replay", "internal/bench"}},
	"examples":           {imports: []string{"bus/client", "dataplane/client", "schemas"}, tests: []string{"node/nodetest"}},

	// What runs a node elsewhere, held to what the program does.
	"deploy": {tests: []string{"..."}},

	// Programs in Python that are tried with a node and the fake driver.
	"scripts/gpucheck": {tests: []string{"..."}},

	"internal/bench":  {},
	"internal/epoll":  {},
	"internal/fdroom": {},
	"internal/rules":  {},
}

// owners says who may import a library of others, as rooms (with all below them). What
// is not listed may not be imported at all.
var owners = map[string][]string{
	"github.com/asynkron/protoactor-go": {"actors/seam"},

	// NATS. bus-test measures the raw echo that the node is compared with.
	"github.com/nats-io/nats.go":        {"bus", "cmd/bus-test"},
	"github.com/nats-io/nats-server/v2": {"bus", "cmd/bus-test"},
	"github.com/nats-io/jwt/v2":         {"bus", "node/tenancy"},
	"github.com/nats-io/nkeys":          {"bus", "node/tenancy"},
	"github.com/nats-io/nuid":           {"bus"},
	"golang.org/x/crypto":               {"bus"}, // the hash of passwords that nats-server knows

	// Only behind the guard.
	"github.com/vmihailenco/msgpack/v5": {"codec", "fdwire"},

	"github.com/alecthomas/kong":   {"cmd"},
	"go.yaml.in/yaml/v4":           {"node", "cmd/node"},
	"github.com/prometheus/procfs": {"device", "fdwire", "vault", "node", "cmd/bus-test"},
	"golang.org/x/sys": {"clock", "doctor", "fdwire", "vault", "dataplane", "device", "weights", "actors", "bus", "node",
		"cmd", "examples", "internal/epoll", "internal/fdroom"},
	"github.com/google/uuid": {"..."},

	// Shared libraries without cgo. It makes a program need the machine's libc: see doc.go there.
	"github.com/DataDog/sketches-go": {"history"},
	"github.com/ebitengine/purego":   {"device/cuda"},
}

// testLibraries may be imported by tests everywhere, and by packages made for tests.
var testLibraries = []string{
	"pgregory.net/rapid",
	"github.com/anishathalye/porcupine",
	"github.com/cockroachdb/datadriven",
	"go.uber.org/goleak",
	"github.com/santhosh-tekuri/jsonschema/v6",
	// A test may be a plain NATS client, and an odd client of the data socket.
	"github.com/nats-io/nats.go",
	"github.com/nats-io/nats-server/v2",
	"go.yaml.in/yaml/v4",
	"github.com/vmihailenco/msgpack/v5",
	"github.com/prometheus/procfs",
	"golang.org/x/sys",
}

// impureImports may not be imported by a pure room, nor may anything below them.
var impureImports = []string{
	"os", "net", "sync", "syscall", "context", "log", "io/fs", "path/filepath", "math/rand", "math/rand/v2", "crypto/rand",
	"runtime", "testing", "golang.org/x/sys",
}

// pureExceptions are imports that a pure room has for a reason: file → import → why.
var pureExceptions = map[string]map[string]string{
	"ledger/store/region.go": {"sync/atomic": "the commit word is stored as one aligned write"},
	"ledger/store/tx.go":     {"sync/atomic": "the commit word is stored as one aligned write"},
}

// timeFunctions are what only package clock may call. Types and constants of package
// time are everybody's.
var timeFunctions = []string{"Now", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Since", "Until"}

// timeExceptions are the files and folders where package time may tell the time, and why.
// Nowhere may anybody sleep.
var timeExceptions = map[string]string{
	"clock/":            "it is the clock",
	"cmd/bus-test/":     "measures real time on a real machine",
	"cmd/bench-heap/":   "measures real time on a real machine",
	"bus/conn/async.go": "a write deadline of a socket is a time of day",
	"cmd/node/main.go":  "gives the program the world, time included",
	"bus/client/":       "runs in programs of others, who have no clock to inject",
	"examples/":         "are programs of others",
}

// variableExceptions are package-level variables that change, and why: file:name.
var variableExceptions = map[string]string{
	"codec/layout.go:layouts":     "a cache of what reflection says of a type; losing it changes nothing",
	"codec/plan.go:readingPlans":  "a cache of what reflection says of a type; losing it changes nothing",
	"codec/plan.go:changingPlans": "a cache of what reflection says of a type; losing it changes nothing",
	"cmd/node/main.go:version":    "the linker sets it",
	"bus/reply.go:buffers":        "a pool of empty buffers",
}

// maxLines is how long a file may be.
const maxLines = 500

// words may not stand in any tracked file: folders of somebody's machine, where no letter
// stands before them, and the hosts of package registries, which are spelled in two parts
// so that this file names none either.
var words = []string{
	"/home/", "/" + "root/", "/" + "work/",
	"pypi" + ".org", "pythonhosted" + ".org", "proxy.golang" + ".org", "sum.golang" + ".org", "crates" + ".io",
	"registry" + ".npmjs", "deb.debian" + ".org", "repo" + ".maven", "repo1" + ".maven",
}

// wordExceptions are files that need such a word, and why.
var wordExceptions = map[string]string{
	"internal/rules/house_test.go": "has the list",
	"internal/rules/rules_test.go": "shows what is found",
}
