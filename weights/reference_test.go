package weights_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/weights"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// reference runs testdata/reference.py, which asks the formats' own libraries.
func reference(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	python := os.Getenv("ISOBAR_PYTHON")
	if python == "" {
		if testing.Short() {
			t.Skip("-short leaves the reference libraries out")
		}
		t.Fatal("ISOBAR_PYTHON names no Python interpreter with requirements-test.txt: run `make test`, which provides one")
	}
	cmd := exec.Command(python, append([]string{"testdata/reference.py"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("reference.py %v: %v\n%s", args, err, problems.Bytes())
	}
	return string(out)
}

type referenceTensor struct {
	Name, DType   string
	Shape         []int64
	Offset, Bytes int64
	SHA256        string
}

// compareWithReference loads a file and holds every tensor against what the
// reference library said of it, one JSON object a line.
func compareWithReference(t *testing.T, path, lines string) *weights.Model {
	t.Helper()
	want := make(map[string]referenceTensor)
	for in := bufio.NewScanner(strings.NewReader(lines)); in.Scan(); {
		var x referenceTensor
		if err := json.Unmarshal(in.Bytes(), &x); err != nil {
			t.Fatal(err)
		}
		want[x.Name] = x
	}
	m := mustInspect(t, path)
	l := m.Layout(weights.LayoutOptions{SegmentBytes: 32 << 20})
	sink := weightstest.NewMemory(l)
	if err := weights.Load(context.Background(), m, l, sink, weights.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(m.Tensors) || len(want) == 0 {
		t.Errorf("the reference has %d tensors, we have %d", len(want), len(m.Tensors))
	}
	for _, p := range l.Placed {
		x := m.Tensors[p.Tensor]
		w := want[x.Name]
		if x.DType != w.DType && x.DType != "GGUF_"+w.DType || !sameShape(x.Shape, w.Shape) || x.FileOffset != w.Offset || x.Bytes != w.Bytes {
			t.Errorf("we say %+v, the reference %+v", x, w)
		}
		if sum := sha256.Sum256(sink.Tensor(m, p)); hex.EncodeToString(sum[:]) != w.SHA256 {
			t.Errorf("tensor %q: other bytes than the reference's", x.Name)
		}
	}
	return m
}

func TestPublishedModelAsTheReferenceReadsIt(t *testing.T) {
	path := strings.TrimSpace(reference(t, "", "published"))
	m := compareWithReference(t, path, reference(t, "", "safetensors", path))
	if len(m.Tensors) < 100 || m.TotalBytes < 80<<20 {
		t.Errorf("%d tensors of %d bytes: is that the published model?", len(m.Tensors), m.TotalBytes)
	}
}

func TestGGUFAsTheReferenceReadsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	reference(t, "", "gguf-write", path)
	m := compareWithReference(t, path, reference(t, "", "gguf", path))
	if len(m.Tensors) < 30 {
		t.Errorf("only %d tensors", len(m.Tensors))
	}
	for k, v := range map[string]string{
		"general.architecture": "llama", "general.alignment": "64", "test.u32": "4000000000", "test.i64": "-5",
		"test.f32": "0.25", "test.bool": "true", "test.string": "grüße",
	} {
		if m.Metadata[k] != v {
			t.Errorf("%s is %q, want %q", k, m.Metadata[k], v)
		}
	}
}

func TestWhatWeWriteTheReferenceReads(t *testing.T) {
	dir := t.TempDir()
	s := weightstest.Sized(20<<20, 5)
	path := write(t, s, filepath.Join(dir, "m.safetensors"))
	compareWithReference(t, path, reference(t, "", "safetensors", path))
	path = write(t, s, filepath.Join(dir, "m.gguf"))
	compareWithReference(t, path, reference(t, "", "gguf", path))
}

// TestNeverLaxerThanTheReference judges every odd header of the tables by both.
// Only what is listed here may be sound for the reference and not for us.
func TestNeverLaxerThanTheReference(t *testing.T) {
	var files [][]byte
	var reasons []string
	for _, c := range tolerated {
		files, reasons = append(files, stBytes(c.header, c.data)), append(reasons, "")
	}
	for _, c := range lies {
		files, reasons = append(files, stBytes(c.header, c.data)), append(reasons, c.reason)
	}
	var in strings.Builder
	for _, f := range files {
		in.WriteString(base64.StdEncoding.EncodeToString(f) + "\n")
	}
	verdicts := strings.Fields(reference(t, in.String(), "judge"))
	if len(verdicts) != len(files) {
		t.Fatalf("%d verdicts on %d files", len(verdicts), len(files))
	}
	stricter := []string{"twice", "dimensions", "tensor name of", "without a name"}
	for i, v := range verdicts {
		theirs, ours := v == "true", reasons[i] == ""
		if ours && !theirs {
			t.Errorf("the reference refuses %.200q", files[i])
		}
		if theirs && !ours && !containsAny(reasons[i], stricter) {
			t.Errorf("the reference accepts %.200q, we refuse it: %s", files[i], reasons[i])
		}
	}
}

func containsAny(s string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}
