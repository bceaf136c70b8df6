package gputest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
)

// process is a child of the test.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   *json.Encoder
	pipe io.Closer
	out  *json.Decoder
	ctx  context.Context // ends with the process
	once sync.Once
	mu   sync.Mutex
	err  []byte
}

// Write keeps the end of what the child complains of.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = append(p.err, b...)
	p.err = p.err[max(0, len(p.err)-16<<10):]
	return len(b), nil
}

func spawn(t testing.TB, role, dir string) *process {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	p := &process{t: t, cmd: exec.Command(exe, role, dir)}
	p.cmd.Stderr, p.cmd.WaitDelay = p, time.Second // the vault has the node's streams
	in, err := p.cmd.StdinPipe()
	must(t, err)
	p.in, p.pipe = json.NewEncoder(in), in
	out, w, err := os.Pipe()
	must(t, err)
	p.cmd.Stdout = w
	p.out = json.NewDecoder(bufio.NewReader(out))
	must(t, p.cmd.Start())
	w.Close()
	var cancel context.CancelFunc
	p.ctx, cancel = context.WithCancel(context.Background())
	go func() {
		p.cmd.Wait()
		cancel()
	}()
	t.Cleanup(func() {
		p.kill()
		out.Close()
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Logf("%s wrote:\n%s", role, p.err)
		}
	})
	return p
}

// kill ends the process like a crash.
func (p *process) kill() {
	p.once.Do(func() { p.cmd.Process.Kill() })
	<-p.ctx.Done()
}

// ended waits for a process that ends by itself, and returns its exit code.
func (p *process) ended() int {
	p.t.Helper()
	select {
	case <-p.ctx.Done():
	case <-time.After(patience):
		p.t.Fatal("the process did not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// host is a node on two GPUs, in a process of its own.
type host struct {
	*process
	dir  string
	info hello
	c    *client.Client
}

// place makes a folder for one test: short, because a socket's path may be no longer. What
// its vault holds ends with the test.
func place(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpu")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Mkdir(filepath.Join(dir, "models"), 0o700))
	return dir
}

// start starts a node that must serve.
func start(t testing.TB, dir string) *host {
	t.Helper()
	h := &host{process: spawn(t, roleNode, dir), dir: dir}
	if err := h.out.Decode(&h.info); err != nil || h.info.Err != "" {
		t.Fatalf("the node did not start: %v %s", err, h.info.Err)
	}
	c, err := client.Connect(client.Options{URL: h.info.Info.URL, Attempts: 1})
	must(t, err)
	t.Cleanup(c.Close)
	h.c = c
	return h
}

// breaks gives an order to the node's driver.
func (h *host) breaks(b breakage) {
	h.t.Helper()
	var done hello
	must(h.t, h.in.Encode(b))
	must(h.t, h.out.Decode(&done))
}

// call asks for one action; its error is the node's refusal, or that it died.
func call[T any](h *host, action schemas.Action, request any, opts ...client.CallOption) (*T, error) {
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	defer cancel()
	var reply T
	if err := h.c.Do(ctx, action, request, &reply, nil, opts...); err != nil {
		return nil, err
	}
	return &reply, nil
}

// done is call of what must succeed.
func done[T any](h *host, action schemas.Action, request any, opts ...client.CallOption) *T {
	h.t.Helper()
	r, err := call[T](h, action, request, opts...)
	if err != nil {
		h.t.Fatalf("%s: %v", action, err)
	}
	return r
}

// refused is call of what must fail with a code.
func refused[T any](h *host, code schemas.Code, action schemas.Action, request any, opts ...client.CallOption) {
	h.t.Helper()
	_, err := call[T](h, action, request, opts...)
	var fail *schemas.Error
	if !errors.As(err, &fail) || fail.Code != code {
		h.t.Fatalf("%s: %v, not %s", action, err, code)
	}
}

func (h *host) allocate(device string, bytes int64) *schemas.AllocateReply {
	h.t.Helper()
	return done[schemas.AllocateReply](h, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: device, SizeBytes: bytes})
}

func (h *host) memory(device string) schemas.MemoryInfo {
	h.t.Helper()
	return done[schemas.GetUsageReply](h, schemas.ActionGetUsage, &schemas.GetUsageRequest{DeviceID: device}).Devices[0].MemoryInfo
}

// device is how a device is listed.
func (h *host) device(id string) schemas.Device {
	h.t.Helper()
	for _, d := range done[schemas.ListDevicesReply](h, schemas.ActionListDevices, nil).Devices {
		if d.DeviceID == id {
			return d
		}
	}
	h.t.Fatalf("no device %s", id)
	return schemas.Device{}
}

// vaulted is how much the vault holds beside the ledger.
func (h *host) vaulted() (bytes int64) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := vault.Query(ctx, vault.ClientConfig{SocketPath: h.info.Info.VaultSocket})
	must(h.t, err)
	for _, s := range all {
		if s.ID >= 256 {
			bytes += s.Bytes
		}
	}
	return bytes
}

// until asks again and again, for as long as a test may take.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for limit := clock.Real().Now().Add(patience); !f(); {
		if clock.Real().Now() > limit {
			t.Fatalf("it never came: %s", what)
		}
	}
}

// empty waits until nothing of a GPU is in use or kept, in the books or the vault.
func (h *host) empty() {
	h.t.Helper()
	until(h.t, "all is given back", func() bool {
		for _, id := range []string{"gpu-0", "gpu-1"} {
			if m := h.memory(id); m.UsedMemory-m.ForeignMemory+m.PooledMemory != 0 || m.DriftBytes != 0 {
				return false
			}
		}
		return h.vaulted() == 0
	})
}

// works sees that a device grants, shares and takes back memory.
func (h *host) works(x *reader, device string) {
	h.t.Helper()
	g := h.allocate(device, 6*mib)
	x.tell(order{Do: "map", Claim: g.Handle.Claim})
	x.tell(order{Do: "check", ID: g.AllocationID})
	x.tell(order{Do: "unmap", ID: g.AllocationID})
	if r := done[schemas.DeallocateReply](h, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID}); !r.Confirmed {
		h.t.Fatalf("not given back: %+v", r)
	}
}

// stop ends a node cleanly.
func (h *host) stop() {
	h.t.Helper()
	must(h.t, h.cmd.Process.Signal(unix.SIGTERM))
	if code := h.ended(); code != 0 {
		h.t.Errorf("exit code %d", code)
	}
}

// reader is a consumer in a process of its own.
type reader struct {
	*process
	session string
}

func consume(t testing.TB, h *host) *reader {
	t.Helper()
	x := &reader{process: spawn(t, roleConsumer, h.dir)}
	x.session = x.tell(order{Do: "dial", Where: h.info.Info.DataSocket}).Session
	return x
}

// tell gives an order that must succeed.
func (x *reader) tell(o order) answer {
	x.t.Helper()
	var a answer
	must(x.t, x.in.Encode(o))
	must(x.t, x.out.Decode(&a))
	if a.Err != "" {
		x.t.Fatalf("%s: %s", o.Do, a.Err)
	}
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
