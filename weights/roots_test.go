package weights_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/weights"
)

func rooted(t *testing.T, dirs ...string) weights.Options {
	t.Helper()
	r, err := weights.NewRoots(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	return weights.Options{Roots: r}
}

func link(t *testing.T, target, at string) {
	t.Helper()
	if err := os.Symlink(target, at); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, elem ...string) string {
	t.Helper()
	dir := filepath.Join(elem...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRoots(t *testing.T) {
	top := t.TempDir()
	one, two, out := mkdir(t, top, "one"), mkdir(t, top, "two"), mkdir(t, top, "one-more")
	write(t, tiny("a"), filepath.Join(mkdir(t, one, "sub"), "m.safetensors"))
	write(t, tiny("b"), filepath.Join(two, "m.safetensors"))
	secret := write(t, tiny("secret"), filepath.Join(out, "m.safetensors"))
	link(t, one, filepath.Join(top, "alias"))                                      // of a root
	link(t, "sub/m.safetensors", filepath.Join(one, "inner"))                      // stays inside
	link(t, filepath.Join(one, "sub", "m.safetensors"), filepath.Join(one, "abs")) // absolute, inside
	link(t, filepath.Join(two, "m.safetensors"), filepath.Join(one, "other"))      // into another root
	link(t, "../two/m.safetensors", filepath.Join(one, "otherrel"))                // the same, relative
	link(t, secret, filepath.Join(one, "leak"))                                    // out
	link(t, "../one-more", filepath.Join(one, "leakdir"))                          // out, a folder
	link(t, filepath.Join(one, "leak"), filepath.Join(two, "twice"))               // out, in two steps
	link(t, "loop", filepath.Join(one, "loop"))                                    // nowhere
	link(t, filepath.Join(out, "nothing"), filepath.Join(one, "dangling"))         // out, to nothing
	link(t, filepath.Join(two, "nothing"), filepath.Join(one, "danglinginside"))   // inside, to nothing
	o := rooted(t, filepath.Join(top, "alias"), two)

	for path, tensor := range map[string]string{
		filepath.Join(one, "sub", "m.safetensors"):           "a",
		filepath.Join(top, "alias", "sub", "m.safetensors"):  "a",
		filepath.Join(one, "sub"):                            "a",
		"sub/m.safetensors":                                  "a",
		"m.safetensors":                                      "b", // found in the second root
		filepath.Join(one, "inner"):                          "a",
		filepath.Join(one, "abs"):                            "a",
		filepath.Join(one, "other"):                          "b",
		filepath.Join(one, "otherrel"):                       "b",
		filepath.Join(one, "sub", "..", "sub/m.safetensors"): "a",
	} {
		m, err := weights.Inspect(context.Background(), path, o)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if m.Tensors[0].Name != tensor {
			t.Errorf("%s: opened the file with tensor %q", path, m.Tensors[0].Name)
		}
		m.Close()
	}
	for _, path := range []string{
		secret, "", "/", "/etc/passwd", "..", "../one-more/m.safetensors", "sub/../../one-more/m.safetensors", "a\x00b",
		filepath.Join(one, "..", "one-more", "m.safetensors"),
		filepath.Join(one, "leak"), filepath.Join(one, "leakdir"), filepath.Join(one, "leakdir", "m.safetensors"),
		filepath.Join(two, "twice"), filepath.Join(one, "dangling"), filepath.Join(top, "nothing"),
	} {
		m, err := weights.Inspect(context.Background(), path, o)
		var oe *weights.OutsideError
		if !errors.As(err, &oe) || !errors.Is(err, weights.ErrNotReadable) {
			t.Errorf("%q: %v, %v; want an OutsideError", path, m, err)
		}
	}
	for _, path := range []string{filepath.Join(one, "nothing"), "nothing", filepath.Join(one, "loop"), filepath.Join(one, "inner", "x")} {
		_, err := weights.Inspect(context.Background(), path, o)
		if !errors.Is(err, weights.ErrNotReadable) {
			t.Errorf("%q: %v; want it to be not readable", path, err)
		}
	}
}

func TestShardsStayInTheRoots(t *testing.T) {
	top := t.TempDir()
	root, out := mkdir(t, top, "root"), mkdir(t, top, "out")
	blobs, snapshot := mkdir(t, root, "blobs"), mkdir(t, root, "snapshots", "1")
	write(t, tiny("a"), filepath.Join(blobs, "0123"))
	write(t, tiny("b"), filepath.Join(out, "4567"))
	writeFile(t, snapshot, "model.safetensors.index.json", indexText(t, map[string]string{"a": "1.safetensors", "b": "2.safetensors"}))
	// The layout of a hub cache: names are links to blobs.
	link(t, "../../blobs/0123", filepath.Join(snapshot, "1.safetensors"))
	link(t, "../../../out/4567", filepath.Join(snapshot, "2.safetensors"))
	_, err := weights.Inspect(context.Background(), snapshot, rooted(t, root))
	var oe *weights.OutsideError
	if !errors.As(err, &oe) || !strings.Contains(oe.Path, "2.safetensors") {
		t.Fatalf("got %v", err)
	}
	m, err := weights.Inspect(context.Background(), snapshot, rooted(t, root, out))
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
}

func TestNoRootsAllowNothing(t *testing.T) {
	path := write(t, tiny("a"), filepath.Join(t.TempDir(), "m.safetensors"))
	for _, o := range []weights.Options{{}, rooted(t)} {
		_, err := weights.Inspect(context.Background(), path, o)
		if err == nil || !errors.Is(err, weights.ErrNotReadable) || !strings.Contains(err.Error(), "no model root is configured") {
			t.Errorf("got %v", err)
		}
	}
}

func TestNewRootsRefuses(t *testing.T) {
	file := writeFile(t, t.TempDir(), "f", nil)
	for _, dir := range []string{"relative", file, filepath.Join(file, "x"), "/nonexistent"} {
		if _, err := weights.NewRoots(dir); err == nil {
			t.Errorf("%q became a root", dir)
		}
	}
	dir := t.TempDir()
	if got := rooted(t, dir, dir+"/").Roots.Dirs(); len(got) != 1 || got[0] != dir {
		t.Errorf("roots %v", got)
	}
}
