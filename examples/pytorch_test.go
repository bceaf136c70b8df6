package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// shares is what share.py says: both servers let go of the cheap model, and nothing else.
var shares = regexp.MustCompile(`(?s)two servers share 32 MiB of weights on ram-0, which has 32 MiB of models
.*the third process has its \d+ MiB
(server \d+: pressure is (high|critical), the upscaler is released
server \d+: answered all the while, always the same: \d+\.\d+
){2}on ram-0 now: generator
$`)

// pictures is what pipeline.py says, with PyTorch or without.
var pictures = regexp.MustCompile(`weights on ram-0: equal bit by bit\n$`)

// client runs a program that uses the Python client, against a node of its own.
func client(t *testing.T, program string, says *regexp.Regexp) {
	t.Helper()
	exe := os.Getenv("ISOBAR_PYTHON")
	if exe == "" {
		exe = "python3"
	}
	if out, err := exec.CommandContext(ctx(t), exe, "-c", "import nats, msgpack, numpy").CombinedOutput(); err != nil {
		t.Skipf("%s was not run: ISOBAR_PYTHON names no Python with the client's packages (make test does)\n%s", program, out)
	}
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=128MiB"))
	var grant schemas.AllocateReply
	if err := n.Client(t).Do(ctx(t), schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 4096}, &grant, nil); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx(t), exe, "-B", filepath.Join("pytorch", program), "--url", n.Info().URL, "--device", "ram-0")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join("..", "clients", "python", "src"),
		"ISOBAR_RUNTIME_DIR="+filepath.Dir(grant.Handle.DataSocket))
	out, err := cmd.Output()
	if err != nil || !says.Match(out) {
		if e, ok := err.(*exec.ExitError); ok {
			out = append(out, e.Stderr...)
		}
		t.Errorf("%s: %v\n%s", program, err, out)
	}
}

// TestShare: two processes compute with one copy of a model while a third wants memory.
func TestShare(t *testing.T) { client(t, "share.py", shares) }

// TestPipeline: three models from the pool make the picture that they make without it.
func TestPipeline(t *testing.T) { client(t, "pipeline.py", pictures) }
