package conform

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// annex is another node of conform's own beside the one that most is tried on: one with a slow
// device, with tenants, or with a second node on its server. It is started when a check first
// needs it, and ends with conform.
type annex struct {
	node   *embedded.Node
	worlds map[string]*world // what its users see, by name; "" needs no name
}

// annexed starts a node once. settings are added to those that every node of ours has.
func (w *world) annexed(name string, settings map[string][]string) *annex {
	if a := w.annexes[name]; a != nil {
		return a
	}
	dir := filepath.Join(w.dir, name)
	roots := filepath.Join(dir, "models")
	if err := os.MkdirAll(roots, 0o700); err != nil {
		fail("%v", err)
	}
	all := map[string][]string{"node": {name}, "model_roots": {roots}, "pressure_dwell": {"200ms"}, "pressure_dwell_critical": {"400ms"}, "log_level": {"debug"},
		"devices": {"sim:gpu-0=256MiB"}}
	maps.Copy(all, settings)
	n, err := embedded.Start(w.ctx, w.program, embedded.Spec{Dir: dir, Settings: all})
	if err != nil {
		fail("the node %s: %v", name, err)
	}
	a := &annex{node: n, worlds: map[string]*world{}}
	w.annexes[name] = a
	return a
}

// as is what a user of an annex sees; it is connected once. Whoever may allocate has a session
// and a second process too.
func (w *world) as(a *annex, user string, options ...nats.Option) *world {
	if x := a.worlds[user]; x != nil {
		return x
	}
	x := &world{ctx: w.ctx, program: w.program, own: a.node, shapes: w.shapes, node: a.node.Node, user: user, denied: make(chan error, 64)}
	options = append(options, nats.Name("bus-test conform "+user), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case x.denied <- err:
		default:
		}
	}))
	var err error
	if x.nc, err = nats.Connect(a.node.URL, options...); err != nil {
		fail("connecting as %q: %v", user, err)
	}
	a.worlds[user] = x
	if x.seen, err = collect(x.nc); err != nil {
		fail("%v", err)
	}
	x.dir = a.node.Dir()
	x.model, x.modelPath = weightstest.Sized(modelBytes, 7), filepath.Join(x.dir, "models", "conform.safetensors")
	if err := x.model.WriteSafetensors(x.modelPath); err != nil {
		fail("%v", err)
	}
	if err := x.look(); err != nil {
		fail("as %q: %v", user, err)
	}
	return x
}

// worlds are this one, and what users of the annexes see.
func (w *world) worlds() []*world {
	out := []*world{w}
	for _, name := range slices.Sorted(maps.Keys(w.annexes)) {
		for _, user := range slices.Sorted(maps.Keys(w.annexes[name].worlds)) {
			out = append(out, w.annexes[name].worlds[user])
		}
	}
	return out
}

// closeAnnexes ends the nodes, those that use another's server first.
func (w *world) closeAnnexes() error {
	var errs []error
	for _, x := range w.worlds()[1:] {
		errs = append(errs, x.leave())
	}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(w.annexes))) {
		if err := w.annexes[name].node.Stop(); err != nil {
			errs = append(errs, fmt.Errorf("the node %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// slow is a node with a device that is slow enough to be caught at work.
func (c caller) slow() caller {
	return caller{c.as(c.annexed("slow", map[string][]string{"devices": {
		fmt.Sprintf("sim:gpu-0=%dMiB", 128), fmt.Sprintf("sim:slow-0=%dMiB,bandwidth=%dMiB", 64, 8)}}), ""), c.f}
}

// mayAllocate reports whether a user of an annex may: a reader may not.
func (w *world) mayAllocate() bool {
	return w.user == "" || roleOf(w.user) != schemas.RoleReader
}
