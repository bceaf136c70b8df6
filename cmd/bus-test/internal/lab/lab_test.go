package lab

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestGroupsOfBothVersions(t *testing.T) {
	one, two, none := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, one, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9\n")
	write(t, one, "sys/fs/cgroup/unified/cgroup.controllers", "cpu\n")
	write(t, two, "sys/fs/cgroup/cgroup.controllers", "cpu memory io\n")
	for _, c := range []struct {
		root    string
		version int
		limit   string // the file
		events  string
	}{{one, 1, "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "memory.oom_control"}, {two, 2, "sys/fs/cgroup/x/memory.max", "memory.events"}} {
		g, err := newGroup(c.root, "x", 12345)
		if err != nil || g.version != c.version {
			t.Fatalf("version %d: %+v, %v", c.version, g, err)
		}
		if text, err := os.ReadFile(filepath.Join(c.root, c.limit)); err != nil || string(text) != "12345" {
			t.Errorf("version %d: limit %q, %v", c.version, text, err)
		}
		if _, err := g.kills(); err == nil {
			t.Errorf("version %d: kills counted where nothing counts them", c.version)
		}
		if err := os.WriteFile(filepath.Join(g.dir, c.events), []byte("under_oom 0\noom 3\noom_kill 2\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if n, err := g.kills(); err != nil || n != 2 {
			t.Errorf("version %d: %d kills, %v", c.version, n, err)
		}
		if s := g.stalled(); s != "-" {
			t.Errorf("version %d: stalled %s without PSI", c.version, s)
		}
	}
	if _, err := newGroup(none, "x", 1); err == nil || !strings.Contains(err.Error(), "/sys/fs/cgroup") {
		t.Errorf("without control groups: %v", err)
	}
}

// A folder whose files cannot be removed, as of a group that is in use, is given up.
func TestAGroupThatStays(t *testing.T) {
	root := t.TempDir()
	write(t, root, "x/cgroup.procs", fmt.Sprintf("%d\n1\n", os.Getpid()))
	pauses := 0
	g := &group{version: 2, dir: filepath.Join(root, "x")}
	if len(g.pids()) != 0 {
		t.Fatalf("would kill %v", g.pids())
	}
	if err := g.end(func() { pauses++ }); err == nil || pauses != 100 {
		t.Errorf("%d pauses, %v", pauses, err)
	}
}

func TestGrowReportsWhatItTook(t *testing.T) {
	var out bytes.Buffer
	if err := Grow(20<<20, 100<<30, strings.NewReader(""), &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"bytes":20971520`) {
		t.Errorf("it says %s", out.String())
	}
}

func TestTheReportShowsOrDoesNot(t *testing.T) {
	r := &Report{Where: "here", Limit: 2 << 30, Rate: 1e9, Models: 24, FewestWithout: -1}
	r.add(Round{Relief: true, Victim: "-", Seen: &seen{Grown: &grown{Bytes: 2e9, Seconds: 2}, Before: 24, After: 6, Used: 75.3, Highest: "high (foreign)"}, Stalled: "7 ms"})
	r.add(Round{Kills: 1, Victim: "the foreign process", Seen: &seen{Before: 24, After: 24, Used: 75, Highest: "critical (foreign)"}, Stalled: "-"})
	if !r.Shown() {
		t.Error("it shows what it is for")
	}
	text := r.Markdown()
	for _, want := range []string{
		"| 1 | on | 0 | - | 1.00 GB/s | 75.3 % | 24 | 6 | high (foreign) | 7 ms |",
		"| 2 | off | 1 | the foreign process | did not finish | 75.0 % | 24 | 24 | critical (foreign) | - |",
		"with the optimizer: 0 in all; without it: at least 1 a round",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	r.add(Round{Victim: "-"})
	if r.Shown() {
		t.Error("a round without the optimizer killed nobody")
	}
	r.FewestWithout = 1
	r.add(Round{Relief: true, Kills: 1})
	if r.Shown() {
		t.Error("a round with the optimizer killed somebody")
	}
}

func TestTheConsoleHasTheReport(t *testing.T) {
	var log bytes.Buffer
	var r, none *Report
	console(strings.NewReader("booting\r\n[ 1.0] LAB-REPORT {\"Where\":\"there\",\"Models\":24}\r\nreboot: Restarting\r\n"), &log, &r)
	if r == nil || r.Where != "there" || r.Models != 24 || !strings.Contains(log.String(), "booting") {
		t.Errorf("report %+v, log %q", r, log.String())
	}
	if last := console(strings.NewReader("booting\nKernel panic\n\n"), io.Discard, &none); none != nil || last != "Kernel panic" {
		t.Errorf("report %+v, last words %q", r, last)
	}
}

// The archive is what `cpio -t` reads: headers of 110 bytes, names and contents padded to four.
func TestTheArchiveHasTheProgram(t *testing.T) {
	b := archive([]byte("the program"))
	var names []string
	for len(b) > 0 {
		var mode, size, length int
		if string(b[:6]) != "070701" {
			t.Fatalf("a strange header %q", b[:6])
		}
		for _, f := range []struct {
			at int
			to *int
		}{{14, &mode}, {54, &size}, {94, &length}} {
			if _, err := fmt.Sscanf(string(b[f.at:f.at+8]), "%x", f.to); err != nil {
				t.Fatal(err)
			}
		}
		name := string(b[110 : 110+length-1])
		names = append(names, name)
		body := (110 + length + 3) / 4 * 4
		if name == "init" && (string(b[body:body+size]) != "the program" || mode != 0o100755) {
			t.Errorf("init has mode %o and is %q", mode, b[body:body+size])
		}
		b = b[body+(size+3)/4*4:]
	}
	if got := strings.Join(names, " "); got != "proc sys dev tmp init TRAILER!!!" {
		t.Errorf("it has %s", got)
	}
}

func Example() {
	r := Report{FewestWithout: 1}
	fmt.Println(r.Shown())
	// Output: true
}

// The line of numa_maps that a mapping is in is the last that does not begin after it.
func TestPagesAreCountedByNode(t *testing.T) {
	const maps = "7f0000000000 default anon=1 dirty=1 N0=1 kernelpagesize_kB=4\n" +
		"7f0000200000 prefer:1 file=/memfd:isobar-ram-1\\040(deleted) dirty=768 mapmax=2 N0=256 N1=512 kernelpagesize_kB=4\n" +
		"7f0000600000 default stack:7 N1=9\n"
	on := map[int]int64{}
	for _, address := range []string{"0x7f0000200000", "7f00005ff000"} {
		if err := countNodes(maps, address, on); err != nil {
			t.Fatal(err)
		}
	}
	if len(on) != 2 || on[0] != 2*mib || on[1] != 4*mib {
		t.Errorf("counted %v", on)
	}
	for text, address := range map[string]string{maps: "0x6f0000000000", "7f0000000000 default N0=many\n": "0x7f0000000000", "": "no address"} {
		if err := countNodes(text, address, on); err == nil {
			t.Errorf("%q has a mapping at %s", text, address)
		}
	}
}

func TestTheReportOfTwoNodes(t *testing.T) {
	r := NUMAReport{Where: "there"}
	if r.Shown() {
		t.Error("nothing was looked at, and everything holds")
	}
	r.Checks = append(r.Checks, NUMACheck{"a", "x", true})
	if !r.Shown() {
		t.Error("what holds is not shown")
	}
	r.Checks = append(r.Checks, NUMACheck{"b", "y", false})
	if text := r.Markdown(); r.Shown() || !strings.Contains(text, "| b | y | **does not hold** |") {
		t.Errorf("shown: %s", text)
	}
}
