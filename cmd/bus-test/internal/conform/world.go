package conform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/consumer"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

const mib = 1 << 20

// The devices of conform's own node.
const (
	gpuBytes = 512 * mib
	ramBytes = 512 * mib
)

// modelBytes is the size of the model that is loaded.
const modelBytes = 6 * mib

// world is the node and what the checks have of it.
type world struct {
	ctx     context.Context
	program []string
	dir     string
	own     *embedded.Node // nil if the node is not ours
	pid     int            // the node's process

	nc     *nats.Conn
	seen   *collector
	node   string
	socket string
	// device is where most is tried, ram one of main memory, other another than device;
	// the last two are "" where there is none.
	device, ram, other string
	devices            []string
	modelPath          string
	model              weightstest.Spec

	session  *data.Client
	second   *consumer.Process
	mappings []*data.Mapping
	lastID   int
	granted  []string // to release after the check
	loaded   bool     // models, the same
	shapes   map[schemas.Action]*schema
	annexes  map[string]*annex

	// Of a user of an annex: its name, and what the server said that it may not.
	user   string
	denied chan error
}

// open finds or starts the node.
func open(ctx context.Context, o Options) (w *world, err error) {
	w = &world{ctx: ctx, program: o.Program, shapes: map[schemas.Action]*schema{}, annexes: map[string]*annex{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.dir, err = os.MkdirTemp("", "isobar"); err != nil {
		return w, err
	}
	url := o.NATSURL
	roots := filepath.Join(w.dir, "models")
	if err = os.MkdirAll(roots, 0o700); err != nil {
		return w, err
	}
	if url == "" {
		w.own, err = embedded.Start(ctx, o.Program, embedded.Spec{Dir: w.dir, Settings: map[string][]string{
			"devices":     {fmt.Sprintf("sim:gpu-0=%dMiB", gpuBytes/mib), fmt.Sprintf("ram:ram-0=%dMiB", ramBytes/mib)},
			"model_roots": {roots}, "pressure_dwell": {"200ms"}, "pressure_dwell_critical": {"400ms"}, "log_level": {"warn"},
		}})
		if err != nil {
			return w, err
		}
		url = w.own.URL
		w.model, w.modelPath = weightstest.Sized(modelBytes, 7), filepath.Join(roots, "conform.safetensors")
		if err = w.model.WriteSafetensors(w.modelPath); err != nil {
			return w, err
		}
	}
	if w.nc, err = nats.Connect(url, nats.Name("bus-test conform")); err != nil {
		return w, err
	}
	if w.seen, err = collect(w.nc); err != nil {
		return w, err
	}
	return w, w.look()
}

// look finds the devices, the data socket and the node's process, and opens a session and
// a second process with its own.
func (w *world) look() error {
	var devices schemas.ListDevicesReply
	head, err := w.plain(schemas.ActionListDevices, nil, &devices)
	if err != nil {
		return err
	}
	w.node = head.Node
	for _, d := range devices.Devices {
		w.devices = append(w.devices, d.DeviceID)
		if d.Type == schemas.DeviceTypeRAM && w.ram == "" {
			w.ram = d.DeviceID
		}
	}
	if len(w.devices) == 0 {
		return errors.New("the node has no device")
	}
	w.device = w.devices[0]
	if len(w.devices) > 1 {
		w.other = w.devices[1]
	}
	if !w.mayAllocate() {
		return nil
	}
	var got schemas.AllocateReply
	if _, err = w.plain(schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: w.device, SizeBytes: mib}, &got); err != nil {
		return err
	}
	if _, err = w.plain(schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: got.AllocationID}, nil); err != nil {
		return err
	}
	w.socket = got.Handle.DataSocket
	if w.pid, err = listener(w.socket); err != nil {
		return err
	}
	if w.session, err = data.Dial(w.ctx, data.Config{SocketPath: w.socket, Name: "bus-test conform"}); err != nil {
		return err
	}
	w.second, err = consumer.Start(w.program, w.socket)
	return err
}

type head struct {
	Success   bool
	Node      string
	ErrorCode string `json:"error_code"`
	Data      json.RawMessage
}

// plain gives a command before anything is checked.
func (w *world) plain(a schemas.Action, in, out any) (head, error) {
	var h head
	payload := []byte("{}")
	var err error
	if in != nil {
		if payload, err = json.Marshal(in); err != nil {
			return h, err
		}
	}
	subject := schemas.CommandSubject(a)
	if w.node != "" {
		subject = schemas.NodeCommandSubject(a, w.node)
	}
	m, err := w.nc.Request(subject, payload, patience)
	if err != nil {
		return h, fmt.Errorf("%s: %w", a, err)
	}
	if err := json.Unmarshal(m.Data, &h); err != nil || !h.Success {
		return h, fmt.Errorf("%s: %s %v", a, h.ErrorCode, err)
	}
	if out != nil {
		err = json.Unmarshal(h.Data, out)
	}
	return h, err
}

// listener is the process behind a unix socket.
func listener(path string) (int, error) {
	nc, err := net.Dial("unix", path)
	if err != nil {
		return 0, fmt.Errorf("the data socket: %w", err)
	}
	defer nc.Close()
	raw, err := nc.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if cerr != nil {
		return 0, cerr
	}
	return int(cred.Pid), nil
}

// leave ends what we have of a node.
func (w *world) leave() error {
	var err error
	if w.second != nil {
		w.second.Reap()
	}
	if w.session != nil {
		err = w.session.Close()
	}
	if w.nc != nil {
		w.nc.Close()
	}
	return err
}

// close ends everything.
func (w *world) close() error {
	errs := []error{w.closeAnnexes(), w.leave()}
	if w.own != nil {
		errs = append(errs, w.own.Stop())
	}
	if w.dir != "" {
		errs = append(errs, os.RemoveAll(w.dir))
	}
	return errors.Join(errs...)
}

// nextID is a request_id that was not used before.
func (w *world) nextID() string {
	w.lastID++
	return fmt.Sprintf("conform-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), w.lastID)
}

// note remembers what an answer granted or loaded.
func (w *world) note(a schemas.Action, got answer) {
	if !got.ok {
		return
	}
	w.noteGrant(a, got.data)
	if a == schemas.ActionGetOperation {
		w.noteGrant(schemas.Action(text(got.data, "operation.action")), got.data)
		if r, ok := at(got.data, "operation.result").(object); ok {
			w.noteGrant(schemas.Action(text(got.data, "operation.action")), r)
		}
	}
}

func (w *world) noteGrant(a schemas.Action, data object) {
	switch a {
	case schemas.ActionAllocate, schemas.ActionTransfer:
		if id := text(data, "allocation_id"); id != "" && !slices.Contains(w.granted, id) {
			w.granted = append(w.granted, id)
		}
	case schemas.ActionLoadModel, schemas.ActionAcquireModel, "":
		w.loaded = w.loaded || a != ""
	}
}

// tidy releases what the check was granted.
func (w *world) tidy() {
	for _, x := range w.worlds() {
		x.tidyHere()
	}
}

func (w *world) tidyHere() {
	c := caller{w, formats[0]}
	for _, m := range w.mappings {
		if err := w.session.Unmap(w.ctx, m); err != nil {
			fail("unmapping: %v", err)
		}
	}
	w.mappings = nil
	granted := w.granted
	w.granted = nil
	for _, id := range granted {
		got := c.ask(schemas.ActionDeallocate, object{"allocation_id": id, "force": true, "deadline_ms": 0})
		if !got.ok && got.code != schemas.CodeAllocationNotFound {
			fail("releasing %s afterwards: %s", id, got)
		}
	}
	if w.loaded {
		w.loaded = false
		if got := c.ask(schemas.ActionUnloadModel, object{"name": modelName, "force": true, "deadline_ms": 0}); !got.ok && got.code != schemas.CodeModelNotFound {
			fail("unloading afterwards: %s", got)
		}
	}
}

// eventually repeats a look until it finds nothing wrong, or patience ends.
func (w *world) eventually(look func() string) {
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		why := look()
		if why == "" {
			return
		}
		select {
		case <-t.C:
		case <-limit.C:
			fail("%s", why)
		case <-w.ctx.Done():
			fail("%s (%v)", why, context.Cause(w.ctx))
		}
	}
}
