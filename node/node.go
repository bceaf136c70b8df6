package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/device/stall"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/health"
	"github.com/isobar-project/isobar/metrics"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/telemetry"
	"github.com/isobar-project/isobar/tracing"
	"github.com/isobar-project/isobar/vault"
	"github.com/isobar-project/isobar/weights"
)

// Hooks is what tests replace. The zero value is the machine.
type Hooks struct {
	Clock clock.Clock
	// Drivers are used instead of those that Config.Devices names.
	Drivers []device.Driver
	// LoadGPUs opens the GPU driver by its two libraries; nil is what the program was built with.
	LoadGPUs func(cudaLibrary, nvmlLibrary string) (device.Runtime, error)
	// Tenants serves more than the default tenant, each under its own subjects; see
	// bus.ServiceConfig.
	Tenants map[string]string
	// Crash is called at named points: vault.put.before and after, ledger.store after every
	// store to the ledger, model.commit.before and after, reply.before and after.
	Crash func(point string)
	// Exit ends the process after a defect in an actor.
	Exit func(code int)
}

// Info describes a running node.
type Info struct {
	Node, BootID, URL, DataSocket, VaultSocket string
	// HTTP is where metrics and probes are, "" if nowhere.
	HTTP    string
	Devices []schemas.Device
	// Bytes is how much of a device the node may use, by its id.
	Bytes map[string]int64
	// Restored says what a take-over found; its Segments are 0 where there was nothing.
	Restored schemas.Restored
	// Warnings are those that were in force when it began to serve.
	Warnings []schemas.HealthWarning
	// StartMs is how long it took from Open to serving.
	StartMs float64
}

// Node is a running node. Its methods may be called from any goroutine.
type Node struct {
	cfg     Config
	log     *slog.Logger
	clock   clock.Clock
	keeper  *keeper
	ledgers *ledgers
	watcher *fdwire.Watcher
	gpus    *gpuBank // nil where none are wanted
	exit    func(code int)
	bus     *bus.Bus
	house   *actors.House
	data    *dataplane.Server
	// commands has the outcomes that are still to be logged.
	commands *commandLog
	figures  *metrics.Node
	http     *telemetry.Server // nil where it is off or could not be had
	info     Info

	ctx    context.Context // of the node's life, for records
	board  *health.Board
	outlet atomic.Pointer[bus.Bus] // bus, for who may run before it stands
	// lostEvents is looked at by heartbeats, one at a time.
	lostEvents, lostSpans drops
	traces                *tracing.Exporter // nil where none are made

	reach   reach
	stop    sync.Once
	stays   actors.Stays
	stopped error
}

// Open starts a node. Its errors say what to do about them.
func Open(ctx context.Context, cfg Config, w Hooks) (_ *Node, err error) {
	if w.Clock == nil {
		w.Clock = clock.Real()
	}
	n := &Node{cfg: cfg, log: cfg.Log, clock: w.Clock}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.commands = &commandLog{log: n.log, clock: w.Clock}
	n.ctx = context.WithoutCancel(ctx)
	n.board = health.NewBoard(w.Clock, n.warned)
	begun := w.Clock.Now()
	defer func() {
		if err != nil {
			n.abandon()
		}
	}()
	if n.exit = w.Exit; n.exit == nil {
		n.exit = os.Exit
	}
	if w.LoadGPUs == nil {
		w.LoadGPUs = loadGPUs
	}
	if w.Drivers == nil {
		n.gpus = findGPUs(&n.cfg, w.LoadGPUs, w.Clock)
	}
	if err := makeDir(cfg.RuntimeDir, n.othersComeIn()); err != nil {
		return nil, err
	}
	found, err := n.takeVault(ctx, w)
	if err != nil {
		return nil, err
	}
	if n.watcher, err = fdwire.NewWatcher(); err != nil {
		return nil, err
	}
	boot := uuid.NewString()
	n.info = Info{Node: cfg.Node, BootID: boot, DataSocket: cfg.DataSocket(), VaultSocket: cfg.VaultSocket()}
	if err := n.openTraces(); err != nil {
		return nil, err
	}
	n.newFigures(n.deviceIDs(w.Drivers))
	if err := n.openBus(boot, w); err != nil {
		return nil, err
	}
	if err := n.openHouse(boot, found, w); err != nil {
		return nil, err
	}
	n.data, err = dataplane.Listen(dataplane.Config{SocketPath: cfg.DataSocket(), Desk: n.house.DataDesk(n.bus.URL), AllowUIDs: n.allowed(), Clock: w.Clock, Log: n.log})
	if err != nil {
		return nil, fmt.Errorf("the data socket %s: %w", cfg.DataSocket(), err)
	}
	if err := n.bus.Serve(n.house); err != nil {
		return nil, err
	}
	n.serveHTTP()
	n.info.URL, n.info.Devices, n.info.Restored, n.info.Warnings = n.bus.URL(), n.house.Devices(), n.house.Restored(), n.board.List()
	n.info.StartMs = float64(w.Clock.Now().Sub(begun)) / 1e6
	n.announce()
	debug.FreeOSMemory() // what the start needed is not needed again
	return n, nil
}

// announce says that the node is there, and what it took over.
func (n *Node) announce() {
	subject := schemas.NodeSubject(n.cfg.Node)
	n.bus.Publisher().Publish(schemas.Event{Event: schemas.EventStarted, Subject: subject,
		Data: &schemas.NodeEvent{Version: n.cfg.Version, PID: os.Getpid(), Devices: n.info.Devices}})
	if r := n.info.Restored; r.Segments > 0 || r.Sessions > 0 || len(r.LostGrants) > 0 {
		n.bus.Publisher().Publish(schemas.Event{Event: schemas.EventRestored, Subject: subject, Data: &schemas.NodeEvent{Restored: &r}})
		n.log.Info("taken over", "grants", r.Grants, "bytes", r.GrantedBytes, "models", r.Models, "segments", r.Segments, "sessions", r.Sessions, "lost", len(r.LostGrants))
	}
	n.log.Info("started", "node", n.cfg.Node, "nats", n.info.URL, "data_socket", n.info.DataSocket, "ms", n.info.StartMs)
}

// deviceIDs are the ids of the devices that will be opened.
func (n *Node) deviceIDs(drivers []device.Driver) []string {
	var ids []string
	for _, d := range drivers {
		ids = append(ids, d.Info().ID)
	}
	if drivers == nil {
		for _, s := range n.cfg.Devices {
			if s.Kind != DeviceCUDA {
				ids = append(ids, s.ID)
			}
		}
		for _, s := range n.gpus.devices() {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// makeDir makes a private folder, or one through which others get to the data socket, whose
// name they must know; the socket itself asks who they are.
func makeDir(path string, others bool) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("the folder %s cannot be made: %w; choose another with --runtime-dir", path, err)
	}
	if !others {
		return nil
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o011 != 0o011 {
		err = os.Chmod(path, info.Mode().Perm()|0o011)
	}
	if err != nil {
		return fmt.Errorf("other users cannot be let through %s to the data socket: %w; chmod a+x it", path, err)
	}
	return nil
}

// othersComeIn reports whether users beside the node's own and root may use the data socket.
func (n *Node) othersComeIn() bool {
	return slices.ContainsFunc(n.allowed(), func(uid uint32) bool { return uid != 0 && uid != uint32(os.Getuid()) })
}

// allowed are the users of the data socket; nil lets the socket choose its default.
func (n *Node) allowed() []uint32 {
	uids := append([]uint32(nil), n.cfg.AllowUIDs...)
	for _, t := range n.cfg.Tenants {
		uids = append(uids, t.UIDs...)
	}
	if len(uids) == 0 {
		return nil
	}
	return append([]uint32{0, uint32(os.Getuid())}, uids...)
}

// takeVault takes the vault, starting one if there is none, and returns its segments.
func (n *Node) takeVault(ctx context.Context, w Hooks) (map[uint64]*os.File, error) {
	connect := func(ctx context.Context, spawn bool) (vault.Keeper, []vault.Entry, error) {
		c := vault.ClientConfig{SocketPath: n.cfg.VaultSocket(), TakeOver: n.cfg.TakeOver, Clock: w.Clock, Crash: w.Crash}
		if spawn && len(n.cfg.VaultCommand) > 0 {
			c.Spawn = func() error {
				return vault.Spawn(vault.SpawnConfig{SocketPath: n.cfg.VaultSocket(), Command: n.cfg.VaultCommand, LogPath: n.cfg.VaultLog()})
			}
		}
		return vault.Connect(ctx, c)
	}
	if n.cfg.VaultOff {
		connect = func(context.Context, bool) (vault.Keeper, []vault.Entry, error) { return vault.Off(), nil, nil }
	}
	k, entries, err := openKeeper(ctx, keeperConfig{connect: connect, apart: apart, health: n.vaultHealth, clock: w.Clock, log: n.log})
	if err != nil {
		return nil, err
	}
	n.keeper = k
	segments, regions := inherited(entries)
	n.ledgers = newLedgers(k, regions)
	return segments, nil
}

func (n *Node) openBus(boot string, w Hooks) error {
	tenants, operators := n.cfg.prefixes()
	if w.Tenants != nil {
		tenants = w.Tenants
	}
	c := bus.Config{Node: n.cfg.Node, Version: n.cfg.Version, BootID: boot, Tenants: tenants, Operators: operators, History: n.cfg.History(),
		Heartbeat: n.beat, Observe: n.answered, Left: n.figures.EventLeft, Clock: w.Clock, Log: n.log}
	c.OnHealth = n.busHealth
	if n.traces != nil {
		c.Trace = trace
	}
	c.OnReach = n.reach.set
	if n.cfg.NATSURL != "" {
		c.Conn = conn.Config{URL: n.cfg.NATSURL, CredentialsFile: n.cfg.NATSCredentials, NKeyFile: n.cfg.NATSNKey, Username: n.cfg.NATSUsername, Password: n.cfg.NATSPassword}
		t, err := n.cfg.ClientTLS()
		if err != nil {
			return err
		}
		c.Conn.TLS = t
	} else {
		c.Server = &bus.ServerConfig{Listen: n.cfg.Listen, StoreDir: n.cfg.JetStreamDir(), StoreBytes: n.cfg.JetStreamBytes, Name: n.cfg.Node,
			Username: n.cfg.NATSUsername, Password: n.cfg.NATSPassword, ConfigFile: n.cfg.NATSServerConfig,
			Accounts: n.cfg.Accounts(), TLS: n.cfg.serverTLS(), Log: n.log}
	}
	b, err := bus.Open(c)
	if err != nil {
		return err
	}
	n.bus = b
	n.outlet.Store(b)
	return nil
}

// beat may be asked before the house stands.
func (n *Node) beat() schemas.Heartbeat {
	n.checkEvents()
	n.checkSpans()
	if n.house == nil {
		return schemas.Heartbeat{}
	}
	return n.house.Beat()
}

func (n *Node) openHouse(boot string, found map[uint64]*os.File, w Hooks) error {
	roots, err := weights.NewRoots(n.cfg.ModelRoots...)
	if err != nil {
		return err
	}
	c := actors.Config{
		Node: n.cfg.Node, BootID: boot, Version: n.cfg.Version, DataSocket: n.cfg.DataSocket(), Clock: w.Clock, Log: n.log,
		Publisher: &metrics.Tap{Node: n.figures, Next: n.bus.Publisher()}, Keeper: n.keeper, KeeperPID: n.keeper.pid, Memory: n.ledgers.memory, Inherited: found, Roots: roots,
		DemoteOff: n.cfg.DemoteOff, GuardOff: n.cfg.GuardOff, LoadWorkers: n.cfg.LoadWorkers, Loads: n.cfg.Loads, Blocking: n.cfg.Blocking, Watch: n.watcher.Watch, Find: findProcess, UID: uint32(os.Getuid()),
		ResumeGrace: n.cfg.ResumeGrace, KeepAnswers: n.cfg.KeepAnswers, MaxAnswers: n.cfg.MaxAnswers, MaxSessions: n.cfg.MaxSessions,
		Overdue: n.cfg.RevokeOverdue, EndGrace: n.cfg.RevokeEndGrace, TenantOf: n.cfg.tenantOf(), Tenants: n.cfg.tenantNames(), UIDOf: n.cfg.uidOf(), UndoAfter: n.cfg.UndoAfter, Crash: w.Crash, Exit: w.Exit,
		Lost: func(id string, why error) { go n.deviceLost(id, why) }, Observer: &observer{n}, Warnings: n.board.List,
	}
	devices, err := n.openDevices(w)
	if err != nil {
		return err
	}
	var ids []string
	n.info.Bytes = map[string]int64{}
	for _, d := range devices {
		spec := d.spec
		n.info.Bytes[spec.ID] = spec.sized(d.driver.Info()).Bytes
		ids = append(ids, spec.ID)
		c.Devices = append(c.Devices, actors.DeviceConfig{Driver: d.driver, Limit: spec.Bytes, Reserve: n.reserveOf(d.driver.Info()), PoolBytes: n.cfg.PoolBytesOf(spec.sized(d.driver.Info())),
			Quotas: n.cfg.quotasOf(spec.ID),
			Warm:   n.cfg.warmOf(d.driver.Info()), PoolHalfLife: n.cfg.PoolHalfLife, Pressure: n.cfg.Pressure(), Sampling: n.cfg.Sampling(d.driver.Info()), CopyWorkers: n.cfg.CopyWorkers,
			Signals: n.signals(d.driver.Info(), w.Clock), ReliefOff: n.cfg.ReliefOff})
	}
	c.LostDevices = n.gpus.lost()
	if c.Absent, err = n.ledgers.absent(ids, n.cfg.ForgetDevices); err == nil {
		n.house, err = actors.Open(c)
	}
	if err != nil {
		for _, d := range devices {
			d.driver.Close()
		}
		return err
	}
	n.reportGPUs()
	if err := n.settleAbsent(); err != nil {
		return err
	}
	n.reach.tell(n.house)
	return nil
}

// signals is how main memory hears what the kernel says beside the figures; nil for other
// devices, of which it says nothing.
func (n *Node) signals(i device.Info, c clock.Clock) func(func(device.Signal)) (func(), error) {
	if i.Type != device.RAM || n.cfg.SignalsOff {
		return nil
	}
	return func(report func(device.Signal)) (func(), error) {
		reader, err := hostmem.NewReader(hostmem.Config{})
		if err != nil {
			return nil, err
		}
		groups, err := reader.Groups()
		if err != nil {
			return nil, err
		}
		w, err := stall.Open(stall.Config{Groups: groups, Clock: c, Report: report})
		if err != nil {
			return nil, err
		}
		n.log.Info("the kernel's signals of pressure", "device", i.ID, "sources", w.Sources())
		return func() { _ = w.Close() }, nil // it only reads
	}
}

// findProcess opens a pidfd of a process that is known by pid and start time.
func findProcess(pid int, start uint64) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", pid, os.ErrProcessDone)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("pidfd %d", pid))
	// Read after the pidfd is held: it is the start of the process that the pidfd means.
	at, err := fdwire.StartTime(pid)
	if err != nil || at != start || fdwire.Exited(f) {
		f.Close()
		return nil, fmt.Errorf("pid %d: %w", pid, os.ErrProcessDone)
	}
	return f, nil
}

// Info describes the node.
func (n *Node) Info() Info { return n.info }

// Stop drains and closes the node: no new commands; what has no living owner and is not
// persistent is released (with Ephemeral: everything); the rest stays in the vault for the
// next node. It returns what stays. Stopping again waits for the first stop, and answers the same.
func (n *Node) Stop(ctx context.Context) (actors.Stays, error) {
	n.stop.Do(func() { n.stays, n.stopped = n.drain(ctx) })
	return n.stays, n.stopped
}

func (n *Node) drain(ctx context.Context) (actors.Stays, error) {
	n.bus.Publisher().Publish(schemas.Event{Event: schemas.EventDraining, Subject: schemas.NodeSubject(n.cfg.Node), Data: &schemas.NodeEvent{Reason: "a clean stop"}})
	stays, err := n.house.Drain(ctx, n.cfg.Ephemeral)
	n.bus.StopTaking()
	n.bus.Publisher().Publish(schemas.Event{Event: schemas.EventStopped, Subject: schemas.NodeSubject(n.cfg.Node),
		Data: &schemas.NodeEvent{Reason: "a clean stop", Restored: &schemas.Restored{Grants: stays.Grants, GrantedBytes: stays.Bytes, Models: stays.Models}}})
	return stays, errors.Join(err, n.close(stays.Grants == 0 || n.cfg.Ephemeral))
}

func (n *Node) close(dropAll bool) error {
	var errs []error
	if n.http != nil {
		errs = append(errs, n.http.Close())
	}
	if n.data != nil {
		errs = append(errs, n.data.Close())
	}
	if n.house != nil {
		ctx, cancel := context.WithTimeout(context.Background(), n.cfg.DrainTimeout)
		errs = append(errs, n.house.Close(ctx))
		cancel()
	}
	if n.bus != nil {
		n.bus.Close(time.Second)
	}
	n.commands.flush()
	if n.traces != nil {
		n.traces.Close()
	}
	if n.watcher != nil {
		n.watcher.Close()
	}
	n.gpus.close()
	if n.keeper != nil {
		if dropAll {
			errs = append(errs, n.keeper.Drop(n.ledgers.ids()...))
		}
		n.ledgers.close()
		errs = append(errs, n.keeper.close())
	}
	return errors.Join(errs...)
}

// abandon undoes a start that failed; what the vault held stays there.
func (n *Node) abandon() {
	if err := n.close(false); err != nil && !errors.Is(err, fs.ErrClosed) {
		n.log.Warn("after a failed start", "error", err)
	}
}

// Run is the life of a node process: it serves until ctx ends, then stops cleanly. ready
// is told once when commands are taken.
func Run(ctx context.Context, cfg Config, ready func(Info)) error {
	Tune(&cfg)
	n, err := Open(ctx, cfg, Hooks{})
	if err != nil {
		return err
	}
	if ready != nil {
		ready(n.Info())
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.Background(), cfg.DrainTimeout)
	defer cancel()
	stays, err := n.Stop(stop)
	if stays.Grants > 0 && !cfg.Ephemeral {
		n.log.Info("stopped; what is held stays for the next node", "grants", stays.Grants, "models", stays.Models, "bytes", stays.Bytes,
			"drop", "start the node again with --ephemeral and stop it, or end the vault")
	} else {
		n.log.Info("stopped; nothing stays")
	}
	return err
}
