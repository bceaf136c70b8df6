package weights

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Inspect describes the model at a path: a .safetensors file, the index of a
// sharded one (*.safetensors.index.json), a .gguf file (any part of a split one), or
// a folder that holds exactly one of these. The format is told from the content.
// Only headers are read; the files stay open in the Model, which the caller closes.
//
// It blocks on the disk and may be called from any goroutine; ctx is looked at
// between files. Errors: ErrInvalidModel (a *FormatError), ErrNotReadable (a
// *ReadError or *OutsideError), or ctx's.
func Inspect(ctx context.Context, path string, o Options) (*Model, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	at, f, err := o.Roots.open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, closing(f, at.wrap(err))
	}
	if info.IsDir() {
		at, err = choose(f, at)
		f.Close() //nolint:errcheck // a folder opened for reading
		if err != nil {
			return nil, err
		}
		if f, err = at.open(); err != nil {
			return nil, err
		}
	}
	a := assembly{ctx: ctx, options: o, at: at}
	return a.model(f)
}

// InspectFile describes a model of one file that the caller has already opened, as a
// client may over the data socket: with that client's rights, whatever the roots. It
// owns f from here on, also if it fails. name is for errors and File.Path. Errors are
// Inspect's, and those of CheckOffered.
func InspectFile(ctx context.Context, f *os.File, name string, o Options) (*Model, error) {
	o, err := o.complete()
	if err == nil {
		err = CheckOffered(f, name)
	}
	if err != nil {
		return nil, closing(f, err)
	}
	a := assembly{ctx: ctx, options: o, alone: true, at: place{dir: name}}
	return a.model(f)
}

func closing(f *os.File, err error) error {
	f.Close() //nolint:errcheck // the first error is the one to tell
	return err
}

// assembly puts a Model together from one or several files.
type assembly struct {
	ctx     context.Context
	options Options
	at      place
	alone   bool // no other file may be opened
	m       Model
	parts   []part
	meta    [][]byte // digests beyond the files' headers: an index
}

// part is one file and what its header says.
type part struct {
	file   File
	header *header
}

// model takes the first opened file to the finished Model, or closes everything.
func (a *assembly) model(f *os.File) (*Model, error) {
	err := a.collect(f)
	if err == nil {
		err = a.join()
	}
	if err != nil {
		for _, p := range a.parts {
			p.file.file.Close() //nolint:errcheck // opened for reading only
		}
		return nil, err
	}
	return &a.m, nil
}

// collect opens and parses all files that belong to the one that was named.
func (a *assembly) collect(f *os.File) error {
	add := func() error { return a.add(f, a.at.path()) }
	switch {
	case a.alone:
		add = func() error { return a.single(f) }
	case strings.HasSuffix(a.at.path(), ".json"):
		return a.index(f)
	}
	if err := add(); err != nil {
		return err
	}
	if a.parts[0].header.split.count > 1 {
		return a.siblings()
	}
	return nil
}

// add parses one file's header. It owns f.
func (a *assembly) add(f *os.File, path string) error {
	if err := a.ctx.Err(); err != nil {
		return closing(f, err)
	}
	file, err := describe(f, path)
	if err != nil {
		return closing(f, err)
	}
	h, err := parseHeader(f, path, file.Bytes, a.options)
	if err != nil {
		return closing(f, err)
	}
	file.HeaderBytes = h.bytes
	a.parts = append(a.parts, part{file, h})
	return nil
}

// join makes one list of tensors of all parts and checks what only holds between
// files.
func (a *assembly) join() error {
	slices.SortFunc(a.parts, func(x, y part) int { return cmp.Compare(x.file.Path, y.file.Path) })
	count := 0
	for _, p := range a.parts {
		count += len(p.header.tensors)
	}
	if count > a.options.MaxTensors {
		return &FormatError{a.at.path(), 0, fmt.Sprintf("%d tensors; at most %d", count, a.options.MaxTensors)}
	}
	m := &a.m
	m.Format = a.parts[0].header.format
	m.Tensors = make([]Tensor, 0, count)
	m.Metadata = make(map[string]string)
	seen := make(map[string]int, count)
	for i, p := range a.parts {
		if p.header.format != m.Format {
			return &FormatError{p.file.Path, 0, "is " + p.header.format + " among files of " + m.Format}
		}
		m.Files = append(m.Files, p.file)
		for _, t := range p.header.tensors {
			if other, twice := seen[t.Name]; twice {
				return &FormatError{p.file.Path, t.FileOffset, fmt.Sprintf("tensor %.100q is also in %s", t.Name, filepath.Base(a.parts[other].file.Path))}
			}
			seen[t.Name] = i
			t.File = i
			m.TotalBytes += t.Bytes // the parts fit their files, whose sizes are real
			m.Tensors = append(m.Tensors, t)
		}
		for k, v := range p.header.metadata {
			if _, ok := m.Metadata[k]; !ok {
				m.Metadata[k] = v
			}
		}
	}
	m.ContentID = a.contentID()
	return nil
}
