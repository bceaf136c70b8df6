package deploy_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// host is what the units make: a vault and a node, each a process group of its own, that
// share a folder.
type host struct {
	t        *testing.T
	exe, dir string
	log      *os.File // what all of them say
}

// start runs the program with a unit's arguments.
func (h *host) start(unit string, more ...string) *exec.Cmd {
	h.t.Helper()
	line := strings.Fields(setting(read(h.t, "systemd", unit), "ExecStart"))[1:]
	for i, a := range line {
		a = strings.ReplaceAll(a, "/run/isobar", filepath.Join(h.dir, "run"))
		line[i] = strings.ReplaceAll(a, "/var/lib/isobar", filepath.Join(h.dir, "state"))
	}
	cmd := exec.Command(h.exe, append(line, more...)...)
	cmd.Env = append(os.Environ(), "ISOBAR_NODE=test")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = h.log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait()
		}
	})
	return cmd
}

// session dials until a node listens.
func (h *host) session(ctx context.Context) *data.Client {
	h.t.Helper()
	for {
		d, err := data.Dial(ctx, data.Config{SocketPath: filepath.Join(h.dir, "run", "data.sock"), Name: "test"})
		if err == nil {
			h.t.Cleanup(func() { d.Close() })
			return d
		}
		if ctx.Err() != nil {
			h.t.Fatalf("%v\n%s", err, read(h.t, h.log.Name()))
		}
	}
}

// What systemd does to a unit's control group is done to the node's process group: all of it
// is killed. The vault, a unit of its own, stays, and with it a grant that somebody has
// mapped; the next node takes it over.
func TestTheVaultOutlivesTheNodesUnit(t *testing.T) {
	dir, err := os.MkdirTemp("", "dep")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	h := &host{t: t, exe: filepath.Join(dir, "isobar"), dir: dir, log: log}
	build := exec.Command("go", "build", "-trimpath", "-o", h.exe, "../cmd/node")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil { // RuntimeDirectory=
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	vault := h.start("isobar-vault.service")
	args := []string{"--listen", "127.0.0.1:0", "--no-jetstream", "--device", "sim:gpu-0=64MiB", "--http", "off"}
	node := h.start("isobar.service", args...)
	d := h.session(ctx)
	call := func(a schemas.Action, in, out any) {
		t.Helper()
		c, err := client.Connect(client.Options{URL: d.Session().NATSURL})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Call(ctx, a, in, out); err != nil {
			t.Fatalf("%s: %v", a, err)
		}
	}
	var g schemas.AllocateReply
	call(schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 8 << 20, Class: schemas.ClassState}, &g)
	m, err := d.Map(ctx, g.Handle.Claim, data.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	copy(m.Segments[0].Bytes, "still here")

	if err := syscall.Kill(-node.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = node.Wait()
	if err := vault.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatal("the vault went with the node:", err)
	}
	if !bytes.HasPrefix(m.Segments[0].Bytes, []byte("still here")) {
		t.Fatal("the mapping lost its bytes")
	}
	h.start("isobar.service", args...)
	for d.Ping(ctx) != nil { // the first may still go to the one that was killed; then it is resumed
		if ctx.Err() != nil {
			t.Fatal("the session was not resumed")
		}
	}
	var again schemas.GetHandleReply
	call(schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: g.AllocationID}, &again)
	other := h.session(ctx)
	seen, err := other.Map(ctx, again.Handle.Claim, data.ReadOnly)
	if err != nil || !bytes.HasPrefix(seen.Segments[0].Bytes, []byte("still here")) {
		t.Fatalf("taken over without its bytes: %v", err)
	}
}
