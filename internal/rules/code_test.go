package rules

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// importsOfRooms: every package belongs to a room, and a room imports only the rooms
// that it is allowed.
func importsOfRooms(tr *tree) []finding {
	var out []finding
	for _, f := range tr.files {
		name, ok := longest(house, f.dir)
		if !ok {
			out = append(out, tr.find(f.ast.Package, "%s belongs to no room of the house", f.dir))
			continue
		}
		r := house[name]
		for _, i := range f.imports() {
			target, ours := strings.CutPrefix(i.path, module+"/")
			if !ours || within(target, r.imports) || f.forTests() && within(target, r.tests) {
				continue
			}
			if of, _ := longest(house, target); of == name {
				continue // its own
			}
			out = append(out, tr.find(i.pos, "%s may not import %s", name, target))
		}
	}
	return out
}

// importsOfOthers: a library is imported only by the room that it belongs to.
func importsOfOthers(tr *tree) []finding {
	var out []finding
	for _, f := range tr.files {
		for _, i := range f.imports() {
			first, _, _ := strings.Cut(i.path, "/")
			if !strings.Contains(first, ".") || below(i.path, module) {
				continue // the standard library, or ours
			}
			if f.forTests() && slices.ContainsFunc(testLibraries, func(l string) bool { return below(i.path, l) }) {
				continue
			}
			if of, ok := longest(owners, i.path); ok && slices.ContainsFunc(owners[of], func(d string) bool { return d == "..." || below(f.dir, d) }) {
				continue
			}
			out = append(out, tr.find(i.pos, "%s may not import %s", f.dir, i.path))
		}
	}
	return out
}

// pureRooms: the cores decide and do nothing else. Their tests may do more.
func pureRooms(tr *tree) []finding {
	var out []finding
	for _, f := range tr.files {
		name, _ := longest(house, f.dir)
		if f.test || !house[name].pure {
			continue
		}
		for _, i := range f.imports() {
			if pureExceptions[f.path][i.path] == "" && slices.ContainsFunc(impureImports, func(l string) bool { return below(i.path, l) }) {
				out = append(out, tr.find(i.pos, "%s is pure and may not import %s", name, i.path))
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt:
				out = append(out, tr.find(n.Pos(), "a goroutine in a pure room"))
			case *ast.ChanType, *ast.SelectStmt:
				out = append(out, tr.find(n.Pos(), "a channel in a pure room"))
			}
			return true
		})
	}
	return out
}

// timeIsInjected: package clock alone meets time, and nobody sleeps. A test may measure and
// may give up waiting; inside a synctest bubble it may even sleep, as no time passes.
func timeIsInjected(tr *tree) []finding {
	var out []finding
	for _, f := range tr.files {
		pkg := f.local("time")
		if pkg == "" {
			continue
		}
		exempt := f.test
		for p := range timeExceptions {
			exempt = exempt || f.path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(f.path, p)
		}
		bubble := f.local("testing/synctest")
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok && bubble != "" && selects(c.Fun, bubble, "Test") {
				return false
			}
			s, ok := n.(*ast.SelectorExpr)
			if !ok || !slices.Contains(timeFunctions, s.Sel.Name) || !selects(s, pkg, s.Sel.Name) {
				return true
			}
			if !exempt || s.Sel.Name == "Sleep" {
				out = append(out, tr.find(s.Pos(), "time.%s; time comes from package clock, and nobody sleeps", s.Sel.Name))
			}
			return true
		})
	}
	return out
}

// selects reports whether e is pkg.name.
func selects(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	id, ok := s.X.(*ast.Ident)
	return ok && id.Name == pkg
}

// noInit: nothing happens because a package was imported.
func noInit(tr *tree) []finding {
	var out []finding
	for _, f := range tr.files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, tr.find(fn.Pos(), "an init function"))
			}
		}
	}
	return out
}

// noGlobals: a package-level variable is a table or an error: it has a value from the
// start, and nothing in its package changes it.
func noGlobals(tr *tree) []finding {
	var out []finding
	for _, files := range tr.packages() {
		tables := map[string]*ast.ValueSpec{}
		for _, f := range files {
			for _, d := range f.ast.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, s := range g.Specs {
					v := s.(*ast.ValueSpec)
					for i, n := range v.Names {
						if n.Name == "_" || variableExceptions[f.path+":"+n.Name] != "" {
							continue
						}
						if why := changeable(v, i); why != "" && !embedded(g, v) {
							out = append(out, tr.find(n.Pos(), "%s %s", n.Name, why))
							continue
						}
						tables[n.Name] = v
					}
				}
			}
		}
		for _, f := range files {
			changes(f.ast, func(id *ast.Ident) {
				v, ok := tables[id.Name]
				if ok && (id.Obj == nil || id.Obj.Decl == v) {
					out = append(out, tr.find(id.Pos(), "%s changes, and is a variable of the package", id.Name))
				}
			})
		}
	}
	return out
}

// changeable says why a variable can only be there to be changed.
func changeable(v *ast.ValueSpec, i int) string {
	kind := v.Type
	if len(v.Values) == 0 {
		if s, ok := kind.(*ast.SelectorExpr); !ok || !selects(s, "sync", s.Sel.Name) {
			return "has no value"
		}
	} else if i < len(v.Values) {
		switch e := v.Values[i].(type) {
		case *ast.CompositeLit:
			kind = e.Type
		case *ast.UnaryExpr:
			if l, ok := e.X.(*ast.CompositeLit); ok {
				kind = l.Type
			}
		case *ast.CallExpr:
			if id, ok := e.Fun.(*ast.Ident); ok && (id.Name == "make" || id.Name == "new") {
				return "is made to be changed"
			}
		}
	}
	if s, ok := kind.(*ast.SelectorExpr); ok {
		if p, ok := s.X.(*ast.Ident); ok && (p.Name == "sync" || p.Name == "atomic") {
			return "is of package " + p.Name + ": it is there to be changed"
		}
	}
	return ""
}

// embedded reports whether the linker gives a variable its value.
func embedded(g *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{g.Doc, v.Doc} {
		if doc == nil {
			continue
		}
		for _, c := range doc.List {
			if strings.HasPrefix(c.Text, "//go:embed ") {
				return true
			}
		}
	}
	return false
}

// changes visits every identifier that a statement changes, itself or a part of it.
func changes(f *ast.File, visit func(*ast.Ident)) {
	base := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.Ident:
				visit(x)
				return
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			default:
				return
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch s := n.(type) {
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE {
				for _, l := range s.Lhs {
					base(l)
				}
			}
		case *ast.IncDecStmt:
			base(s.X)
		case *ast.RangeStmt:
			if s.Tok == token.ASSIGN {
				base(s.Key)
			}
		case *ast.CallExpr:
			if id, ok := s.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(s.Args) > 0 {
				base(s.Args[0])
			}
		}
		return true
	})
}
