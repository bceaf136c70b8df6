package hostmem_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/isobar-project/isobar/device/hostmem"
)

// twoNodes are the files of the machine of the other tests as one of two nodes, and a third
// without processors. Of the 24 GiB that are not available 4 are kept back by the kernel, a
// sixteenth of the machine; file cache can be dropped.
func twoNodes(t *testing.T, allowed, groups, mounts string, files map[string]string) string {
	t.Helper()
	nodeInfo := func(id int, total, free, active, inactive, slab int64) string {
		text := ""
		for _, l := range []struct {
			name string
			gib  int64
		}{{"MemTotal", total}, {"MemFree", free}, {"Active(file)", active}, {"Inactive(file)", inactive}, {"Shmem", 3}, {"SReclaimable", slab}} {
			text += fmt.Sprintf("Node %d %-16s %8d kB\n", id, l.name+":", l.gib*gib>>10)
		}
		return text + fmt.Sprintf("Node %d HugePages_Total:     0\n", id)
	}
	const dir = "sys/devices/system/node/"
	return machine(t, groups, mounts, join(files, map[string]string{
		"proc/meminfo": fmt.Sprintf("MemTotal: %d kB\nMemFree: %d kB\nMemAvailable: %d kB\nActive(file): %d kB\nInactive(file): %d kB\nSReclaimable: %d kB\n",
			64*gib>>10, 30*gib>>10, 40*gib>>10, 6*gib>>10, 6*gib>>10, 2*gib>>10),
		"proc/4711/status":    "Name:\tx\nMems_allowed:\t3\nMems_allowed_list:\t" + allowed + "\n",
		dir + "has_memory":    "0-2\n",
		dir + "has_cpu":       "0-1\n",
		dir + "node0/meminfo": nodeInfo(0, 16, 2, 4, 4, 1),
		dir + "node1/meminfo": nodeInfo(1, 32, 28, 1, 1, 1),
		dir + "node2/meminfo": nodeInfo(2, 16, 16, 1, 1, 0),
	}))
}

func TestNodes(t *testing.T) {
	for allowed, want := range map[string][]int{"0-2": {0, 1, 2}, "1": {1}, "0,2": {0, 2}, "0-7": {0, 1, 2}} {
		nodes, err := hostmem.Nodes(hostmem.Config{Root: twoNodes(t, allowed, "", "", nil)})
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, n := range nodes {
			got = append(got, n.ID)
			if size := map[int]int64{0: 16, 1: 32, 2: 16}[n.ID]; n.TotalBytes != size*gib || n.Processors != (n.ID < 2) {
				t.Errorf("%+v", n)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("allowed %s: %v, not %v", allowed, got, want)
		}
	}
	if nodes, err := hostmem.Nodes(hostmem.Config{Root: machine(t, "", "", nil)}); err != nil || len(nodes) != 0 {
		t.Errorf("a kernel without NUMA: %+v, %v", nodes, err)
	}
}

// A node stands in the machine's place; control groups count for all nodes.
func TestReadNode(t *testing.T) {
	read := func(root string, id int) hostmem.Figures {
		t.Helper()
		r, err := hostmem.NewReader(hostmem.Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		f, err := r.ReadNode(id)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	bare := twoNodes(t, "0-2", "", "", nil)
	// 2+8+1 GiB of node 0 are free or can be dropped, less its quarter of what is kept back.
	f := read(bare, 0)
	if f.PhysicalBytes() != 16*gib || f.RoomBytes() != 10*gib || f.OutsideBytes(16*gib, 2*gib) != 4*gib {
		t.Errorf("node 0: %+v", f)
	}
	if f = read(bare, 1); f.PhysicalBytes() != 32*gib || f.RoomBytes() != 29*gib {
		t.Errorf("node 1: %+v", f)
	}
	limited := twoNodes(t, "0-2", "0::/a\n", mountV2, groupV2("sys/fs/cgroup/a", 12, 5, 1, 0))
	if f = read(limited, 1); f.PhysicalBytes() != 12*gib || f.RoomBytes() != 8*gib || f.CgroupLimit != 12*gib || !f.HasCgroup {
		t.Errorf("node 1 in a control group: %+v", f)
	}
	// The other device's bytes in the group are foreign only beyond what its limit leaves over.
	if got := f.OutsideBytes(f.PhysicalBytes(), 1*gib); got != 3*gib {
		t.Errorf("outside: %d", got/gib)
	}
}

func TestBrokenNodes(t *testing.T) {
	const dir = "sys/devices/system/node/"
	for name, broken := range map[string]map[string]string{
		"a list of words":   {dir + "has_memory": "all\n"},
		"a list backwards":  {dir + "has_memory": "3-1\n"},
		"a list of too far": {dir + "has_memory": "0-100000\n"},
		"no MemTotal":       {dir + "node1/meminfo": "Node 1 MemFree: 3 kB\n"},
		"not a number":      {dir + "node1/meminfo": "Node 1 MemTotal: many kB\n"},
	} {
		root := twoNodes(t, "0-2", "", "", nil)
		for path, text := range broken {
			write(t, root, path, text)
		}
		if nodes, err := hostmem.Nodes(hostmem.Config{Root: root}); err == nil {
			t.Errorf("%s: %+v, want an error", name, nodes)
		}
	}
}

// What the nodes have available comes to what the machine has.
func TestTheNodesOfThisMachine(t *testing.T) {
	nodes, err := hostmem.Nodes(hostmem.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := hostmem.NewReader(hostmem.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		f, err := r.ReadNode(n.ID)
		if err != nil || f.MemTotal != n.TotalBytes || f.MemAvailable <= 0 || f.MemAvailable > f.MemTotal {
			t.Errorf("node %d: %+v, %v", n.ID, f, err)
		}
	}
}
