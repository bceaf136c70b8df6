package doctor

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/device/hostram"
)

// Here is this machine, for a node with these folders and sockets. streams asks the node's
// NATS server.
func Here(runtimeDir, stateDir string, sockets []string, streams func(ctx context.Context) (Streams, error)) *Machine {
	program, err := os.Executable()
	if err != nil {
		program = "" // then what lies beside it is not looked at
	}
	return &Machine{
		Files: os.DirFS("/"), Program: program, UID: os.Geteuid(), RuntimeDir: runtimeDir, StateDir: stateDir, Sockets: sockets,
		OpenFiles: limit(unix.RLIMIT_NOFILE), Memlock: limit(unix.RLIMIT_MEMLOCK),
		Memory:       func() (hostmem.Figures, error) { return hostmem.Read(hostmem.Config{}) },
		NUMA:         numaNodes,
		Device:       tryMemory,
		Synchronized: synchronized,
		Streams:      streams,
	}
}

// limit reads a resource limit; one that cannot be read is none.
func limit(resource int) Limit {
	var r unix.Rlimit
	if err := unix.Getrlimit(resource, &r); err != nil {
		return Limit{Unlimited, Unlimited}
	}
	return Limit{r.Cur, r.Max}
}

// tryMemory makes the driver of main memory, which probes leases and huge pages, and
// drops it.
func tryMemory() ([]string, error) {
	d, err := hostram.New(hostram.Config{ID: "doctor"})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	s, err := d.Sample()
	return s.Reasons, err
}

// numaNodes lists the nodes, and tries to bind memory to the first.
func numaNodes() (nodes []hostmem.Node, unbound, err error) {
	nodes, err = hostmem.Nodes(hostmem.Config{})
	if err == nil && len(nodes) > 0 {
		unbound = hostram.TryBind(nodes[0].ID)
	}
	return nodes, unbound, err
}

// synchronized asks the kernel whether somebody keeps its clock right.
func synchronized() (bool, error) {
	state, err := unix.Adjtimex(&unix.Timex{})
	return state != unix.TIME_ERROR, err
}
