package rules

import (
	"bytes"
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"
)

// fileLength: a file fits a head.
func fileLength(tr *tree) []finding {
	var out []finding
	for _, f := range tr.files {
		n := bytes.Count(f.text, []byte("\n"))
		if len(f.text) > 0 && f.text[len(f.text)-1] != '\n' {
			n++
		}
		if n > maxLines && !f.generated() {
			out = append(out, finding{f.path + ":1", fmt.Sprintf("%d lines: more than %d, hence more than one idea", n, maxLines)})
		}
	}
	return out
}

// packageDocs: every package says what it is and what it promises.
func packageDocs(tr *tree) []finding {
	var out []finding
	for dir, files := range tr.packages() {
		if !slices.ContainsFunc(files, func(f *source) bool { return f.ast.Doc.Text() != "" }) {
			out = append(out, tr.find(files[0].ast.Package, "package %s has no comment", dir))
		}
	}
	return out
}

// selfEvident are methods whose name is their contract, as an interface that everybody
// knows has it.
var selfEvident = []string{"String", "Error", "Unwrap", "Is", "As", "Len", "Less", "Swap", "Push", "Pop",
	"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText"}

// docComments: what others may use says how. Programs and tests have no users.
func docComments(tr *tree) []finding {
	var out []finding
	for _, files := range tr.packages() {
		for _, f := range files {
			if f.ast.Name.Name == "main" || f.generated() {
				continue
			}
			for _, d := range f.ast.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					out = append(out, undocumentedFunc(tr, d)...)
				case *ast.GenDecl:
					out = append(out, undocumentedNames(tr, d)...)
				}
			}
		}
	}
	return out
}

func undocumentedFunc(tr *tree, d *ast.FuncDecl) []finding {
	name := d.Name.Name
	if !d.Name.IsExported() || d.Doc.Text() != "" {
		return nil
	}
	if d.Recv != nil {
		receiver := receiverName(d.Recv.List[0].Type)
		if !ast.IsExported(receiver) || slices.Contains(selfEvident, name) {
			return nil
		}
		name = receiver + "." + name
	}
	return []finding{tr.find(d.Pos(), "%s has no comment", name)}
}

func receiverName(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// undocumentedNames: a comment on a group, on the name or behind it counts.
func undocumentedNames(tr *tree, d *ast.GenDecl) []finding {
	var out []finding
	covered := d.Doc.Text() != ""
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc.Text() == "" && s.Comment.Text() == "" && (!covered || d.Lparen.IsValid() && len(d.Specs) > 1 && d.Doc.Text() == "") {
				out = append(out, tr.find(s.Pos(), "%s has no comment", s.Name.Name))
			}
		case *ast.ValueSpec:
			if covered || s.Doc.Text() != "" || s.Comment.Text() != "" {
				continue
			}
			for _, n := range s.Names {
				if n.IsExported() {
					out = append(out, tr.find(n.Pos(), "%s has no comment", n.Name))
				}
			}
		}
	}
	return out
}

var leftover = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

// noLeftovers: what is not done is not in the code as a promise.
func noLeftovers(tr *tree) []finding {
	var out []finding
	for _, f := range tr.files {
		if strings.HasPrefix(f.path, "internal/rules/") {
			continue
		}
		for _, g := range f.ast.Comments {
			for _, c := range g.List {
				if m := leftover.FindString(c.Text); m != "" {
					out = append(out, tr.find(c.Pos(), "%s is left over", m))
				}
			}
		}
	}
	return out
}

// noWords: the project speaks of itself, not of a machine that it was written on.
func noWords(tr *tree) []finding {
	var out []finding
	tr.lines(func(file string, line int, text []byte) {
		if wordExceptions[file] != "" || strings.Contains(file, "/testdata/fuzz/") {
			return
		}
		for _, w := range words {
			i := bytes.Index(text, []byte(w))
			if w == "/home/" && (strings.HasSuffix(file, "_test.go") || strings.Contains(file, "/testdata/")) {
				continue // a test's machine may have users
			}
			if i < 0 || w[0] == '/' && i > 0 && isWord(text[i-1]) {
				continue
			}
			out = append(out, finding{fmt.Sprintf("%s:%d", file, line), fmt.Sprintf("%q belongs to no file of the project", w)})
		}
	})
	return out
}

// isWord reports whether a path goes on before the byte after b.
func isWord(b byte) bool {
	return b == '.' || b == '_' || b == '-' || b == '}' || '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z'
}

var decisionName = regexp.MustCompile(`^(\d{4})-(\d{4}-\d{2}-\d{2})-[a-z0-9-]+\.md$`)

// decisions: a decision record has a number, a date, and says context, decision and
// consequences.
func decisions(tr *tree) []finding {
	var names []string
	for n := range tr.others {
		if path.Dir(n) == "docs/decisions" && path.Base(n) != "README.md" {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	var out []finding
	for i, n := range names {
		m := decisionName.FindStringSubmatch(path.Base(n))
		if m == nil {
			out = append(out, finding{n + ":1", "is not named NNNN-YYYY-MM-DD-what-was-decided.md"})
			continue
		}
		if _, err := time.Parse(time.DateOnly, m[2]); err != nil {
			out = append(out, finding{n + ":1", m[2] + " is no date"})
		}
		if want := fmt.Sprintf("%04d", i+1); m[1] != want {
			out = append(out, finding{n + ":1", "has the number " + m[1] + ", not " + want})
		}
		for _, h := range []string{"# ", "## Context\n", "## Decision\n", "## Consequences\n"} {
			if !bytes.Contains(append([]byte("\n"), tr.others[n]...), []byte("\n"+h)) {
				out = append(out, finding{n + ":1", "has no heading " + strings.TrimSpace(h)})
			}
		}
	}
	return out
}
