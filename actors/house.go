package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/proctree"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
	"github.com/isobar-project/isobar/weights"
)

// Keeper holds descriptors while no node runs; vault.Client and vault.Off are ones.
type Keeper interface {
	Put(entries ...vault.Entry) error
	Drop(ids ...uint64) error
}

// Config is what the house needs of the world. Fields without a default are required.
type Config struct {
	Node, BootID, Version string
	// DataSocket is the path that handles name.
	DataSocket string
	Clock      clock.Clock // nil: the real one
	Log        *slog.Logger
	Publisher  Publisher
	Keeper     Keeper
	// KeeperPID is the vault's process, left out when holders of memory are looked for; 0:
	// none. nil: there is never one.
	KeeperPID func() int
	// Memory gives the region of the ledger that belongs to one actor, and whether a
	// predecessor has written it.
	Memory func(actor string) (mem []byte, inherited bool, err error)
	// Inherited are the segments found in the vault, by vault id. What no record names is
	// dropped.
	Inherited map[uint64]*os.File
	Devices   []DeviceConfig
	// Absent are the devices that a predecessor had and that are not among Devices.
	Absent []AbsentDevice
	// LostDevices are those that are configured and cannot be had.
	LostDevices []LostDevice
	Roots       *weights.Roots
	// Policy values models; nil is the default one.
	Policy eviction.Policy
	// DemoteOff has models that go from a device to make room dropped, even where main memory
	// has room for them.
	DemoteOff bool
	// GuardOff has what was just loaded evicted as soon as anything else lacks the room.
	GuardOff bool
	// LoadWorkers read one model at once, Loads models at a time are read.
	LoadWorkers, Loads int
	// Observer is told of grants, ends of commands and warnings; nil: nobody wants to know.
	Observer Observer
	// Warnings are those in force on the node, the worst first, for get_status. It is called
	// on an actor's goroutine and must not block; nil: none are shown.
	Warnings func() []schemas.HealthWarning
	// Blocking is told when so many goroutines begin (more than 0) or end (less) to sit in long
	// system calls, and with 0 that one is about to sit in a short one, from any goroutine;
	// nil: nobody wants to know.
	Blocking func(n int)
	// Watch calls gone once when the process of a pidfd has exited.
	Watch func(pidfd *os.File, gone func()) (stop func(), err error)
	// Find opens a pidfd of a process known by pid and start time; os.ErrProcessDone if it has exited.
	Find func(pid int, start uint64) (*os.File, error)
	// Process opens a running process: its pidfd, and what it is called for ever; an error
	// that wraps os.ErrProcessDone where there is none. Processes looks at all of
	// them, from any goroutine. nil is this machine's, for both.
	Process   func(pid int) (*os.File, proctree.Process, error)
	Processes func() (proctree.Table, error)
	// Random fills b with unguessable bytes; nil is the machine's.
	Random func(b []byte)
	// TenantOf is the tenant of a user of the data socket: of no other he maps memory, and no
	// other loads the files that he offers. ok is false for a user who has none; then, and
	// for all where it is nil, the tenant is that of the claim.
	TenantOf func(uid uint32) (tenant string, ok bool)
	// Tenants are all that may have a quota; none: any name is one.
	Tenants []string
	// UIDOf is the user of a tenant's commands that name no session; ok is false where it
	// has none, or several: then it is the node's. nil: all are the node's.
	UIDOf func(tenant string) (uid uint32, ok bool)
	// UID is the node's user: who maps a grant that no session owns.
	UID uint32
	// ResumeGrace is how long a session of a living process may stay away after a
	// take-over. KeepAnswers is how long outcomes are remembered, MaxAnswers how many.
	ResumeGrace, KeepAnswers time.Duration
	MaxAnswers, MaxSessions  int
	// Overdue is what follows where memory is held past the deadline of its revocation,
	// EndGrace how long a process that is told to end may take before it is killed. Signal
	// sends a signal to the process of a pidfd; nil is the kernel's own way.
	Overdue  ledger.Overdue
	EndGrace time.Duration
	Signal   func(pidfd *os.File, sig syscall.Signal) error
	// UndoAfter is how long a grant that was answered «queued» waits to be fetched or mapped.
	UndoAfter time.Duration
	// Crash is called at named points: ledger.store after every store to a region,
	// model.commit.before and after, reply.before and after, actor.begin before an actor is
	// told to begin. A test ends the process there, or lets others go first. nil does nothing.
	Crash func(point string)
	// Lost is told, once for each, that a device is lost to this process. It is called on the
	// device's goroutine and must not block; nil: nobody wants to know.
	Lost func(device string, why error)
	// Exit ends the process after a defect in a stateful actor; nil is os.Exit.
	Exit func(code int)
}

// DeviceConfig is one device of the house.
type DeviceConfig struct {
	Driver device.Driver
	// Limit is the set limit, 0 for none; Reserve is kept free of us.
	Limit     int64
	Reserve   int64
	PoolBytes int64
	Warm      []ledger.WarmClass
	// PoolHalfLife is in what time a resting device gives back half of what its pool has
	// beyond Warm; 0: the core's.
	PoolHalfLife time.Duration
	// Quotas hold for tenants that have none on record.
	Quotas   []ledger.QuotaChange
	Pressure pressure.Config
	Sampling pressure.Sampling
	// Signals listens to what the kernel says beside the figures, until stop is called; nil:
	// there is nothing to be heard. report may be called from any goroutine.
	Signals func(report func(device.Signal)) (stop func(), err error)
	// ReliefOff, for measurements, has pressure release nothing.
	ReliefOff bool
	// CopyWorkers make and clear segments at once.
	CopyWorkers int
}

// House is all actors of a node, wired. It is the Desk of the bus.
type House struct {
	cfg       Config
	log       *slog.Logger
	system    *seam.System
	devices   []*deviceActor
	byID      map[string]*deviceActor
	sessions  *sessionsActor
	pool      *poolActor
	monitor   *monitorActor
	transfer  *transferActor
	analytics *analyticsActor
	started   time.Time
	draining  atomic.Bool
	pulse     pulse
	dial      *clock.Dial
	// stored, where a test set Config.Crash, is called after every store to the ledger.
	stored func()
	// bearers are the sessions that restored grants speak of.
	bearers  map[ledger.SessionID]bool
	restored schemas.Restored
	absent   absentees
}

func (c *Config) defaults() {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Random == nil {
		c.Random = machineRandom
	}
	if c.Process == nil {
		c.Process = func(pid int) (*os.File, proctree.Process, error) { return proctree.Open("/proc", pid) }
	}
	if c.Processes == nil {
		c.Processes = func() (proctree.Table, error) { return proctree.Read("/proc") }
	}
	if c.Policy == nil {
		c.Policy, _ = eviction.New("") // the default policy always exists
	}
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.ResumeGrace, 30*time.Second)
	set(&c.KeepAnswers, 10*time.Minute)
	set(&c.UndoAfter, time.Minute)
	if c.MaxAnswers == 0 {
		c.MaxAnswers = 200_000
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = 4096
	}
	if c.Loads == 0 {
		c.Loads = 2
	}
	if c.Crash == nil {
		c.Crash = func(string) {}
	}
	if c.Observer == nil {
		c.Observer = nobody{}
	}
	if c.Warnings == nil {
		c.Warnings = func() []schemas.HealthWarning { return nil }
	}
	if c.Blocking == nil {
		c.Blocking = func(int) {}
	}
	if c.Exit == nil {
		c.Exit = os.Exit
	}
	if c.Lost == nil {
		c.Lost = func(string, error) {}
	}
	if c.Signal == nil {
		c.Signal = signalProcess
	}
	if c.KeeperPID == nil {
		c.KeeperPID = func() int { return 0 }
	}
}

// Open builds the house: it reads what a predecessor left, takes its segments over, and
// starts the actors. Nothing is served before it returns.
func Open(cfg Config) (*House, error) {
	crash := cfg.Crash
	cfg.defaults()
	h := &House{cfg: cfg, bearers: map[ledger.SessionID]bool{}, log: cfg.Log, byID: map[string]*deviceActor{}, started: cfg.Clock.Wall(), dial: clock.NewDial(cfg.Clock)}
	h.pulse.asked = map[string]chan struct{}{}
	h.system = seam.NewSystem(cfg.Log, seam.WithExit(cfg.Exit))
	if crash != nil {
		h.stored = func() { crash("ledger.store") }
	}
	begun := cfg.Clock.Now()
	h.monitor = newMonitor(h)
	h.transfer = newTransfer(h)
	if err := h.openAnalytics(); err != nil {
		return nil, err
	}
	models := map[uuid.UUID]string{}
	if err := h.openDevices(models); err != nil {
		return nil, err
	}
	if err := h.openAbsent(); err != nil {
		return nil, err
	}
	if err := h.openPool(models); err != nil {
		return nil, fmt.Errorf("pool: %w", err)
	}
	if err := h.openSessions(); err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	if err := h.dropUnknown(); err != nil {
		return nil, err
	}
	h.restored.DurationMs = millis(cfg.Clock.Now().Sub(begun))
	h.start()
	return h, nil
}

// openDevices opens all devices, beside each other: importing what a GPU has takes its time. One
// that turns out to be lost is left out like one that is not configured.
func (h *House) openDevices(models map[uuid.UUID]string) error {
	type result struct {
		d         *deviceActor
		mem       []byte
		inherited bool
		err       error
	}
	results := make([]result, len(h.cfg.Devices))
	for i, dc := range h.cfg.Devices {
		id := dc.Driver.Info().ID
		for _, other := range h.cfg.Devices[:i] {
			if o := other.Driver.Info().ID; tagOf(o) == tagOf(id) {
				return fmt.Errorf("devices %s and %s have the same short name: choose another id for one", o, id)
			}
		}
		r := &results[i]
		if r.mem, r.inherited, r.err = h.memory("device/" + id); r.err != nil {
			return fmt.Errorf("device %s: %w", id, r.err)
		}
	}
	var opening sync.WaitGroup
	for i, dc := range h.cfg.Devices {
		r := &results[i]
		opening.Go(func() { r.d, r.err = openDevice(h, dc, r.mem, r.inherited) })
	}
	opening.Wait()
	for i, r := range results {
		info := h.cfg.Devices[i].Driver.Info()
		if errors.Is(r.err, device.ErrLost) {
			h.log.Error("a device is lost, and what was granted on it is kept", "device", info.ID, "error", r.err)
			h.cfg.LostDevices = append(h.cfg.LostDevices, LostDevice{ID: info.ID, Type: schemas.DeviceType(info.Type.String()), Why: r.err.Error()})
			h.cfg.Absent = append(h.cfg.Absent, AbsentDevice{ID: info.ID, Memory: r.mem})
			continue
		}
		if r.err != nil {
			return fmt.Errorf("device %s: %w", info.ID, r.err)
		}
		r.d.settle(models)
		h.devices = append(h.devices, r.d)
		h.byID[r.d.id] = r.d
	}
	return nil
}

// memory gives an actor its region, and whether a predecessor has written it. One that a
// predecessor died on before it had finished Format is as good as new.
func (h *House) memory(actor string) (mem []byte, inherited bool, err error) {
	mem, inherited, err = h.cfg.Memory(actor)
	if err == nil && inherited && store.Unfinished(mem) {
		inherited = false
	}
	return mem, inherited, err
}

// format makes an actor's region of new memory.
func (h *House) format(mem []byte, actor string) (*store.Region, error) {
	region, err := store.Format(mem, actor)
	if err == nil && h.stored != nil {
		region.SetObserver(func(int) { h.stored() })
	}
	return region, err
}

// dropUnknown lets go of segments in the vault that no record names: they were put there
// by a predecessor that died before it granted anything from them. Those of absent devices
// have a record, and stay.
func (h *House) dropUnknown() error {
	var ids []uint64
	for id := range h.absent.files {
		delete(h.cfg.Inherited, id)
	}
	for id := range h.cfg.Inherited {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil
	}
	h.log.Info("segments that nobody was granted are given back", "segments", len(ids))
	err := h.cfg.Keeper.Drop(ids...)
	for _, f := range h.cfg.Inherited {
		f.Close()
	}
	h.cfg.Inherited = nil
	return err
}

// start spawns the actors, those that are told of things first.
func (h *House) start() {
	h.spawn("monitor", &h.monitor.inbox, true)
	h.spawn("transfer", &h.transfer.inbox, true)
	h.analytics.ref = h.system.Spawn(seam.Config{Name: "analytics"}, h.analytics) // restarts in place
	h.spawn("sessions", &h.sessions.inbox, true)
	h.spawn("pool", &h.pool.inbox, true)
	for _, d := range h.devices {
		d.optimizer = newOptimizer(h, d)
		h.spawn("optimizer/"+d.id, &d.optimizer.inbox, true)
		h.spawn("device/"+d.id, &d.inbox, true)
	}
	for _, d := range h.devices {
		d.listen()
	}
	// Everything can be told by now; what the take-over left to do begins. Who begins tells
	// others, who may hear of it before they begin themselves.
	h.begin(&h.sessions.inbox, h.sessions.begin)
	h.begin(&h.pool.inbox, h.pool.begin)
	for _, d := range h.devices {
		h.begin(&d.inbox, d.begin)
	}
	h.analytics.tell(seam.SystemLane, h.analytics.begin)
}

func (h *House) begin(i *inbox, f func()) {
	h.cfg.Crash("actor.begin")
	i.tell(seam.SystemLane, f)
}

// message is what actors are told: a call to be made on the actor's own goroutine. The
// methods that send them say what they mean; there is no second list of message types.
type message func()

// inbox is how an actor is told. Every actor embeds one.
type inbox struct{ ref *seam.Ref }

// Receive implements seam.Receiver.
func (i *inbox) Receive(msg any) { msg.(message)() }

// tell sends a call to the actor. Only Release, Grant and Query may be refused.
func (i *inbox) tell(l seam.Lane, f func()) error { return i.ref.Tell(l, message(f)) }

// offer is tell for a command. One that comes straight from a subscription is carried
// out on that goroutine if the actor is idle, which saves waking another.
func (i *inbox) offer(l seam.Lane, c *call, f func()) error {
	if c.outer {
		return i.ref.TellHere(l, message(f))
	}
	return i.ref.Tell(l, message(f))
}

func (h *House) spawn(name string, i *inbox, stateful bool) {
	i.ref = h.system.Spawn(seam.Config{Name: name, Stateful: stateful}, i)
	h.pulse.add(name, i)
}

// Restored says what a take-over found.
func (h *House) Restored() schemas.Restored { return h.restored }

// Devices lists the devices as the contract shows them.
func (h *House) Devices() []schemas.Device {
	out := make([]schemas.Device, len(h.devices))
	for i, d := range h.devices {
		out[i] = d.describe()
	}
	for _, l := range h.cfg.LostDevices {
		out = append(out, l.describe())
	}
	return out
}

// Beat is the data of a heartbeat. It may be called from any goroutine.
func (h *House) Beat() schemas.Heartbeat {
	b := schemas.Heartbeat{UptimeSeconds: h.cfg.Clock.Wall().Sub(h.started).Seconds(), Draining: h.draining.Load()}
	for _, d := range h.devices {
		beat := *d.beat.Load()
		beat.Health = d.state.Load().health
		b.Devices = append(b.Devices, beat)
	}
	return b
}

// Close ends the actors. Memory and records stay as they are: see Drain.
func (h *House) Close(ctx context.Context) error {
	for _, d := range h.devices {
		d.deafen()
		d.work.close()
	}
	h.transfer.close()
	err := h.system.Shutdown(ctx)
	letGo(h.sessions.offers.Close())
	h.absent.close()
	for _, d := range h.devices {
		d.driver.Close()
	}
	return err
}

func (h *House) now() ledger.Now {
	boot, wall := h.cfg.Clock.Both()
	return ledger.Now{Boot: boot, Wall: wall}
}

func (h *House) publish(e schemas.Event) { h.cfg.Publisher.Publish(e) }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
