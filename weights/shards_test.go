package weights_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/weights"
	"github.com/isobar-project/isobar/weights/weightstest"
)

func tiny(names ...string) weightstest.Spec {
	s := weightstest.Spec{Seed: 3, Metadata: map[string]string{"format": "pt"}}
	for _, n := range names {
		s.Tensors = append(s.Tensors, weightstest.Tensor{Name: n, DType: "F16", Shape: []int64{3, 5}})
	}
	return s
}

func write(t testing.TB, s weightstest.Spec, path string) string {
	t.Helper()
	var err error
	if strings.HasSuffix(path, ".gguf") {
		err = s.WriteGGUF(path)
	} else {
		err = s.WriteSafetensors(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func inspectFails(t *testing.T, path string, sentinel error, about string) {
	t.Helper()
	m, err := weights.Inspect(context.Background(), path, unconfined)
	if err == nil {
		m.Close()
		t.Fatalf("%s was taken for a model; want an error about %q", path, about)
	}
	if !errors.Is(err, sentinel) || !strings.Contains(err.Error(), about) {
		t.Fatalf("got %v; want %v about %q", err, sentinel, about)
	}
}

func TestShardedIsOneModel(t *testing.T) {
	dir := t.TempDir()
	index, err := tiny("a", "b", "c", "d", "e").WriteSharded(dir, 60)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{index, dir, dir + "/"} {
		m := mustInspect(t, path)
		if len(m.Files) != 3 || len(m.Tensors) != 5 || m.TotalBytes != 150 || m.Metadata["format"] != "pt" {
			t.Errorf("%s: %+v", path, m)
		}
	}
}

func TestIndexAndShardsMustAgree(t *testing.T) {
	for _, c := range []struct {
		homes    map[string]string
		sentinel error
		about    string
	}{
		{map[string]string{"a": "1.safetensors"}, weights.ErrInvalidModel, `does not name tensor "b"`},
		{map[string]string{"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}, weights.ErrInvalidModel, `has tensor "b" in 2.safetensors, but it is in 1.safetensors`},
		{map[string]string{"a": "1.safetensors", "b": "1.safetensors", "x": "1.safetensors"}, weights.ErrInvalidModel, `"x" in 1.safetensors, which does not hold it`},
		{map[string]string{"a": "1.safetensors", "b": "1.safetensors", "c": "3.safetensors"}, weights.ErrNotReadable, "no such file"},
		{map[string]string{"a": "../1.safetensors"}, weights.ErrInvalidModel, "no plain file name"},
		{map[string]string{"a": "/etc/passwd"}, weights.ErrInvalidModel, "no plain file name"},
		{map[string]string{"a": "sub/1.safetensors"}, weights.ErrInvalidModel, "no plain file name"},
		{map[string]string{"a": ".."}, weights.ErrInvalidModel, "no plain file name"},
		{map[string]string{"a": ""}, weights.ErrInvalidModel, "no plain file name"},
		{map[string]string{"a": "1\x00"}, weights.ErrInvalidModel, "no plain file name"},
		{map[string]string{"a": "m.gguf"}, weights.ErrInvalidModel, "but is gguf"},
		{map[string]string{"a": "i.safetensors.index.json"}, weights.ErrInvalidModel, "i.safetensors.index.json"},
		{map[string]string{}, weights.ErrInvalidModel, "weight_map"},
	} {
		dir := t.TempDir()
		write(t, tiny("a", "b"), filepath.Join(dir, "1.safetensors"))
		write(t, tiny("c"), filepath.Join(dir, "2.safetensors"))
		write(t, tiny("a"), filepath.Join(dir, "m.gguf"))
		inspectFails(t, writeFile(t, dir, "i.safetensors.index.json", indexText(t, c.homes)), c.sentinel, c.about)
	}
}

func TestTensorInTwoShards(t *testing.T) {
	dir := t.TempDir()
	write(t, tiny("a", "b"), filepath.Join(dir, "1.safetensors"))
	write(t, tiny("b"), filepath.Join(dir, "2.safetensors"))
	index := writeFile(t, dir, "i.safetensors.index.json", indexText(t, map[string]string{"a": "1.safetensors", "b": "2.safetensors"}))
	inspectFails(t, index, weights.ErrInvalidModel, `"b" in 2.safetensors, but it is in 1.safetensors`)
}

// indexLies are index texts that must be refused, and why.
var indexLies = map[string]string{
	"end of text":             `{"weight_map":{"a":"1.safetensors"}`,
	"after the end":           `{"weight_map":{"a":"1.safetensors"}}{}`,
	`key "weight_map" occurs`: `{"weight_map":{"a":"1.safetensors"},"weight_map":{}}`,
	`tensor "a" occurs twice`: `{"weight_map":{"a":"1.safetensors","a":"1.safetensors"}}`,
	`'1' where '"' is due`:    `{"weight_map":{"a":1}}`,
	`'[' where '{' is due`:    `{"weight_map":[]}`,
	"no weight_map":           `{"metadata":{"total_size":5}}`,
	"UTF-8":                   "{\"\xff\":1}",
}

func TestIndexLies(t *testing.T) {
	for about, text := range indexLies {
		inspectFails(t, writeFile(t, t.TempDir(), "i.safetensors.index.json", []byte(text)), weights.ErrInvalidModel, about)
	}
}

func TestLimitsOfSharded(t *testing.T) {
	dir := t.TempDir()
	index, err := tiny("a", "b", "c").WriteSharded(dir, 30)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o     weights.Options
		about string
	}{
		{weights.Options{MaxFiles: 2}, "more than 2 shards"},
		{weights.Options{MaxTensors: 2}, "more than 2 tensors"},
		{weights.Options{MaxHeaderBytes: 10}, "at most 10"},
	} {
		c.o.Roots = weights.Unconfined()
		if _, err := weights.Inspect(context.Background(), index, c.o); !errors.Is(err, weights.ErrInvalidModel) || !strings.Contains(err.Error(), c.about) {
			t.Errorf("got %v, want an error about %q", err, c.about)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(`{"metadata":{"total_size":1.5e3},"weight_map":{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}}`)
	for _, text := range indexLies {
		f.Add(text)
	}
	dir := f.TempDir()
	write(f, tiny("a", "b"), filepath.Join(dir, "1.safetensors"))
	write(f, tiny("c"), filepath.Join(dir, "2.safetensors"))
	f.Fuzz(func(t *testing.T, text string) {
		path := writeFile(t, dir, "i.safetensors.index.json", []byte(text))
		m, err := weights.Inspect(context.Background(), path, unconfined)
		switch {
		case err == nil:
			m.Close()
			for _, file := range m.Files {
				if filepath.Dir(file.Path) != dir {
					t.Fatalf("opened %s", file.Path)
				}
			}
		case !errors.Is(err, weights.ErrInvalidModel) && !errors.Is(err, weights.ErrNotReadable):
			t.Fatal(err)
		}
	})
}

func TestFolders(t *testing.T) {
	for _, c := range []struct {
		files []string
		want  string // "" with about: refused
		about string
	}{
		{[]string{"x.safetensors", "config.json"}, "x.safetensors", ""},
		{[]string{"x.gguf"}, "x.gguf", ""},
		{[]string{"model.safetensors", "model.fp16.safetensors"}, "model.safetensors", ""},
		{[]string{"diffusion_pytorch_model.safetensors", "other.safetensors"}, "diffusion_pytorch_model.safetensors", ""},
		{[]string{"a.safetensors", "b.safetensors"}, "", "several models (a.safetensors, b.safetensors)"},
		{[]string{"a.safetensors", "b.gguf"}, "", "several models"},
		{[]string{"readme.md"}, "", "without a model"},
	} {
		dir := t.TempDir()
		for _, name := range c.files {
			write(t, tiny("a"), filepath.Join(dir, name))
		}
		if c.want == "" {
			inspectFails(t, dir, weights.ErrInvalidModel, c.about)
		} else if m := mustInspect(t, dir); m.Files[0].Path != filepath.Join(dir, c.want) {
			t.Errorf("%v: chose %s", c.files, m.Files[0].Path)
		}
	}
}

// splitPart writes one part of a split GGUF model by hand: weightstest writes whole ones.
func splitPart(t *testing.T, dir, name string, no, count uint16, total uint32, tensors ...string) string {
	t.Helper()
	g := ggufHead(3, uint64(len(tensors)), 3)
	g = append(g.str("split.no").u32(2), byte(no), byte(no>>8))
	g = append(g.str("split.count").u32(2), byte(count), byte(count>>8))
	g = g.str("split.tensors.count").u32(5).u32(total)
	for i, n := range tensors {
		g = g.info(n, 0, uint64(i)*32, 8)
	}
	return writeFile(t, dir, name, g.pad(32).zero(32*len(tensors)))
}

func TestSplitGGUF(t *testing.T) {
	dir := t.TempDir()
	first := splitPart(t, dir, "m-00001-of-00003.gguf", 0, 3, 3, "a", "b")
	second := splitPart(t, dir, "m-00002-of-00003.gguf", 1, 3, 3)
	splitPart(t, dir, "m-00003-of-00003.gguf", 2, 3, 3, "c")
	for _, path := range []string{first, second, dir} {
		if m := mustInspect(t, path); len(m.Files) != 3 || len(m.Tensors) != 3 || m.Tensors[2].File != 2 {
			t.Errorf("%s: %+v", path, m)
		}
	}
	splitPart(t, dir, "m-00003-of-00003.gguf", 2, 3, 3, "a")
	inspectFails(t, first, weights.ErrInvalidModel, `tensor "a" is also in`)
	splitPart(t, dir, "m-00003-of-00003.gguf", 2, 3, 3, "c", "d")
	inspectFails(t, first, weights.ErrInvalidModel, "promises 3 tensors, the parts hold 4")
	splitPart(t, dir, "m-00003-of-00003.gguf", 1, 3, 3, "c")
	inspectFails(t, first, weights.ErrInvalidModel, "says that it is part 2 of 3")
	if err := os.Remove(filepath.Join(dir, "m-00003-of-00003.gguf")); err != nil {
		t.Fatal(err)
	}
	inspectFails(t, first, weights.ErrNotReadable, "no such file")
	inspectFails(t, splitPart(t, dir, "renamed.gguf", 0, 3, 3, "a"), weights.ErrInvalidModel, "is not named")
	inspectFails(t, splitPart(t, dir, "m-00004-of-00003.gguf", 3, 3, 3, "a"), weights.ErrInvalidModel, "is not named")
	inspectFails(t, splitPart(t, dir, "m-00001-of-60000.gguf", 0, 60000, 3, "a"), weights.ErrInvalidModel, "at most 1024")
}

func TestOnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "p.safetensors")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	inspectFails(t, pipe, weights.ErrNotReadable, "not a regular file") // and does not wait for a writer
	inspectFails(t, "/dev/null", weights.ErrNotReadable, "not a regular file")
	inspectFails(t, filepath.Join(dir, "nothing"), fs.ErrNotExist, "no such file")
	write(t, tiny("a"), filepath.Join(dir, "1.safetensors"))
	if err := os.Mkdir(filepath.Join(dir, "2.safetensors"), 0o700); err != nil {
		t.Fatal(err)
	}
	index := writeFile(t, dir, "i.safetensors.index.json", indexText(t, map[string]string{"a": "1.safetensors", "b": "2.safetensors"}))
	inspectFails(t, index, weights.ErrNotReadable, "not a regular file")
}

func TestFailedInspectClosesItsFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, tiny("a", "b"), filepath.Join(dir, "1.safetensors"))
	index := writeFile(t, dir, "i.safetensors.index.json", indexText(t, map[string]string{"a": "1.safetensors", "b": "1.safetensors", "x": "1.safetensors"}))
	before := openFiles(t)
	for range 10 {
		inspectFails(t, index, weights.ErrInvalidModel, "x")
	}
	for range 10 {
		inspectBytes(t, []byte("junk junk"), weights.Options{})
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestInspectIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := weights.Inspect(ctx, write(t, tiny("a"), filepath.Join(t.TempDir(), "m.safetensors")), unconfined); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestContentID(t *testing.T) {
	dir := t.TempDir()
	path := write(t, tiny("a", "b"), filepath.Join(dir, "m.safetensors"))
	id := mustInspect(t, path).ContentID
	if again := mustInspect(t, path).ContentID; again != id || len(id) != 64 {
		t.Errorf("%s, then %s", id, again)
	}
	moved := filepath.Join(dir, "moved.safetensors")
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	if again := mustInspect(t, moved).ContentID; again != id {
		t.Errorf("renamed: %s, was %s", again, id)
	}
	seen := map[string]string{id: "the file"}
	for _, c := range []struct{ what, path string }{
		{"a copy", write(t, tiny("a", "b"), filepath.Join(dir, "copy.safetensors"))},
		{"other names", write(t, tiny("a", "c"), filepath.Join(dir, "names.safetensors"))},
	} {
		other := mustInspect(t, c.path).ContentID
		if was, twice := seen[other]; twice {
			t.Errorf("%s has the ContentID of %s", c.what, was)
		}
		seen[other] = c.what
	}
	info := mustInspect(t, moved).Files[0]
	if err := os.Chtimes(moved, info.ModTime, info.ModTime.Add(1)); err != nil {
		t.Fatal(err)
	}
	if again := mustInspect(t, moved).ContentID; again == id {
		t.Error("touched: the same ContentID")
	}
}

func TestContentIDSeesMoreThanTimes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"m.safetensors", "m.gguf"} {
		path := write(t, tiny("a", "b"), filepath.Join(dir, name))
		first := mustInspect(t, path)
		sameTime := func(p string) {
			if err := os.Chtimes(p, first.Files[0].ModTime, first.Files[0].ModTime); err != nil {
				t.Fatal(err)
			}
		}
		twin := write(t, tiny("a", "b"), filepath.Join(dir, "twin-"+name))
		sameTime(twin)
		if mustInspect(t, twin).ContentID == first.ContentID {
			t.Errorf("%s: another file with the same bytes and time has the same ContentID", name)
		}
		write(t, tiny("a", "c"), path) // in place: the same inode
		sameTime(path)
		again := mustInspect(t, path)
		if again.Files[0].Inode != first.Files[0].Inode || again.Files[0].Bytes != first.Files[0].Bytes {
			t.Fatal("the file was not written in place")
		}
		if again.ContentID == first.ContentID {
			t.Errorf("%s: another header has the same ContentID", name)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	m := mustInspect(t, write(t, tiny("a"), filepath.Join(t.TempDir(), "m.safetensors")))
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Fatal(err)
	}
	l := m.Layout(weights.LayoutOptions{})
	if err := weights.Load(context.Background(), m, l, weightstest.NewMemory(l), weights.LoadOptions{}); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("load of a closed model: %v", err)
	}
}
