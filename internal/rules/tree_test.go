package rules

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/isobar-project/isobar"

// tree is the sources of the module.
type tree struct {
	fset  *token.FileSet
	files []*source
	// others are the files that are not Go: path → content.
	others map[string][]byte
}

// source is one Go file.
type source struct {
	path string // slash-separated, relative to the module's root
	dir  string // "." for the root
	test bool
	ast  *ast.File
	text []byte
}

// finding is one breach of a rule.
type finding struct {
	at   string // file:line
	what string
}

// load parses the named files of fsys.
func load(t *testing.T, fsys fs.FS, names []string) *tree {
	t.Helper()
	tr := &tree{fset: token.NewFileSet(), others: map[string][]byte{}}
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, ".go") {
			tr.others[name] = text
			continue
		}
		f, err := parser.ParseFile(tr.fset, name, text, parser.ParseComments)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		tr.files = append(tr.files, &source{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), ast: f, text: text})
	}
	return tr
}

// at renders a position.
func (tr *tree) at(p token.Pos) string {
	q := tr.fset.Position(p)
	return fmt.Sprintf("%s:%d", q.Filename, q.Line)
}

func (tr *tree) find(p token.Pos, format string, args ...any) finding {
	return finding{tr.at(p), fmt.Sprintf(format, args...)}
}

// packages groups the files that are no tests by folder.
func (tr *tree) packages() map[string][]*source {
	m := map[string][]*source{}
	for _, f := range tr.files {
		if !f.test {
			m[f.dir] = append(m[f.dir], f)
		}
	}
	return m
}

// lines yields the lines of all files, with where they are.
func (tr *tree) lines(visit func(file string, line int, text []byte)) {
	each := func(name string, text []byte) {
		if bytes.IndexByte(text, 0) >= 0 {
			return // no text
		}
		for i, l := range bytes.Split(text, []byte("\n")) {
			visit(name, i+1, l)
		}
	}
	for _, f := range tr.files {
		each(f.path, f.text)
	}
	names := make([]string, 0, len(tr.others))
	for n := range tr.others {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		each(n, tr.others[n])
	}
}

// imported is one import of a file, its path unquoted.
type imported struct {
	path string
	pos  token.Pos
}

func (s *source) imports() []imported {
	var out []imported
	for _, i := range s.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value) // the parser has seen to it
		out = append(out, imported{p, i.Pos()})
	}
	return out
}

// local is the name under which a file knows an import, "" if it has it not.
func (s *source) local(importPath string) string {
	for _, i := range s.ast.Imports {
		if i.Path.Value != strconv.Quote(importPath) {
			continue
		}
		if i.Name != nil {
			return i.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// forTests reports whether a file is a test or belongs to a package made for tests.
func (s *source) forTests() bool {
	return s.test || strings.HasSuffix(s.dir, "test") && s.dir != "cmd/bus-test" || path.Base(s.dir) == "conformance"
}

// generated reports whether a file says that a program wrote it.
func (s *source) generated() bool { return ast.IsGenerated(s.ast) }

// within reports whether dir is one of the packages that the patterns name.
func within(dir string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == "..." {
			return true
		}
		if base, all := strings.CutSuffix(p, "/..."); all {
			return below(dir, base)
		}
		return dir == p
	})
}

// below reports whether p is base or lies under it.
func below(p, base string) bool { return p == base || strings.HasPrefix(p, base+"/") }

// longest finds the longest key that p is or lies under.
func longest[V any](m map[string]V, p string) (string, bool) {
	for q := p; ; q = path.Dir(q) {
		if _, ok := m[q]; ok {
			return q, true
		}
		if q == "." || q == "/" {
			return "", false
		}
	}
}
