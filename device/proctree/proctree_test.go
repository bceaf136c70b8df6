package proctree_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/device/proctree"
)

func TestTree(t *testing.T) {
	tree := proctree.New(proctree.Process{PID: 10, Start: 1})
	for _, step := range []struct {
		what string
		now  proctree.Table
		want []int
	}{
		{"children and grandchildren join", proctree.Table{1: {0, 0}, 10: {1, 1}, 11: {10, 2}, 12: {11, 3}, 20: {1, 1}}, []int{10, 11, 12}},
		{"an orphan stays, whoever adopted it, and its children join", proctree.Table{1: {0, 0}, 10: {1, 1}, 12: {1, 3}, 13: {12, 4}, 20: {1, 1}}, []int{10, 12, 13}},
		{"the exited leave; a pid used again is a stranger", proctree.Table{1: {0, 0}, 10: {1, 1}, 12: {1, 99}, 20: {1, 1}}, []int{10}},
		{"who outlives the root stays", proctree.Table{1: {0, 0}, 10: {1, 1}, 14: {10, 5}}, []int{10, 14}},
		{"and is all that is left", proctree.Table{1: {0, 0}, 14: {1, 5}}, []int{14}},
		{"nobody", proctree.Table{1: {0, 0}, 10: {1, 7}}, []int{}},
	} {
		tree.Update(step.now)
		if got := tree.PIDs(); !slices.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
	}
}

// A shell with a child: both are in the tree of this machine's own table.
func TestRealProcesses(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 600 & echo $!; read stop; kill $!; wait")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	f, p, err := proctree.Open("/proc", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree := proctree.New(p)
	look := func() []int {
		t.Helper()
		table, err := proctree.Read("/proc")
		if err != nil {
			t.Fatal(err)
		}
		tree.Update(table)
		return tree.PIDs()
	}
	if got := look(); !slices.Contains(got, child) || !slices.Contains(got, cmd.Process.Pid) {
		t.Errorf("the tree is %v, without %d or its child %d", got, cmd.Process.Pid, child)
	}
	in.Close()
	cmd.Wait()
	if got := look(); slices.Contains(got, cmd.Process.Pid) {
		t.Errorf("the tree is %v after its root has exited", got)
	}
	if _, _, err := proctree.Open("/proc", cmd.Process.Pid); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a process that has exited: %v", err)
	}
}

func ExampleTree() {
	tree := proctree.New(proctree.Process{PID: 10, Start: 1})
	tree.Update(proctree.Table{1: {}, 10: {Parent: 1, Start: 1}, 11: {Parent: 10, Start: 2}, 30: {Parent: 1, Start: 2}})
	fmt.Println(tree.PIDs())
	// Output: [10 11]
}
