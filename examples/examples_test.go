package examples

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// patience is how long a program may take, its compilation included.
const patience = 3 * time.Minute

func ctx(t *testing.T) context.Context {
	c, stop := context.WithTimeout(t.Context(), patience)
	t.Cleanup(stop)
	return c
}

// python runs map.py with the interpreter of the tests, or the system's.
func python(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	exe := os.Getenv("ISOBAR_PYTHON")
	if exe == "" {
		exe = "python3"
	}
	cmd := exec.CommandContext(ctx(t), exe, append([]string{"map.py"}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("map.py %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestMapScratch: what one process writes, the next one finds.
func TestMapScratch(t *testing.T) {
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=256MiB"))
	c := n.Client(t)
	const size = 3<<20 + 4096
	var grant schemas.AllocateReply
	if err := c.Do(ctx(t), schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: size, Persistent: true}, &grant, nil); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, size)
	copy(text, "isobar")
	sum := fmt.Sprintf("crc32 %08x", crc32.ChecksumIEEE(text))

	reply, err := json.Marshal(map[string]any{"success": true, "data": grant})
	if err != nil {
		t.Fatal(err)
	}
	if out := python(t, reply, "--write", "isobar", "-"); !strings.Contains(out, sum) {
		t.Errorf("no %s in\n%s", sum, out)
	}
	var again schemas.GetHandleReply
	if err := c.Do(ctx(t), schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: grant.AllocationID}, &again, nil); err != nil {
		t.Fatal(err)
	}
	out := python(t, nil, "--socket", again.Handle.DataSocket, again.Handle.Claim)
	if !strings.Contains(out, sum) || !strings.Contains(out, `begins with b'isobar`) {
		t.Errorf("no %s in\n%s", sum, out)
	}
}

// TestMapModel: a model is mapped read-only, tensor by tensor.
func TestMapModel(t *testing.T) {
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=256MiB"))
	c := n.Client(t)
	one, two := bytes.Repeat([]byte{1, 2, 3, 4}, 1024), bytes.Repeat([]byte{9, 8}, 4096)
	header := fmt.Sprintf(`{"one":{"dtype":"F32","shape":[32,32],"data_offsets":[0,%d]},"two":{"dtype":"BF16","shape":[4096],"data_offsets":[%d,%d]}}`,
		len(one), len(one), len(one)+len(two))
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	path := filepath.Join(n.ModelRoot, "m.safetensors")
	if err := os.WriteFile(path, append(append(file, one...), two...), 0o600); err != nil {
		t.Fatal(err)
	}
	var model schemas.LoadModelReply
	if err := c.Do(ctx(t), schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", Path: path}, &model, nil); err != nil {
		t.Fatal(err)
	}
	reply, err := json.Marshal(model)
	if err != nil {
		t.Fatal(err)
	}
	out := python(t, reply, "-")
	for _, want := range []string{
		fmt.Sprintf("one  F32 [32, 32]  crc32 %08x", crc32.ChecksumIEEE(one)),
		fmt.Sprintf("two  BF16 [4096]  crc32 %08x", crc32.ChecksumIEEE(two)),
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestGo runs the Go program.
func TestGo(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "example")
	build := exec.CommandContext(ctx(t), "go", "build", "-trimpath", "-o", exe, "./go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=256MiB"))
	out, err := exec.CommandContext(ctx(t), exe, "-nats", n.Info().URL, "-mib", "8").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := regexp.MustCompile(`(?s)granted 8388608 bytes of ram-0 as .*wrote 8388608 bytes in place, in 1 segment.*freed 8388608 bytes, confirmed: true`)
	if !want.Match(out) {
		t.Errorf("got\n%s", out)
	}
}

// TestReadme runs the Python program of the README as it stands there.
func TestReadme(t *testing.T) {
	exe := os.Getenv("ISOBAR_PYTHON")
	if exe == "" {
		t.Fatal("ISOBAR_PYTHON names no Python interpreter with requirements-test.txt: run `make test`, which provides one")
	}
	text, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```python\n(.*?)```").FindSubmatch(text)
	if block == nil {
		t.Fatal("the README has no Python program")
	}
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=256MiB"))
	program := strings.Replace(string(block[1]), "nats://127.0.0.1:4222", n.Info().URL, 1)
	cmd := exec.CommandContext(ctx(t), exe, "-c", program)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join("..", "clients", "python", "src"))
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "b'hello' 67108864\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
