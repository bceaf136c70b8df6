//go:build linux

package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/internal/memfd"
)

// granularityBytes is that of the GPUs that sim stands in for.
const granularityBytes = 2 << 20

// fillChunkBytes is how much passes the link between two looks at the context.
const fillChunkBytes = 4 << 20

// Config describes a simulated device.
type Config struct {
	// ID is the device's name on the wire. Required.
	ID string
	// Bytes is the declared size, a positive multiple of 2 MiB. Required.
	Bytes int64
	// BandwidthBytesPerSecond is the link's and the memory's; 0 is no limit.
	BandwidthBytesPerSecond int64
	// Latency is the least that a call takes; 0 is none.
	Latency time.Duration
	// Clock is what waiting is done on; nil means the real one.
	Clock clock.Clock
	// Faults is what goes wrong; nil means nothing, until Driver.Faults is used.
	Faults *Faults
	// Root is put before /proc where holders are looked for; "" means "/".
	Root string
}

// Driver is a simulated GPU; it implements device.Driver. Make it with New.
type Driver struct {
	info   device.Info
	store  *memfd.Store
	link   *link
	faults *Faults
	clock  clock.Clock

	mu      sync.Mutex
	foreign int64
	own     map[int]int64           // use of other processes that is told apart, by pid
	late    map[*returning]struct{} // bytes of destroyed segments on their way back
}

// returning is a destroyed segment whose bytes still count.
type returning struct {
	bytes int64
	timer clock.Timer
}

var (
	_ device.Driver      = (*Driver)(nil)
	_ device.ProcessUser = (*Driver)(nil)
)

// New makes a device of the declared size.
func New(c Config) (*Driver, error) {
	switch {
	case c.ID == "":
		return nil, errors.New("sim: the device needs an ID")
	case c.Bytes <= 0 || c.Bytes%granularityBytes != 0:
		return nil, fmt.Errorf("sim: %s: size of %d bytes is not a positive multiple of 2 MiB", c.ID, c.Bytes)
	case c.BandwidthBytesPerSecond < 0 || c.Latency < 0:
		return nil, fmt.Errorf("sim: %s: bandwidth and latency cannot be negative", c.ID)
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Faults == nil {
		c.Faults = &Faults{}
	}
	store, err := memfd.NewStore(memfd.Config{
		Label: "isobar-" + c.ID, Root: c.Root, Sparse: true, GranularityBytes: granularityBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("sim: %s: %w", c.ID, err)
	}
	return &Driver{
		store:  store,
		link:   &link{clock: c.Clock, bandwidth: c.BandwidthBytesPerSecond, latency: c.Latency},
		faults: c.Faults,
		clock:  c.Clock,
		late:   map[*returning]struct{}{},
		info: device.Info{
			ID:               c.ID,
			Kind:             "sim",
			HandleKind:       "memfd",
			Type:             device.VRAM,
			Name:             fmt.Sprintf("simulated GPU, %d MiB", c.Bytes>>20),
			Driver:           "isobar sim",
			UUID:             uuid.NewSHA1(uuid.NameSpaceOID, []byte("isobar sim\x00"+c.ID)).String(),
			Simulated:        true,
			PhysicalBytes:    c.Bytes,
			GranularityBytes: granularityBytes,
			NUMANode:         -1,
			ProvesRelease:    true,
		},
	}, nil
}

// Faults is where to make things go wrong.
func (d *Driver) Faults() *Faults { return d.faults }

// SetForeign plays other processes that use so many bytes of the device. It may
// exceed what is free: then the next sample shows more used than there is.
func (d *Driver) SetForeign(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.foreign = max(0, bytes)
}

// SetProcess plays a process that uses so many bytes of the device by itself, beside
// what SetForeign says; 0 is one that uses none any more.
func (d *Driver) SetProcess(pid int, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes <= 0 {
		delete(d.own, pid)
		return
	}
	if d.own == nil {
		d.own = map[int]int64{}
	}
	d.own[pid] = bytes
}

// UsedBy implements device.ProcessUser.
func (d *Driver) UsedBy(pids []int) (int64, error) {
	if d.faults.isLost() {
		return 0, fmt.Errorf("%s: %w", d.info.ID, device.ErrLost)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var sum int64
	for _, pid := range pids {
		sum += d.own[pid]
	}
	return sum, nil
}

// Info implements device.Driver.
func (d *Driver) Info() device.Info { return d.info }

// call is what every call begins with.
func (d *Driver) call(ctx context.Context) error {
	if d.faults.isLost() {
		return fmt.Errorf("%s: %w", d.info.ID, device.ErrLost)
	}
	return d.link.enter(ctx)
}

// Create implements device.Driver.
func (d *Driver) Create(ctx context.Context, bytes int64, o device.CreateOptions) (device.Segment, error) {
	if err := d.call(ctx); err != nil {
		return nil, err
	}
	if err := d.store.CheckSize(bytes); err != nil {
		return nil, err
	}
	if d.faults.createFails() {
		return nil, fmt.Errorf("%s: %d bytes asked for, as the fault says: %w", d.info.ID, bytes, device.ErrOutOfMemory)
	}
	outside := d.outside()
	if taken, ok := d.store.Reserve(bytes, d.info.PhysicalBytes-outside); !ok {
		return nil, fmt.Errorf("%s: %d bytes asked for, %d of %d taken, %d of them by others: %w",
			d.info.ID, bytes, taken+outside, d.info.PhysicalBytes, outside, device.ErrOutOfMemory)
	}
	s, err := d.store.Create(ctx, bytes, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// outside is what counts as used beside live segments.
func (d *Driver) outside() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.outsideLocked()
}

func (d *Driver) outsideLocked() int64 {
	n := d.foreign
	for _, bytes := range d.own {
		n += bytes
	}
	for r := range d.late {
		n += r.bytes
	}
	return n
}

// Import implements device.Driver.
func (d *Driver) Import(f *os.File, bytes int64, o device.ImportOptions) (device.Segment, error) {
	if err := d.call(context.Background()); err != nil {
		return nil, err
	}
	s, err := d.store.Import(f, bytes, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Export implements device.Driver.
func (d *Driver) Export(s device.Segment, m device.Mode) (*os.File, error) {
	if err := d.call(context.Background()); err != nil {
		return nil, err
	}
	return d.store.Export(s, m)
}

// Released implements device.Driver.
func (d *Driver) Released(s device.Segment) (bool, error) {
	if err := d.call(context.Background()); err != nil {
		return false, err
	}
	ok, err := d.store.Released(s)
	return ok && !d.faults.holdsRelease(), err
}

// Holders implements device.Driver.
func (d *Driver) Holders(s device.Segment, except ...int) ([]device.Holder, error) {
	if err := d.call(context.Background()); err != nil {
		return nil, err
	}
	return d.store.Holders(s, except...)
}

// transfer is what every call that moves bytes begins with.
func (d *Driver) transfer(ctx context.Context, bytes int64) error {
	if err := d.call(ctx); err != nil {
		return err
	}
	if err := d.faults.copyFails(); err != nil {
		return fmt.Errorf("%s: %w", d.info.ID, err)
	}
	return d.link.pass(ctx, bytes)
}

// Clear implements device.Driver.
func (d *Driver) Clear(s device.Segment, off, n int64, value byte) error {
	if err := d.transfer(context.Background(), n); err != nil {
		return err
	}
	return d.store.Clear(s, off, n, value)
}

// Copy implements device.Driver.
func (d *Driver) Copy(dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	if err := d.transfer(context.Background(), n); err != nil {
		return err
	}
	return d.store.Copy(dst, dstOff, src, srcOff, n)
}

// Read implements device.Driver.
func (d *Driver) Read(s device.Segment, off int64, b []byte) error {
	if err := d.transfer(context.Background(), int64(len(b))); err != nil {
		return err
	}
	return d.store.Read(s, off, b)
}

// Write implements device.Driver.
func (d *Driver) Write(s device.Segment, off int64, b []byte) error {
	if err := d.transfer(context.Background(), int64(len(b))); err != nil {
		return err
	}
	return d.store.Write(s, off, b)
}

// Fill implements device.Driver.
func (d *Driver) Fill(ctx context.Context, s device.Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	if err := d.transfer(ctx, 0); err != nil {
		return 0, err
	}
	if n <= 0 || off < 0 || off > s.Bytes()-n {
		return d.store.Fill(ctx, s, off, f, fileOff, n) // says what is wrong, at no cost of time
	}
	var total int64
	for total < n {
		part := min(fillChunkBytes, n-total)
		if d.faults.isLost() {
			return total, fmt.Errorf("%s: %w", d.info.ID, device.ErrLost)
		}
		if err := d.link.pass(ctx, part); err != nil {
			return total, err
		}
		got, err := d.store.Fill(ctx, s, off+total, f, fileOff+total, part)
		total += got
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Seal implements device.Driver.
func (d *Driver) Seal(s device.Segment) error {
	if err := d.call(context.Background()); err != nil {
		return err
	}
	return d.store.Seal(s)
}

// Destroy implements device.Driver. With a slow release the bytes stay used, and
// are nobody's, until the time is over.
func (d *Driver) Destroy(s device.Segment) error {
	delay := d.faults.releaseDelay()
	if delay <= 0 {
		_, err := d.store.Destroy(s)
		return err
	}
	// Held over both, so that no sample sees the bytes nowhere.
	d.mu.Lock()
	defer d.mu.Unlock()
	existed, err := d.store.Destroy(s)
	if !existed {
		return err
	}
	r := &returning{bytes: s.Bytes()}
	d.late[r] = struct{}{}
	r.timer = d.clock.AfterFunc(delay, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.late, r)
	})
	return err
}

// Sample implements device.Driver.
func (d *Driver) Sample() (device.Sample, error) {
	if d.store.Closed() {
		return device.Sample{}, device.ErrClosed
	}
	if d.faults.isLost() {
		return device.Sample{
			Health:  device.Lost,
			Reasons: []string{"the simulated device was told to be lost"},
		}, fmt.Errorf("%s: %w", d.info.ID, device.ErrLost)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ours := d.store.Bytes()
	return device.Sample{
		PhysicalBytes: d.info.PhysicalBytes,
		UsedBytes:     ours + d.outsideLocked(),
		OursBytes:     ours,
	}, nil
}

// Audit corrects and compares what the store knows of pages that came to be.
func (d *Driver) Audit() (counted, kernel int64, err error) { return d.store.Audit() }

// Close implements device.Driver.
func (d *Driver) Close() error {
	d.mu.Lock()
	for r := range d.late {
		r.timer.Stop()
	}
	clear(d.late)
	d.mu.Unlock()
	return d.store.Close()
}
