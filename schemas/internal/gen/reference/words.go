package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// words are the comments of package schemas on its types and their fields, with Go's names
// replaced by those of the wire.
type words struct {
	types  map[string]string
	fields map[string]string // by Type.Field
}

// Type implements jsonschema.Docs.
func (w *words) Type(name string) string { return w.types[name] }

// Field implements jsonschema.Docs.
func (w *words) Field(owner, field string) string { return w.fields[owner+"."+field] }

// readWords reads the comments of the package in a folder.
func readWords(dir string) (*words, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no Go files in %s", dir)
	}
	w := &words{types: map[string]string{}, fields: map[string]string{}}
	constants := map[string]string{}
	var structs []*ast.TypeSpec
	set := token.NewFileSet()
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					readConstants(s, constants)
				case *ast.TypeSpec:
					if s.Doc == nil {
						s.Doc = g.Doc
					}
					if _, ok := s.Type.(*ast.StructType); ok {
						structs = append(structs, s)
					}
				}
			}
		}
	}
	for _, s := range structs {
		names := wireNames(s.Type.(*ast.StructType))
		for name, value := range constants {
			names[name] = value
		}
		w.types[s.Name.Name] = onWire(s.Doc.Text(), names, s.Name.Name)
		for _, f := range s.Type.(*ast.StructType).Fields.List {
			text := f.Doc.Text()
			if text == "" {
				text = f.Comment.Text()
			}
			for _, n := range f.Names {
				w.fields[s.Name.Name+"."+n.Name] = onWire(text, names, n.Name)
			}
		}
	}
	return w, nil
}

// readConstants notes the constants that are strings: enumerations and codes.
func readConstants(s *ast.ValueSpec, into map[string]string) {
	for i, n := range s.Names {
		if i >= len(s.Values) {
			continue
		}
		if lit, ok := s.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if value, err := strconv.Unquote(lit.Value); err == nil && value != "" {
				into[n.Name] = value
			}
		}
	}
}

func wireNames(s *ast.StructType) map[string]string {
	out := map[string]string{}
	for _, f := range s.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		for _, n := range f.Names {
			out[n.Name] = name
		}
	}
	return out
}

// onWire makes a comment one line, in wire names. self is the Go name of what it describes:
// a comment that begins with it goes on without it, as the reader has it before the eyes.
func onWire(text string, names map[string]string, self string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, head := range []string{self + " is ", self + ": ", self + " "} {
		if rest, ok := strings.CutPrefix(text, head); ok {
			text = strings.ToUpper(rest[:1]) + rest[1:]
			break
		}
	}
	var out strings.Builder
	for len(text) > 0 {
		n := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' })
		if n < 0 {
			n = len(text)
		}
		if n == 0 {
			_, size := utf8.DecodeRuneInString(text)
			out.WriteString(text[:size])
			text = text[size:]
			continue
		}
		word := text[:n]
		// A name that is also a plain word is one only where it has a capital inside.
		if wire, ok := names[word]; ok && (strings.IndexFunc(word[1:], unicode.IsUpper) >= 0 || strings.HasPrefix(text[n:], " is ") || strings.HasPrefix(text[n:], " may ")) {
			word = wire
		}
		out.WriteString(word)
		text = text[n:]
	}
	return out.String()
}
