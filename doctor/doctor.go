package doctor

import (
	"cmp"
	"context"
	"io/fs"
	"strings"
	"time"

	"github.com/isobar-project/isobar/device/hostmem"
)

// State is what a check came to.
type State string

// The states, best first.
const (
	OK   State = "ok"
	Warn State = "warn" // works, but less well or less safely than it could
	Fail State = "fail" // a node cannot do its work
)

// Finding is the result of one check.
type Finding struct {
	Check string `json:"check"`
	State State  `json:"state"`
	Text  string `json:"text"`
	// Fix is the command, or the setting, that mends it; "" where nothing must be.
	Fix string `json:"fix,omitempty"`
}

// Limit is a resource limit of this process; Unlimited stands for none.
type Limit struct{ Soft, Hard uint64 }

// Unlimited is a limit that is none.
const Unlimited = ^uint64(0)

// Machine is what is examined. Every field but Program is required.
type Machine struct {
	// Files is the file system from its root, without the leading slash.
	Files fs.FS
	UID   int
	// RuntimeDir and StateDir are the node's, absolute; Sockets the paths of its sockets.
	RuntimeDir, StateDir string
	Sockets              []string
	// Program is the path of this program, "" where it is not known.
	Program            string
	OpenFiles, Memlock Limit
	// Memory reads the machine's figures with those of its control groups.
	Memory func() (hostmem.Figures, error)
	// NUMA lists the NUMA nodes with memory that this process may use; unbound says why
	// memory cannot be bound to one, nil where it can.
	NUMA func() (nodes []hostmem.Node, unbound, err error)
	// Device makes main memory ready as a node does: the error says why it cannot be, notes
	// what is less than it could be.
	Device func() (notes []string, err error)
	// Synchronized tells whether the wall clock follows a reference.
	Synchronized func() (bool, error)
	// Streams asks the NATS server whether it keeps streams.
	Streams func(ctx context.Context) (Streams, error)
}

// Streams is what a NATS server says of JetStream.
type Streams struct {
	// URL is the server that was asked. Answers is false where nobody listens there.
	URL     string
	Answers bool
	Enabled bool
	// Why says why not, where the server says so.
	Why string
}

// patience bounds what is asked over the network.
const patience = 3 * time.Second

// Examine runs every check, in the order in which people read them.
func Examine(ctx context.Context, m *Machine) []Finding {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return []Finding{
		m.kernel(), m.leases(), m.hugePages(), m.memlock(), m.openFiles(), m.cgroup(), m.numa(), m.pressure(),
		m.runtimeDir(), m.sockets(), m.stateDir(), m.streams(ctx), m.gpu(), m.time(),
	}
}

// Worst is the worst state among findings.
func Worst(fs []Finding) State {
	worst := OK
	for _, f := range fs {
		if f.State == Fail || f.State == Warn && worst == OK {
			worst = f.State
		}
	}
	return worst
}

func ok(check, text string) Finding { return Finding{Check: check, State: OK, Text: text} }

// read is a file's text without the white space around it.
func (m *Machine) read(path string) (string, error) {
	b, err := fs.ReadFile(m.Files, strings.TrimPrefix(path, "/"))
	return strings.TrimSpace(string(b)), err
}

func (m *Machine) stat(path string) (fs.FileInfo, error) {
	return fs.Stat(m.Files, cmp.Or(strings.TrimPrefix(path, "/"), "."))
}
