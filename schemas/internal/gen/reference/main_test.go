package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// source is the folder of package schemas, from here.
const source = "../../.."

func rendered(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := render(source)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestReferenceIsCurrent(t *testing.T) {
	files := rendered(t)
	root := filepath.Join(source, target)
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		want, made := files[filepath.ToSlash(name)]
		if !made {
			if text, err := os.ReadFile(path); err != nil || bytes.Contains(text, []byte(notice)) || strings.HasPrefix(name, "schema") {
				t.Errorf("%s is made by nothing: run go generate ./schemas", name)
			}
			return nil
		}
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the code: run go generate ./schemas", name)
		}
		delete(files, filepath.ToSlash(name))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		t.Errorf("%s is not there: run go generate ./schemas", name)
	}
}

func TestWriteMakesWhatRenderSays(t *testing.T) {
	dir := t.TempDir()
	pkg := filepath.Join(dir, "schemas")
	if err := os.CopyFS(pkg, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "docs/reference/schema/gone.request.json")
	if err := os.MkdirAll(filepath.Dir(old), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := write(pkg); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the schema of an action that is no more is still there")
	}
	for name, want := range rendered(t) {
		if got, err := os.ReadFile(filepath.Join(dir, "docs/reference", name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := write(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a folder without Go files has words")
	}
}

// Every field of a request says what it is; what it is called in Go, nobody learns.
func TestEveryRequestFieldIsDescribed(t *testing.T) {
	w, err := readWords(source)
	if err != nil {
		t.Fatal(err)
	}
	goName := regexp.MustCompile(`\b(Device|Allocation|Size|Reference|Lease|Model|Action|Status|Code|Event)[A-Z]\w+`)
	for _, s := range schemas.All() {
		for _, f := range jsonschema.Fields(s.Request) {
			text := w.Field(f.Owner, f.GoName)
			if text == "" {
				t.Errorf("%s.%s has no comment", f.Owner, f.GoName)
			}
			if name := goName.FindString(text); name != "" {
				t.Errorf("%s.%s is described by the Go name %s: %q", f.Owner, f.GoName, name, text)
			}
		}
		if w.Type(s.Request.Name()) == "" {
			t.Errorf("%s has no comment", s.Request.Name())
		}
	}
}

func TestWordsAreInWireNames(t *testing.T) {
	names := map[string]string{"SizeBytes": "size_bytes", "Path": "path", "StatusQueued": "queued"}
	for text, want := range map[string]string{
		"SizeBytes is what was\nasked for.": "size_bytes is what was asked for.",
		"Path may be empty. Path of glory":  "path may be empty. Path of glory",
		"StatusQueued or – über SizeBytes.": "queued or – über size_bytes.",
		"Thing is what SizeBytes says":      "What size_bytes says",
		"Thing: a SizeBytes":                "A size_bytes",
		"Thing says so":                     "Says so",
	} {
		if got := onWire(text, names, "Thing"); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

func TestYAMLOfEveryKind(t *testing.T) {
	var b strings.Builder
	yaml(&b, object{{Name: "a", Value: []any{"x: \"y\"", 1, object{{Name: "$ref", Value: true}}}}, {Name: "b", Value: object{}}, {Name: "c", Value: []any{}}, {Name: "d", Value: nil}}, "")
	want := "a:\n  - \"x: \\\"y\\\"\"\n  - 1\n  -\n    \"$ref\": true\nb: {}\nc: []\nd: null\n"
	if b.String() != want {
		t.Errorf("%s\nnot\n%s", b.String(), want)
	}
}

// The pages name what is there: links within the reference lead somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	files := rendered(t)
	link := regexp.MustCompile(`\]\(([^)]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	anchors := map[string]bool{}
	for name, text := range files {
		for _, h := range heading.FindAllSubmatch(text, -1) {
			anchors[name+"#"+strings.ReplaceAll(strings.ToLower(string(h[1])), " ", "-")] = true
		}
	}
	links := 0
	for name, text := range files {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			links++
			file, anchor, _ := strings.Cut(string(m[1]), "#")
			if file == "" {
				file = name
			}
			if _, there := files[file]; !there && file != "schema" || anchor != "" && !anchors[file+"#"+anchor] {
				t.Errorf("%s: %s leads nowhere", name, m[1])
			}
		}
	}
	if links < 100 {
		t.Errorf("only %d links", links)
	}
}

// The names of the earlier design are those of its table: none is lost.
func TestOlderNamesAreComplete(t *testing.T) {
	files := rendered(t)
	page := string(files["older-names.md"])
	for _, want := range []string{"GetMemoryStatusAsync", "DeleteMemoryDeallocateAsync", "TriggerModelMemoryOptimizationAsync", "/api/memory/allocations/device/{deviceId}",
		"/api/memory/transfer/{transferId}", "`optimize_memory`", "`memory_type`", "`TargetUsagePercentage`", "`ForceOptimization`"} {
		if !strings.Contains(page, want) {
			t.Errorf("older-names.md lacks %s", want)
		}
	}
	for _, o := range olderTable {
		for _, a := range o.actions {
			if _, known := schemas.Lookup(a); !known {
				t.Errorf("%s leads to %s, which is no action", o.methods, a)
			}
		}
	}
	for _, want := range []string{"MEMORY_STATUS_ERROR", "MEMORY_ALLOCATE_ERROR", "MODEL_MEMORY_OPTIMIZATION_ERROR", "INSTRUCTOR_ERROR"} {
		if !strings.Contains(string(files["errors.md"]), want) {
			t.Errorf("errors.md lacks %s", want)
		}
	}
}
