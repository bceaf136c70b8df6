//go:build linux

package hostram

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/device/internal/memfd"
)

// Config describes one main-memory device. The zero value of every field but ID
// is sound.
type Config struct {
	// ID is the device's name on the wire. Required.
	ID string
	// PhysicalBytes is what the device may come to in all; 0, or more than there
	// is, means what the machine and its control groups have.
	PhysicalBytes int64
	// HeadroomBytes is what Create leaves to everybody else even when asked for
	// all; 0 means 64 MiB or a 64th of the physical bytes, whichever is less.
	// Negative means none.
	HeadroomBytes int64
	// Bind has the memory come from one NUMA node, NUMANode, and the device's figures be
	// those of that node. Where the machine forbids that the device works without, and says so.
	Bind     bool
	NUMANode int
	// SmallPages turns huge pages off.
	SmallPages bool
	// StockBytes bounds the memory that is kept of weights that were destroyed, its pages made and
	// pinned as it was, for weights of the same sizes to come; LimitBytes bounds it together with
	// the segments, 0 meaning PhysicalBytes. It counts as free: whatever else is created has it
	// given up, and so has a machine that runs short. StockBytes 0 keeps nothing.
	StockBytes, LimitBytes int64
	// StockHalfLife is in what time half of it goes while nobody asks for any; 0 means 10 s.
	StockHalfLife time.Duration
	// Root is put before /proc, /sys and /etc wherever figures or other processes
	// are looked at; "" means "/". For tests.
	Root string
	// Figures reads the machine's figures; nil means hostmem under Root.
	Figures func() (hostmem.Figures, error)
	// Clock tells how old figures are; nil means the real one.
	Clock clock.Clock
}

// Driver is main memory; it implements device.Driver. Make it with New.
type Driver struct {
	c     Config
	info  device.Info
	store *memfd.Store
	room  *room
	// unbound says why the memory is not bound to its node, nil where it is or was not to be.
	unbound error
}

// limit is what the segments may come to in all.
func (c *Config) limit() int64 {
	if c.PhysicalBytes == 0 {
		return math.MaxInt64
	}
	return c.PhysicalBytes
}

var _ device.Driver = (*Driver)(nil)

// New probes the machine. Errors say what is missing and how to get it.
func New(c Config) (*Driver, error) {
	if c.ID == "" {
		return nil, errors.New("hostram: the device needs an ID")
	}
	if c.PhysicalBytes < 0 {
		return nil, fmt.Errorf("hostram: %s: physical size of %d bytes is negative", c.ID, c.PhysicalBytes)
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	var unbound error
	if c.Bind {
		if unbound = memfd.TryBind(c.NUMANode); unbound != nil {
			c.Bind = false
		}
	}
	if c.Figures == nil {
		reader, err := hostmem.NewReader(hostmem.Config{Root: c.Root})
		if err != nil {
			return nil, fmt.Errorf("hostram: %s: %w", c.ID, err)
		}
		c.Figures = reader.Read
		if c.Bind {
			c.Figures = func() (hostmem.Figures, error) { return reader.ReadNode(c.NUMANode) }
		}
	}
	figures, err := c.Figures()
	if err != nil {
		return nil, fmt.Errorf("hostram: %s: %w", c.ID, err)
	}
	physical := physicalBytes(c, figures)
	if c.HeadroomBytes == 0 {
		c.HeadroomBytes = min(64<<20, physical/64)
	}
	c.HeadroomBytes = max(0, c.HeadroomBytes)
	settings := memfd.Config{
		Label:            "isobar-" + c.ID,
		Root:             c.Root,
		Huge:             !c.SmallPages,
		GranularityBytes: int64(os.Getpagesize()),
		Stock:            memfd.StockConfig{Bytes: max(0, c.StockBytes), LimitBytes: c.LimitBytes, HalfLife: c.StockHalfLife, Clock: c.Clock},
	}
	if settings.Stock.LimitBytes == 0 {
		settings.Stock.LimitBytes = physical
	}
	name, numa := "main memory", -1
	if c.Bind {
		settings.Bind = &memfd.Binding{Node: c.NUMANode, Room: func(bytes int64) error { return nodeRoom(&c, bytes) }}
		name, numa = fmt.Sprintf("main memory of NUMA node %d", c.NUMANode), c.NUMANode
	}
	store, err := memfd.NewStore(settings)
	if err != nil {
		return nil, fmt.Errorf("hostram: %s: %w", c.ID, err)
	}
	return &Driver{
		c:       c,
		store:   store,
		room:    &room{c: c, store: store},
		unbound: unbound,
		info: device.Info{
			ID:               c.ID,
			Kind:             "ram",
			HandleKind:       "memfd",
			Type:             device.RAM,
			Name:             name,
			Driver:           "memfd on Linux " + kernelRelease(),
			UUID:             identity(c),
			PhysicalBytes:    physical,
			GranularityBytes: int64(os.Getpagesize()),
			NUMANode:         numa,
			ProvesRelease:    true,
		},
	}, nil
}

func physicalBytes(c Config, f hostmem.Figures) int64 {
	if c.PhysicalBytes > 0 {
		return min(c.PhysicalBytes, f.PhysicalBytes())
	}
	return f.PhysicalBytes()
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// identity is stable for a device of a machine, and does not give away the
// machine's own id, which is confidential. Without one it is empty.
func identity(c Config) string {
	root := c.Root
	if root == "" {
		root = "/"
	}
	text, err := os.ReadFile(filepath.Join(root, "etc/machine-id"))
	machine := strings.TrimSpace(string(text))
	if err != nil || machine == "" {
		return ""
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("isobar\x00"+machine+"\x00"+c.ID)).String()
}

// Info implements device.Driver.
func (d *Driver) Info() device.Info { return d.info }

// Create implements device.Driver.
func (d *Driver) Create(ctx context.Context, bytes int64, o device.CreateOptions) (device.Segment, error) {
	if err := d.store.CheckSize(bytes); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s := d.store.Reuse(bytes, d.c.limit(), o); s != nil {
		return s, nil
	}
	if err := d.room.take(bytes); err != nil {
		return nil, err
	}
	s, err := d.store.Create(ctx, bytes, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Import implements device.Driver. Bytes that are there already need no room.
func (d *Driver) Import(f *os.File, bytes int64, o device.ImportOptions) (device.Segment, error) {
	s, err := d.store.Import(f, bytes, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Export implements device.Driver.
func (d *Driver) Export(s device.Segment, m device.Mode) (*os.File, error) {
	return d.store.Export(s, m)
}

// Released implements device.Driver.
func (d *Driver) Released(s device.Segment) (bool, error) { return d.store.Released(s) }

// Holders implements device.Driver. It sees all processes when run as root, else
// those of its own user.
func (d *Driver) Holders(s device.Segment, except ...int) ([]device.Holder, error) {
	return d.store.Holders(s, except...)
}

// Clear implements device.Driver.
func (d *Driver) Clear(s device.Segment, off, n int64, value byte) error {
	return d.store.Clear(s, off, n, value)
}

// Copy implements device.Driver.
func (d *Driver) Copy(dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	return d.store.Copy(dst, dstOff, src, srcOff, n)
}

// Read implements device.Driver.
func (d *Driver) Read(s device.Segment, off int64, b []byte) error { return d.store.Read(s, off, b) }

// Write implements device.Driver.
func (d *Driver) Write(s device.Segment, off int64, b []byte) error { return d.store.Write(s, off, b) }

// Fill implements device.Driver.
func (d *Driver) Fill(ctx context.Context, s device.Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	return d.store.Fill(ctx, s, off, f, fileOff, n)
}

// Seal implements device.Driver.
func (d *Driver) Seal(s device.Segment) error { return d.store.Seal(s) }

// Destroy implements device.Driver.
func (d *Driver) Destroy(s device.Segment) error {
	_, err := d.store.Destroy(s)
	return err
}

// Close implements device.Driver.
func (d *Driver) Close() error { return d.store.Close() }

// Audit asks the kernel for the blocks of every live segment, and corrects the
// count that Sample reports. A difference means that a client gave pages of its
// scratch back by punching holes. It costs about a microsecond a segment.
func (d *Driver) Audit() (counted, kernel int64, err error) { return d.store.Audit() }

// scarce is the share of the machine's memory, as a divisor, below which the stock is given up.
const scarce = 32

// StockBytes is memory that is kept for weights to come. It is not part of any figure of Sample.
func (d *Driver) StockBytes() int64 { return d.store.StockBytes() }

// Sample implements device.Driver.
func (d *Driver) Sample() (device.Sample, error) {
	if d.store.Closed() {
		return device.Sample{}, device.ErrClosed
	}
	figures, err := d.c.Figures()
	if err != nil {
		return device.Sample{}, fmt.Errorf("sample %s: %w", d.c.ID, err)
	}
	if figures.RoomBytes() < d.c.HeadroomBytes+figures.PhysicalBytes()/scarce {
		d.store.Wane(0) // others need it more
	} else {
		d.store.Wane(math.MaxInt64)
	}
	ours, physical := d.store.ResidentBytes(), physicalBytes(d.c, figures)
	s := device.Sample{
		PhysicalBytes: physical,
		UsedBytes:     ours + figures.OutsideBytes(physical, ours+d.store.StockBytes()),
		OursBytes:     ours,
		Health:        device.Healthy,
		Reasons:       d.notes(),
	}
	if d.unbound != nil {
		s.Health = device.Degraded
		s.Reasons = append([]string{fmt.Sprintf("its memory comes from any NUMA node, not from node %d alone: %v", d.c.NUMANode, d.unbound)}, s.Reasons...)
	}
	return s, nil
}

// notes are for people; none of them makes the device less than healthy.
func (d *Driver) notes() []string {
	if note := d.store.HugeNote(); note != "" {
		return []string{note}
	}
	if missed := d.store.MissedHugeBytes(); missed > 0 {
		return []string{fmt.Sprintf("%d MiB got small pages because the kernel found no huge ones just then: "+
			"memory is fragmented; echo 1 > /proc/sys/vm/compact_memory may help", missed>>20)}
	}
	return nil
}
