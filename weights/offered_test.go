package weights_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/weights"
)

func TestWhatCanBeOffered(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		path  string
		flags int
		says  string
	}{
		{"readable", path, os.O_RDONLY, ""},
		{"readable and more", path, os.O_RDWR | os.O_APPEND | unix.O_NONBLOCK, ""},
		{"write-only", path, os.O_WRONLY, "not open for reading"},
		{"path only", path, unix.O_PATH, "not open for reading"},
		{"folder", dir, os.O_RDONLY, "not a regular file"},
		{"device", "/dev/null", os.O_RDONLY, "not a regular file"},
	} {
		f, err := os.OpenFile(tc.path, tc.flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = weights.CheckOffered(f, tc.name)
		if tc.says == "" && err != nil || tc.says != "" && (!errors.Is(err, weights.ErrNotReadable) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v", tc.name, err)
		}
		f.Close()
	}
	huge := memfile(t, nil)
	defer huge.Close()
	if err := huge.Truncate(1<<60 + 1); err != nil {
		t.Fatal(err)
	}
	if err := weights.CheckOffered(huge, "huge"); !errors.Is(err, weights.ErrNotReadable) {
		t.Error(err)
	}
}

func TestAnIndexIsNoModelByItself(t *testing.T) {
	f := memfile(t, []byte(`{"metadata":{},"weight_map":{"a":"b.safetensors"}}`))
	_, err := weights.InspectFile(t.Context(), f, "model.safetensors.index.json", weights.Options{})
	if !errors.Is(err, weights.ErrInvalidModel) || !strings.Contains(err.Error(), "one descriptor") {
		t.Fatal(err)
	}
	// A header whose length happens to begin with the same byte is a header.
	body := `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`
	text := body + strings.Repeat(" ", '{'-len(body))
	f = memfile(t, []byte("{\x00\x00\x00\x00\x00\x00\x00"+text+"x"))
	m, err := weights.InspectFile(t.Context(), f, "m", weights.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
}

func TestADuplicateOutlivesTheOther(t *testing.T) {
	f := memfile(t, []byte("text"))
	g, err := weights.Duplicate(f)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	f.Close()
	if _, err := g.Stat(); err != nil {
		t.Fatal(err)
	}
	if _, err := weights.Duplicate(f); err == nil {
		t.Fatal("a closed file was duplicated")
	}
}
