package node

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/device/hostram"
)

// NUMA is what a machine says of its nodes.
type NUMA struct {
	// Nodes are those with memory that this process may use.
	Nodes []hostmem.Node
	// Unbound says why memory cannot be bound to one of them, nil where it can.
	Unbound error
}

// machineNUMA looks at this machine. What it cannot read it takes for a machine without
// nodes: main memory is served all the same.
func machineNUMA() NUMA {
	nodes, err := hostmem.Nodes(hostmem.Config{})
	if err != nil || len(nodes) == 0 {
		return NUMA{}
	}
	return NUMA{Nodes: nodes, Unbound: hostram.TryBind(nodes[0].ID)}
}

func (w *World) numa() NUMA {
	if w.NUMA == nil {
		return NUMA{}
	}
	return w.NUMA()
}

// pools are the nodes that get a device of their own by default: those with processors, where
// there are several. Memory without (behind a bus, or a GPU's that shows up as a node) is
// used only where it is named.
func (n *NUMA) pools() []hostmem.Node {
	own := slices.DeleteFunc(slices.Clone(n.Nodes), func(x hostmem.Node) bool { return !x.Processors || roundDown(x.TotalBytes/2) < MinDeviceBytes })
	if len(own) < 2 {
		return nil
	}
	return own
}

func defaultDevices(w *World, _ *Config) ([]string, string, error) {
	half, err := w.halfOfMemory()
	if err != nil {
		return nil, "", err
	}
	one := []string{DeviceSpec{Kind: DeviceRAM, ID: "ram-0", Bytes: half}.String()}
	numa := w.numa()
	pools := numa.pools()
	switch {
	case len(pools) == 0:
		return one, "half of what the machine and its control group have", nil
	case numa.Unbound != nil:
		return one, fmt.Sprintf("half of what the machine and its control group have; one for all %d NUMA nodes, since memory cannot be bound to one here", len(pools)), nil
	}
	var all int64
	for _, n := range pools {
		all += n.TotalBytes / 2
	}
	var texts []string
	for _, n := range pools {
		bytes := n.TotalBytes / 2
		if all > half { // a control group has less than the nodes: each gives in proportion
			bytes = int64(float64(bytes) / float64(all) * float64(half))
		}
		d := DeviceSpec{Kind: DeviceRAM, ID: fmt.Sprintf("ram-%d", n.ID), Bound: true, NUMANode: n.ID, Bytes: roundDown(bytes)}
		if d.Bytes < MinDeviceBytes {
			return one, "half of what the control group has, which is too little to share out to NUMA nodes", nil
		}
		texts = append(texts, d.String())
	}
	return texts, "one a NUMA node, half of what it and the control group have", nil
}

// checkNodes demands that named NUMA nodes are there, and have what is asked of them.
func (l *loader) checkNodes(c *Config) (text, fix string) {
	stated := map[int]int64{}
	var nodes []hostmem.Node
	for _, d := range c.Devices {
		if !d.Bound {
			continue
		}
		if nodes == nil {
			nodes = l.world.numa().Nodes
		}
		i := slices.IndexFunc(nodes, func(n hostmem.Node) bool { return n.ID == d.NUMANode })
		if i < 0 {
			return fmt.Sprintf("%s is to be of NUMA node %d, which has no memory for this process: %s", d.ID, d.NUMANode, nodeNames(nodes)),
				"name one of them, or none: --device ram:" + d.ID
		}
		if stated[d.NUMANode] += d.Bytes; stated[d.NUMANode] > nodes[i].TotalBytes {
			return fmt.Sprintf("%s of NUMA node %d is more than its %s", HumanSize(stated[d.NUMANode]), d.NUMANode, HumanSize(nodes[i].TotalBytes)),
				fmt.Sprintf("ask for less, such as --device ram:%s@%d=%s", d.ID, d.NUMANode, ExactSize(roundDown(nodes[i].TotalBytes/2)))
		}
	}
	return "", ""
}

// node is the NUMA node that a device is bound to.
func (l *loader) node(d *DeviceSpec) (hostmem.Node, bool) {
	nodes := l.world.numa().Nodes
	i := slices.IndexFunc(nodes, func(n hostmem.Node) bool { return d.Bound && n.ID == d.NUMANode })
	if i < 0 {
		return hostmem.Node{}, false
	}
	return nodes[i], true
}

func nodeNames(nodes []hostmem.Node) string {
	if len(nodes) == 0 {
		return "there are no NUMA nodes here"
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = fmt.Sprint(n.ID)
	}
	return "there are " + strings.Join(names, ", ")
}
