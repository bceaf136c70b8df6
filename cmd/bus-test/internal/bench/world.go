package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/schemas"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// requestTimeout is how long one command may take before the run is ended.
const requestTimeout = 20 * time.Second

// The second tenant of bench's own node.
const (
	otherTenant = "blue"
	otherPrefix = "isobar." + otherTenant + "."
)

// world is what the lines share: nodes, started when first asked for, and the echo.
type world struct {
	opts  Options
	ctx   context.Context
	dir   string
	nodes map[string]*embedded.Node
	conns []*nats.Conn
	typed []*client.Client
	// echo and oneOwner are the lines that others are compared with; nil if left out.
	echo     *echoLine
	oneOwner *pairLine
	// url and device are where the plain lines go.
	url, device string
}

func newWorld(ctx context.Context, o Options) (*world, error) {
	// Short, since it holds unix sockets.
	dir, err := os.MkdirTemp("", "bus-test")
	if err != nil {
		return nil, err
	}
	w := &world{opts: o, ctx: ctx, dir: dir, nodes: map[string]*embedded.Node{}}
	if o.NATSURL != "" {
		w.url, w.device = o.NATSURL, o.Device
		if w.device == "" {
			if w.device, err = w.firstRAM(ctx); err != nil {
				return nil, errors.Join(err, w.close())
			}
		}
		return w, nil
	}
	if len(o.Program) == 0 {
		return nil, errors.Join(errors.New("bench: no program to start nodes with"), w.close())
	}
	n, err := w.mainNode(ctx)
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.url, w.device = n.URL, "ram-0"
	return w, nil
}

func (w *world) firstRAM(ctx context.Context) (string, error) {
	c, err := w.client(w.url, client.Options{})
	if err != nil {
		return "", err
	}
	var r schemas.ListDevicesReply
	if err := c.Call(ctx, schemas.ActionListDevices, nil, &r); err != nil {
		return "", err
	}
	for _, d := range r.Devices {
		if d.Type == schemas.DeviceTypeRAM {
			return d.DeviceID, nil
		}
	}
	return "", errors.New("the node has no device of main memory: name one with --device")
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(w.opts.Progress, format+"\n", args...)
}

// wait lets time pass, unless the run ends.
func (w *world) wait(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// count is n, or a few if the run is quick.
func (w *world) count(n, quick int) int {
	if w.opts.Quick {
		return quick
	}
	return n
}

// node starts one of our own, once.
func (w *world) node(ctx context.Context, name string, spec embedded.Spec) (*embedded.Node, error) {
	if n := w.nodes[name]; n != nil {
		return n, nil
	}
	spec.Dir = filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Join(spec.Dir, "models"), 0o700); err != nil {
		return nil, err
	}
	if spec.Settings == nil {
		spec.Settings = map[string][]string{}
	}
	spec.Settings["model_roots"] = []string{w.models()}
	if w.opts.LogLevel != "" {
		spec.Settings["log_level"] = []string{w.opts.LogLevel}
	}
	n, err := embedded.Start(ctx, w.opts.Program, spec)
	if err != nil {
		return nil, err
	}
	w.nodes[name] = n
	return n, nil
}

// models is the folder of the models, made when the world is.
func (w *world) models() string {
	dir := filepath.Join(w.dir, "models")
	_ = os.MkdirAll(dir, 0o700) // whoever writes there sees that it failed
	return dir
}

// mainNode is the node of the plain lines, of two owners, and of loads.
func (w *world) mainNode(ctx context.Context) (*embedded.Node, error) {
	size := int64(6 * gib)
	if w.opts.Quick {
		size = 1 * gib
	}
	return w.node(ctx, "main", embedded.Spec{
		Settings: map[string][]string{"devices": {fmt.Sprintf("ram:ram-0=%dMiB", min(size, w.room())/mib)}},
		Tenants:  map[string]string{schemas.DefaultTenant: "", otherTenant: otherPrefix},
	})
}

// room is how much main memory a device of ours may have: half of what is free.
func (w *world) room() int64 { return max(256*mib, freeMemory()/2) }

// smallPool are the settings of a node whose pool is drained soon, and is soon back at what
// it keeps: each slice begins with the same.
func smallPool(vault string) embedded.Spec {
	return embedded.Spec{Settings: map[string][]string{
		"devices": {"ram:ram-0=1GiB"}, "pool_bytes": {"32MiB"}, "pool_half_life": {"10ms"}, "warm": {"1MiB:16"}, "vault": {vault},
	}}
}

// dial is a plain connection.
func (w *world) dial(url string) (*nats.Conn, error) {
	nc, err := nats.Connect(url, nats.Name("bus-test"))
	if err != nil {
		return nil, fmt.Errorf("NATS server %s: %w", url, err)
	}
	w.conns = append(w.conns, nc)
	return nc, nil
}

// client is a typed client.
func (w *world) client(url string, o client.Options) (*client.Client, error) {
	o.URL = url
	c, err := client.Connect(o)
	if err != nil {
		return nil, err
	}
	w.typed = append(w.typed, c)
	return c, nil
}

func (w *world) close() error {
	for _, c := range w.typed {
		c.Close()
	}
	for _, nc := range w.conns {
		nc.Close()
	}
	var errs []error
	for name, n := range w.nodes {
		if err := n.Stop(); err != nil {
			errs = append(errs, fmt.Errorf("stopping the node %s: %w", name, err))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, os.RemoveAll(w.dir))
	} else {
		errs = append(errs, fmt.Errorf("what the nodes said is in %s", w.dir))
	}
	return errors.Join(errs...)
}
