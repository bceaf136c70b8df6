package weights

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// index reads a *.safetensors.index.json and every shard that it names. The two
// must agree: each tensor is exactly in the shard where the index has it, and no
// shard holds one that the index does not name. It owns f.
func (a *assembly) index(f *os.File) error {
	path := a.at.path()
	text, err := a.indexText(f, path)
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(text))
	a.meta = append(a.meta, digest[:])
	homes, shards, err := parseIndex(text, path, a.options)
	if err != nil {
		return err
	}
	for _, name := range shards {
		at := a.at.beside(name)
		f, err := at.open()
		if err != nil {
			return err
		}
		if err := a.add(f, at.path()); err != nil {
			return err
		}
	}
	return a.agree(path, homes, shards)
}

func (a *assembly) indexText(f *os.File, path string) (string, error) {
	defer f.Close() //nolint:errcheck // opened for reading only
	file, err := describe(f, path)
	if err != nil {
		return "", err
	}
	if file.Bytes > a.options.MaxHeaderBytes {
		return "", &FormatError{path, 0, fmt.Sprintf("index of %d bytes; at most %d", file.Bytes, a.options.MaxHeaderBytes)}
	}
	return readText(f, path, 0, file.Bytes)
}

// agree compares the index with the shards' own headers.
func (a *assembly) agree(path string, homes map[string]string, shards []string) error {
	for i, p := range a.parts {
		if p.header.format != Safetensors {
			return &FormatError{p.file.Path, 0, "named by a safetensors index, but is " + p.header.format}
		}
		for _, t := range p.header.tensors {
			home, ok := homes[t.Name]
			if !ok {
				return &FormatError{path, 0, fmt.Sprintf("does not name tensor %.100q of %s", t.Name, shards[i])}
			}
			if home != shards[i] {
				return &FormatError{path, 0, fmt.Sprintf("has tensor %.100q in %s, but it is in %s", t.Name, home, shards[i])}
			}
			delete(homes, t.Name)
		}
	}
	for name, home := range homes {
		return &FormatError{path, 0, fmt.Sprintf("has tensor %.100q in %s, which does not hold it", name, home)}
	}
	return nil
}

// parseIndex reads the text of an index: where each tensor lives, and the shards in
// the order of their names.
func parseIndex(text, path string, o Options) (homes map[string]string, shards []string, err error) {
	j := jsonText{s: text}
	known := make(map[string]string) // shard names, each once
	keys := make(map[string]struct{})
	j.object(func(key string) {
		if _, twice := keys[key]; twice {
			j.fail("key %.100q occurs twice", key)
			return
		}
		keys[key] = struct{}{}
		if key != "weight_map" {
			j.skip(0)
			return
		}
		homes = make(map[string]string)
		j.object(func(name string) {
			shard := j.str()
			if j.bad != nil {
				return
			}
			_, twice := homes[name]
			switch {
			case twice:
				j.fail("tensor %.100q occurs twice", name)
			case len(homes) == o.MaxTensors:
				j.fail("more than %d tensors", o.MaxTensors)
			case !plainName(shard):
				j.fail("tensor %.100q is in %.100q, which is no plain file name beside the index", name, shard)
			}
			if _, ok := known[shard]; !ok && j.bad == nil {
				if len(known) == o.MaxFiles {
					j.fail("more than %d shards", o.MaxFiles)
					return
				}
				known[shard] = strings.Clone(shard)
			}
			homes[name] = known[shard]
		})
	})
	j.end()
	if j.bad == nil && len(homes) == 0 {
		j.fail("no weight_map, or an empty one")
	}
	if j.bad != nil {
		return nil, nil, &FormatError{path, int64(j.pos), j.bad.Error()}
	}
	for _, s := range known {
		shards = append(shards, s)
	}
	slices.Sort(shards)
	return homes, shards, nil
}

// plainName reports whether name can only mean a file in the same folder.
func plainName(name string) bool {
	return filepath.IsLocal(name) && name != "." && !strings.ContainsAny(name, "/\\\x00")
}

// split is what a part of a split GGUF model says of itself.
type split struct{ no, count, tensors uint64 }

// splitSuffix is the end of the file names of a model split by llama.cpp's tool.
func splitSuffix(no, count uint64) string {
	return fmt.Sprintf("-%05d-of-%05d.gguf", no+1, count)
}

// siblings opens the other parts of a split GGUF model beside the one that was
// named, and checks that together they are the whole.
func (a *assembly) siblings() error {
	own := a.parts[0].header.split
	base := filepath.Base(a.at.path())
	stem, named := strings.CutSuffix(base, splitSuffix(own.no, own.count))
	switch {
	case a.alone:
		return &FormatError{a.at.path(), 0, "is one part of a split model, which cannot be opened by its descriptor alone"}
	case own.count > uint64(a.options.MaxFiles):
		return &FormatError{a.at.path(), 0, fmt.Sprintf("part of a model of %d files; at most %d", own.count, a.options.MaxFiles)}
	case own.no >= own.count || !named:
		return &FormatError{a.at.path(), 0, "is part " + strconv.FormatUint(own.no+1, 10) + " of a split model, but is not named " + "…" + splitSuffix(own.no, own.count)}
	}
	for no := range own.count {
		if no == own.no {
			continue
		}
		at := a.at.beside(stem + splitSuffix(no, own.count))
		f, err := at.open()
		if err != nil {
			return err
		}
		if err := a.add(f, at.path()); err != nil {
			return err
		}
		if s := a.parts[len(a.parts)-1].header.split; s.no != no || s.count != own.count {
			return &FormatError{at.path(), 0, fmt.Sprintf("says that it is part %d of %d", s.no+1, s.count)}
		}
	}
	return a.whole()
}

// whole checks the number of tensors that the parts of a split model promise.
func (a *assembly) whole() error {
	var sum uint64
	for _, p := range a.parts {
		sum += uint64(len(p.header.tensors))
	}
	for _, p := range a.parts {
		if n := p.header.split.tensors; n != 0 && n != sum {
			return &FormatError{p.file.Path, 0, fmt.Sprintf("promises %d tensors, the parts hold %d", n, sum)}
		}
	}
	return nil
}
