//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// Config describes one GPU. The zero value of every field but ID is sound.
type Config struct {
	// ID is the device's name on the wire. Required.
	ID string
	// Ordinal is which GPU, as Runtime.GPUs numbers them.
	Ordinal int
	// PhysicalBytes is what our segments may come to in all; 0, or more than there is, means
	// what the GPU has. Use of others counts only where it exceeds what this leaves over.
	PhysicalBytes int64
	// CopyThreads is how many threads move bytes, each with a stream and two pinned chunks; 0
	// means three for four processors of the machine (GOMAXPROCS may follow the load), but 4 to
	// 12: with 16 processors 8, 12, 14 and 16 threads loaded from the page cache at 45, 52.6,
	// 52.3 and 52.1 GB/s (an H100, 2026-11-22).
	CopyThreads int
	// ChunkBytes is the size of a pinned chunk; 0 means 4 MiB. CopyThreads × 2 × ChunkBytes of
	// main memory are pinned at most. A cancelled fill stops within CopyThreads chunks.
	ChunkBytes int
	// InPlaceBytes is how much of a file in the page cache one copy thread maps, registers and
	// copies from at a time, while the others read; negative means that none does. 0 means 32 MiB
	// on a machine of one to three processors, and none on larger ones: see inplace.go.
	InPlaceBytes int64
	// RegisterBytes is how much main memory is kept registered with the GPU at most, models that
	// were or will be copied from there; 0 means half of the machine's, negative none.
	RegisterBytes int64
	// Others are the ordinals of the node's GPUs by the ids of their devices; nil means all that
	// there are, as gpu-0, gpu-1 and so on. Those that reach this one's memory are Info.Peers.
	Others map[string]int
	// UnmapTimeout is how long Destroy waits for the driver to give memory back before it
	// reports that it hangs; 0 means 10 s.
	UnmapTimeout time.Duration
	// Root is put before /proc where other processes are looked at; "" means "/".
	Root string
	// Clock is what timeouts run on; nil means the real one.
	Clock clock.Clock
}

// check fills in defaults.
func (c *Config) check() error {
	switch {
	case c.ID == "":
		return errors.New("cuda: the device needs an ID")
	case c.Ordinal < 0 || c.PhysicalBytes < 0 || c.CopyThreads < 0 || c.ChunkBytes < 0 || c.UnmapTimeout < 0:
		return fmt.Errorf("cuda: %s: no number of the configuration can be negative", c.ID)
	case c.CopyThreads > 64:
		return fmt.Errorf("cuda: %s: %d copy threads; 64 is the most", c.ID, c.CopyThreads)
	case c.ChunkBytes%4096 != 0 || c.ChunkBytes > 16<<20:
		return fmt.Errorf("cuda: %s: chunks of %d bytes; a multiple of 4 KiB up to 16 MiB is needed", c.ID, c.ChunkBytes)
	}
	if c.CopyThreads == 0 {
		c.CopyThreads = min(12, max(4, runtime.NumCPU()*3/4))
	}
	if c.ChunkBytes == 0 {
		c.ChunkBytes = 4 << 20
	}
	if c.InPlaceBytes == 0 && runtime.NumCPU() < enoughToRead {
		c.InPlaceBytes = 32 << 20
	}
	switch {
	case c.RegisterBytes == 0:
		c.RegisterBytes = halfOfMemory()
	case c.RegisterBytes < 0:
		c.RegisterBytes = 0
	}
	if c.UnmapTimeout == 0 {
		c.UnmapTimeout = 10 * time.Second
	}
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	return nil
}

// Driver is one GPU; it implements device.Driver and device.ProcessUser. Make it with
// Runtime.New.
type Driver struct {
	c    Config
	cu   *api.CUDA
	dev  api.Device
	ctx  api.Context
	info device.Info
	// totalBytes is what the GPU has, whatever Config.PhysicalBytes says.
	totalBytes int64
	// pinsFiles is true where memory can be registered that the process may only read.
	pinsFiles bool

	control *control
	zeroes  api.Stream // under control
	making  turnstile  // what is being made
	lanes   *lanes
	warm    *warm
	moving  moving
	anchor  anchor
	scrub   scrub
	up      way           // from main memory
	down    way           // to it
	direct  chan struct{} // full: a lane copies from the page cache in place
	watch   *watch
	state   state

	// open is held shared by every call and alone by Close.
	open   sync.RWMutex
	closed bool

	mu     sync.Mutex
	live   map[*Segment]struct{} // whose bytes the driver has not shown back
	bytes  int64                 // sum over live, and promised
	places descriptions
	debts  debts
	// overhead is what this process was charged with before it had a segment.
	overhead int64
}

var (
	_ device.Driver      = (*Driver)(nil)
	_ device.ProcessUser = (*Driver)(nil)
	_ device.Bridge      = (*Driver)(nil)
	_ device.Batcher     = (*Driver)(nil)
	_ device.Stager      = (*Driver)(nil)
)

// New takes a GPU into use: it makes the process's context there, which takes about 0.2 s and
// some hundred megabytes of the GPU, seen as use outside of our segments.
func (r *Runtime) New(c Config) (*Driver, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	dev, gpu, err := r.look(c.Ordinal)
	if err != nil {
		return nil, err
	}
	if gpu.Lacks != nil {
		return nil, fmt.Errorf("cuda: %s: %w", c.ID, gpu.Lacks)
	}
	granularity, err := r.cu.Granularity(dev)
	if err != nil {
		return nil, fmt.Errorf("cuda: %s: %w", c.ID, err)
	}
	d := &Driver{c: c, cu: r.cu, dev: dev, totalBytes: gpu.Bytes, live: map[*Segment]struct{}{}, direct: make(chan struct{}, 1), up: newWay(), down: newWay()}
	physical := gpu.Bytes
	if c.PhysicalBytes > 0 {
		physical = min(physical, c.PhysicalBytes)
	}
	d.info = device.Info{
		ID:               c.ID,
		Kind:             "cuda",
		HandleKind:       "cuda_vmm",
		Type:             device.VRAM,
		Name:             gpu.Name,
		Driver:           r.version,
		UUID:             gpu.UUID,
		Simulated:        r.cu.Fake,
		PhysicalBytes:    physical / granularity * granularity,
		GranularityBytes: granularity,
		NUMANode:         gpu.NUMANode,
	}
	if d.info.Peers, err = r.peers(dev, &c); err != nil {
		return nil, fmt.Errorf("cuda: %s: %w", c.ID, err)
	}
	if d.ctx, err = r.cu.Retain(dev); err != nil {
		return nil, fmt.Errorf("cuda: %s: no context: %w", c.ID, err)
	}
	d.control = &control{cu: d.cu, ctx: d.ctx}
	err = d.control.do(func() (err error) { d.zeroes, err = d.cu.NewStream(); return err })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cuda: %s: %w", c.ID, err), r.cu.GiveBack(dev))
	}
	if has, err := d.cu.Attribute(d.dev, api.HasReadOnlyPins); err == nil {
		d.pinsFiles = has != 0
	}
	d.anchor = d.cast()
	d.lanes, d.warm = newLanes(d), newWarm(d)
	d.watch = newWatch(r, gpu.UUID, c.Clock)
	if list, err := d.processes(); err == nil {
		d.overhead = charges(list)[os.Getpid()]
	}
	return d, nil
}

// Info implements device.Driver.
func (d *Driver) Info() device.Info { return d.info }

// enter is what every call begins with; leave ends it.
func (d *Driver) enter() error {
	d.open.RLock()
	if d.closed {
		d.open.RUnlock()
		return device.ErrClosed
	}
	if err := d.lost(); err != nil {
		d.open.RUnlock()
		return err
	}
	return nil
}

func (d *Driver) leave() { d.open.RUnlock() }

// begin is enter for a call on a segment; the function that it returns ends it.
func (d *Driver) begin(what string, ds device.Segment) (*Segment, func(), error) {
	s, err := d.own(ds)
	if err == nil {
		err = d.enter()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := d.complete(s); err != nil {
		d.leave()
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	s.use.RLock()
	if err := s.usable(); err != nil {
		s.use.RUnlock()
		d.leave()
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	return s, func() { s.use.RUnlock(); d.leave() }, nil
}

// own finds our segment behind the interface.
func (d *Driver) own(ds device.Segment) (*Segment, error) {
	s, ok := ds.(*Segment)
	if !ok || s == nil || s.d != d {
		return nil, device.ErrForeign
	}
	return s, nil
}

// Close implements device.Driver. It waits for the calls under way, and for unmaps that hang
// no longer than Config.UnmapTimeout.
func (d *Driver) Close() error {
	d.open.Lock()
	was := d.closed
	d.closed = true
	d.open.Unlock()
	if was {
		return nil
	}
	var list []*Segment
	d.mu.Lock()
	for s := range d.live {
		list = append(list, s)
	}
	d.mu.Unlock()
	errs := make([]error, len(list))
	var group sync.WaitGroup
	for i, s := range list {
		group.Go(func() { errs[i] = d.destroy(s, false) })
	}
	group.Wait()
	err := errors.Join(errs...)
	d.scrub.close()
	d.warm.close()
	err = errors.Join(err, d.lanes.close())
	closed := d.control.do(func() error { return errors.Join(d.weigh(), d.cu.CloseStream(d.zeroes)) })
	if d.lost() == nil {
		err = errors.Join(err, closed)
	}
	d.watch.close()
	if d.debts.inDriver() {
		return err // a thread is still in the driver: the context goes with the process
	}
	if giveBack := d.cu.GiveBack(d.dev); giveBack != nil && d.lost() == nil {
		err = errors.Join(err, fmt.Errorf("%s: %w", d.c.ID, giveBack))
	}
	return err
}
