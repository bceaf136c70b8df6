package rules

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// rules are the rules by name. Each returns what breaks it.
var rules = []struct {
	name  string
	check func(*tree) []finding
}{
	{"imports_of_rooms", importsOfRooms},
	{"imports_of_others", importsOfOthers},
	{"pure_rooms", pureRooms},
	{"time", timeIsInjected},
	{"no_init", noInit},
	{"no_globals", noGlobals},
	{"file_length", fileLength},
	{"package_docs", packageDocs},
	{"doc_comments", docComments},
	{"no_leftovers", noLeftovers},
	{"words", noWords},
	{"decisions", decisions},
}

// TestRules checks the tree that this test lies in.
func TestRules(t *testing.T) {
	root := filepath.Join("..", "..")
	tr := load(t, os.DirFS(root), tracked(t, root))
	if len(tr.files) < 100 || len(tr.others) < 10 {
		t.Fatalf("only %d Go files and %d others were found", len(tr.files), len(tr.others))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range r.check(tr) {
				t.Errorf("%s: %s", f.at, f.what)
			}
		})
	}
	t.Run("exceptions", func(t *testing.T) {
		for _, name := range exceptions() {
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Errorf("internal/rules/house_test.go: an exception for %s, which is gone", name)
			}
		}
	})
}

// exceptions lists the files and folders that the tables make an exception for.
func exceptions() []string {
	var names []string
	for n := range pureExceptions {
		names = append(names, n)
	}
	for n := range timeExceptions {
		names = append(names, n)
	}
	for n := range variableExceptions {
		file, _, _ := strings.Cut(n, ":")
		names = append(names, file)
	}
	for n := range wordExceptions {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// tracked lists the files of the project: what git tracks or would, or, in a tree without
// git, everything that is not hidden.
func tracked(t *testing.T, root string) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	var names []string
	if out, err := cmd.Output(); err == nil {
		seen := map[string]bool{}
		for _, n := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			info, err := os.Stat(filepath.Join(root, n))
			if err == nil && info.Mode().IsRegular() && !seen[n] {
				seen[n] = true
				names = append(names, n)
			}
		}
		return names
	}
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") && p != ".ci" || p == "bin"):
			return fs.SkipDir
		case d.Type().IsRegular():
			names = append(names, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestRulesFind shows every rule files that break it and one that does not.
func TestRulesFind(t *testing.T) {
	const head = "// Package p is here.\npackage p\n"
	for _, c := range []struct {
		rule, file, text string
		want             string // part of the finding; "": none
	}{
		{"imports_of_rooms", "heap/a.go", `import "` + module + `/bus"`, "heap/a.go:3: heap may not import bus"},
		{"imports_of_rooms", "heap/a_test.go", `import "` + module + `/bus"`, "may not import bus"},
		{"imports_of_rooms", "bus/a.go", `import "` + module + `/actors"`, ""},
		{"imports_of_rooms", "bus/a.go", `import "` + module + `/actors/seam"`, "may not import actors/seam"},
		{"imports_of_rooms", "ledger/store/a.go", `import "` + module + `/heap"`, "ledger/store may not import heap"},
		{"imports_of_rooms", "attic/a.go", `import "fmt"`, "belongs to no room"},
		{"imports_of_others", "heap/a.go", `import "github.com/nats-io/nats.go"`, "heap may not import github.com/nats-io/nats.go"},
		{"imports_of_others", "bus/conn/a.go", `import "github.com/nats-io/nats.go/micro"`, ""},
		{"imports_of_others", "actors/a.go", `import "github.com/asynkron/protoactor-go/actor"`, "may not import"},
		{"imports_of_others", "bus/a.go", `import "example.org/x/y"`, "may not import"},
		{"imports_of_others", "bus/a.go", `import "pgregory.net/rapid"`, "may not import"},
		{"imports_of_others", "bus/a_test.go", `import "pgregory.net/rapid"`, ""},
		{"pure_rooms", "heap/a.go", `import "os"`, "may not import os"},
		{"pure_rooms", "heap/a.go", `import "net/http"`, "may not import net/http"},
		{"pure_rooms", "device/a.go", `import "os"`, ""},
		{"pure_rooms", "heap/a_test.go", `import "os"`, ""},
		{"pure_rooms", "heap/a.go", `func f() { go f() }`, "heap/a.go:3: a goroutine"},
		{"pure_rooms", "heap/a.go", `var c chan int`, "a channel"},
		{"time", "bus/a.go", "import \"time\"\nvar now = time.Now", "bus/a.go:4: time.Now"},
		{"time", "bus/a.go", "import t \"time\"\nfunc f() { t.Sleep(1) }", "time.Sleep"},
		{"time", "bus/a.go", "import \"time\"\nconst d = time.Second", ""},
		{"time", "bus/a_test.go", "import \"time\"\nvar c = time.After", ""},
		{"time", "bus/a_test.go", "import \"time\"\nfunc f() { time.Sleep(1) }", "time.Sleep"},
		{"time", "bus/client/a.go", "import \"time\"\nfunc f() { time.Sleep(1) }", "time.Sleep"},
		{"time", "bus/client/a.go", "import \"time\"\nvar now = time.Now", ""},
		{"time", "bus/a_test.go", "import (\n\"time\"\n\"testing/synctest\")\nfunc f() { synctest.Test(nil, func() { time.Sleep(1) }) }", ""},
		{"no_init", "bus/a.go", `func init() {}`, "init"},
		{"no_init", "bus/a.go", "type t int\nfunc (t) init() {}", ""},
		{"no_globals", "bus/a.go", `var n int`, "n has no value"},
		{"no_globals", "bus/a.go", "var n = 1\nfunc f() { n = 2 }", "bus/a.go:4: n changes"},
		{"no_globals", "bus/a.go", "var n = 1\nfunc f() { n++ }", "n changes"},
		{"no_globals", "bus/a.go", "var n = []int{1}\nfunc f() { n[0] = 2 }", "n changes"},
		{"no_globals", "bus/a.go", "var n = map[int]int{}\nfunc f() { delete(n, 2) }", "n changes"},
		{"no_globals", "bus/a.go", "var n = 1\nfunc f() { n := 2; n = 3; _ = n }", ""},
		{"no_globals", "bus/a.go", "import \"sync\"\nvar n = sync.Map{}", "n is of package sync"},
		{"no_globals", "bus/a.go", "var n = make(chan int)", "n is made to be changed"},
		{"no_globals", "bus/a.go", "//go:embed x\nvar n string", ""},
		{"no_globals", "bus/a.go", "import \"errors\"\nvar errX = errors.New(\"x\")", ""},
		{"file_length", "bus/a.go", strings.Repeat("\n", 499), "501 lines"},
		{"file_length", "bus/a.go", strings.Repeat("\n", 498), ""},
		{"package_docs", "bus/a.go", "", ""},
		{"doc_comments", "bus/a.go", "type T int", "T has no comment"},
		{"doc_comments", "bus/a.go", "// T is.\ntype T int\nfunc (T) F() {}", "T.F has no comment"},
		{"doc_comments", "bus/a.go", "// T is.\ntype T int\nfunc (T) String() {}", ""},
		{"doc_comments", "bus/a.go", "const (\nA = 1\n)", "A has no comment"},
		{"doc_comments", "bus/a.go", "// All.\nconst (\nA = 1\n)", ""},
		{"doc_comments", "bus/a.go", "type t int\nfunc (t) F() {}", ""},
		{"no_leftovers", "bus/a.go", "// TO" + "DO: more", "left over"},
		{"words", "bus/a.go", "// see /home/me/x", "bus/a.go:3: \"/home/\""},
		{"words", "bus/a.go", "// see a/home/me", ""},
		{"words", "docs/a.md", "from pypi.org", "pypi.org"},
		{"decisions", "docs/decisions/a.md", "# A", "is not named"},
		{"decisions", "docs/decisions/0001-2026-02-30-a.md", "# A", "no date"},
		{"decisions", "docs/decisions/0001-2026-02-20-a.md", "# A\n## Context\n## Decision\n", "Consequences"},
		{"decisions", "docs/decisions/0001-2026-02-20-a.md", "# A\n## Context\n## Decision\n## Consequences\n", ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			text := c.text
			if strings.HasSuffix(c.file, ".go") {
				text = head + text
			}
			tr := load(t, fstest.MapFS{c.file: {Data: []byte(text)}}, []string{c.file})
			var got bytes.Buffer
			for _, r := range rules {
				if r.name != c.rule {
					continue
				}
				for _, f := range r.check(tr) {
					got.WriteString(f.at + ": " + f.what + "\n")
				}
			}
			if c.want == "" && got.Len() > 0 || !strings.Contains(got.String(), c.want) {
				t.Errorf("%s\n%.200s\nfound %q, want %q", c.file, c.text, got.String(), c.want)
			}
		})
	}
	tr := load(t, fstest.MapFS{"bus/a.go": {Data: []byte("package p\n")}}, []string{"bus/a.go"})
	if len(packageDocs(tr)) != 1 {
		t.Error("a package without a comment was not found")
	}
}
