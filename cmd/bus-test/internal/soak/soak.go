package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

const mib = 1 << 20

// deviceBytes is the size of each device of soak's own node: small, so that there is always
// somebody who waits.
const deviceBytes = 512 * mib

// Options say how long, on what, and how hard.
type Options struct {
	// For is how long the load goes on; counting at the end comes on top.
	For time.Duration
	// NATSURL is the server of a node that runs, on this machine; "" starts one.
	NATSURL string
	// VaultSocket is that node's vault's, to count its memory; "" leaves that out.
	VaultSocket string
	// Seed of the random choices.
	Seed uint64
	// KillEvery is the time between two kills of soak's own node; 0: none.
	KillEvery time.Duration
	// Program calls this program, for the children.
	Program []string
	// Progress is told what happens; nil: nobody is.
	Progress io.Writer
}

// soak is one run.
type soak struct {
	o       Options
	truth   *truth
	dir     string
	node    *embedded.Node // nil if it is not ours
	name    string         // of the node
	socket  string         // the data socket
	vault   string
	devices []string
	size    map[string]int64 // of devices, as configured
	models  []model
	tenants []*tenant
	// guest is a tenant with quotas, for one client alone; nil where there is none.
	guest *tenant
}

// tenant is one owner: its clients.
type tenant struct {
	name string
	tag  uint64 // in patterns
	bus  *client.Client
	data *data.Client
}

// Run soaks. The report is there also when something kept the soak from ending well.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	s := &soak{o: o, truth: newTruth(), size: map[string]int64{}}
	begun := time.Now()
	err := s.open(ctx)
	if err == nil {
		err = s.run(ctx)
	}
	if cerr := s.close(); cerr != nil {
		s.truth.violate("the end", "%v", cerr)
	}
	r := s.truth.report()
	r.Seed, r.Took = o.Seed, time.Since(begun)
	return r, err
}

func (s *soak) say(format string, args ...any) { fmt.Fprintf(s.o.Progress, format+"\n", args...) }

func (s *soak) open(ctx context.Context) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "bus-test"); err != nil {
		return err
	}
	url, names := s.o.NATSURL, []string{schemas.DefaultTenant}
	if url == "" {
		names = append(names, "blue", guestName)
		roots := filepath.Join(s.dir, "models")
		if s.models, err = writeModels(roots); err != nil {
			return err
		}
		s.node, err = embedded.Start(ctx, s.o.Program, embedded.Spec{
			Dir: s.dir, Tenants: map[string]string{schemas.DefaultTenant: "", "blue": "isobar.blue.", guestName: "isobar." + guestName + "."},
			Settings: map[string][]string{
				"devices":     {fmt.Sprintf("ram:ram-0=%dMiB", deviceBytes/mib), fmt.Sprintf("sim:gpu-0=%dMiB", deviceBytes/mib)},
				"model_roots": {roots}, "pressure_dwell": {"500ms"}, "pressure_dwell_critical": {"1s"}, "log_level": {"warn"},
			},
		})
		if err != nil {
			return err
		}
		url, s.vault = s.node.URL, s.node.VaultSocket
	} else {
		s.vault = s.o.VaultSocket
	}
	for i, name := range names {
		t := &tenant{name: name, tag: 0xA110C + uint64(i)}
		if t.bus, err = client.Connect(client.Options{URL: url, Tenant: name, Name: "bus-test " + name}); err != nil {
			return err
		}
		if name == guestName {
			s.guest = t
			continue
		}
		s.tenants = append(s.tenants, t)
	}
	return s.look(ctx)
}

// look finds the devices, and opens the sessions.
func (s *soak) look(ctx context.Context) error {
	var r schemas.GetUsageReply
	if err := s.tenants[0].bus.Call(ctx, schemas.ActionGetUsage, nil, &r); err != nil {
		return err
	}
	for _, d := range r.Devices {
		s.devices = append(s.devices, d.DeviceID)
		s.size[d.DeviceID] = d.MemoryInfo.TotalMemory
	}
	var got schemas.AllocateReply
	if err := s.tenants[0].bus.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: s.devices[0], SizeBytes: mib}, &got); err != nil {
		return err
	}
	s.socket, s.name = got.Handle.DataSocket, got.Handle.Node
	if err := s.tenants[0].bus.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: got.AllocationID}, nil); err != nil {
		return err
	}
	for _, t := range s.everybody() {
		var err error
		t.data, err = data.Dial(ctx, data.Config{SocketPath: s.socket, Name: "bus-test " + t.name, RetryTo: 50 * time.Millisecond, OnResume: s.resumed})
		if err != nil {
			return err
		}
	}
	return nil
}

// resumed hears how the sessions fared with a new node.
func (s *soak) resumed(r data.Resumption) {
	s.truth.count("session resumed", "")
	if r.Err != nil || !r.Resumed {
		s.truth.violate("resume", "a session was not resumed: %v", r.Err)
	}
	for _, id := range r.Lost {
		s.truth.lost(id)
	}
}

// run lets everybody go, then counts.
func (s *soak) run(ctx context.Context) error {
	load, stop := context.WithTimeout(ctx, s.o.For)
	defer stop()
	watch, unwatch := context.WithCancel(ctx)
	defer unwatch()
	w, err := s.newWatcher(watch)
	if err != nil {
		return err
	}
	var watching, all sync.WaitGroup
	watching.Go(func() { w.run(watch) })
	watching.Go(func() { s.observe(watch) })
	seed := s.o.Seed
	launch := func(n int, f func(context.Context, *rand.Rand, *tenant)) {
		for range n {
			seed++
			r, t := rand.New(rand.NewPCG(s.o.Seed, seed)), s.tenants[int(seed%uint64(len(s.tenants)))]
			all.Go(func() { f(load, r, t) })
		}
	}
	launch(8, s.hold)
	launch(2, s.lapse)
	launch(2, s.queue)
	launch(1, s.limits)
	launch(2, s.consumers)
	launch(4, s.carry)
	launch(1, s.tend)
	if len(s.models) > 0 {
		launch(3, s.readModels)
	}
	if s.guest != nil {
		launch(1, s.quotas)
	}
	if s.node != nil && s.o.KillEvery > 0 {
		launch(1, s.kill)
	}
	all.Wait()
	s.say("the load has ended: counting")
	s.restoreLimits(ctx)
	err = s.settle(ctx)
	unwatch()
	watching.Wait()
	w.close()
	return err
}

// everybody are all tenants.
func (s *soak) everybody() []*tenant {
	if s.guest == nil {
		return s.tenants
	}
	return append(slices.Clone(s.tenants), s.guest)
}

// kill ends the node like a crash and starts it again, or has another take over while it
// serves.
func (s *soak) kill(ctx context.Context, r *rand.Rand, _ *tenant) {
	for pause(ctx, s.o.KillEvery/2+time.Duration(r.Int64N(int64(s.o.KillEvery)))) {
		s.truth.disturb(true)
		what := "killed"
		var err error
		if r.IntN(4) == 0 {
			what = "taken over"
			err = s.node.TakeOver(context.WithoutCancel(ctx))
		} else {
			if err := s.node.Kill(); err != nil {
				s.truth.violate("kill", "%v", err)
			}
			// Not always at once: clients must find nobody there, too.
			pause(ctx, time.Duration(r.Int64N(int64(400*time.Millisecond))))
			err = s.node.Restart(context.WithoutCancel(ctx))
		}
		s.truth.disturb(false)
		if err != nil {
			s.truth.violate("restart", "%s: %v", what, err)
			return
		}
		s.truth.count("node "+what, "")
		s.truth.note("%s: the node was %s, and served again with %d grants", time.Now().UTC().Format("15:04:05.000"), what, s.node.Restored)
		s.truth.started(s.node.StartMs, s.node.Restored)
		s.say("the node was %s: another serves after %.0f ms with %d grants", what, s.node.StartMs, s.node.Restored)
	}
}

func (s *soak) close() error {
	var errs []error
	for _, t := range s.everybody() {
		if t.data != nil {
			errs = append(errs, t.data.Close())
		}
		t.bus.Close()
	}
	if s.node != nil {
		errs = append(errs, s.node.Stop())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w (its folder %s is kept)", err, s.dir)
	}
	if s.dir != "" {
		return os.RemoveAll(s.dir)
	}
	return nil
}

// pause lets time pass; false if the load ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
