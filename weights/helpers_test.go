package weights_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/weights"
	"github.com/isobar-project/isobar/weights/weightstest"
)

var unconfined = weights.Options{Roots: weights.Unconfined()}

// memfile is an unnamed file with these bytes.
func memfile(t testing.TB, content []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("model", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "model")
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// inspectBytes describes a model of one file with these bytes.
func inspectBytes(t testing.TB, content []byte, o weights.Options) (*weights.Model, error) {
	t.Helper()
	m, err := weights.InspectFile(context.Background(), memfile(t, content), "model", o)
	if err == nil {
		t.Cleanup(func() { m.Close() })
	}
	return m, err
}

func mustInspect(t testing.TB, path string) *weights.Model {
	t.Helper()
	m, err := weights.Inspect(context.Background(), path, unconfined)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// writeFile puts a file into a folder and answers its path.
func writeFile(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// stBytes is a safetensors file of this header text and n bytes of data.
func stBytes(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func indexText(t testing.TB, homes map[string]string) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"total_size": 1.5}, "weight_map": homes})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkLoaded compares every tensor in the sink with the Spec that was written.
func checkLoaded(t testing.TB, s weightstest.Spec, m *weights.Model, l *weights.Layout, sink *weightstest.Memory) {
	t.Helper()
	if len(m.Tensors) != len(s.Tensors) || len(l.Placed) != len(m.Tensors) {
		t.Fatalf("%d tensors written, %d found, %d placed", len(s.Tensors), len(m.Tensors), len(l.Placed))
	}
	for _, p := range l.Placed {
		tensor := m.Tensors[p.Tensor]
		i := s.Index(tensor.Name)
		if i < 0 {
			t.Fatalf("tensor %q was not written", tensor.Name)
		}
		if tensor.DType != s.Tensors[i].DType || !sameShape(tensor.Shape, s.Tensors[i].Shape) {
			t.Fatalf("tensor %q is %s %v, written as %s %v", tensor.Name, tensor.DType, tensor.Shape, s.Tensors[i].DType, s.Tensors[i].Shape)
		}
		if err := s.Check(i, 0, sink.Tensor(m, p)); err != nil {
			t.Fatal(err)
		}
	}
}

func sameShape(a, b []int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
