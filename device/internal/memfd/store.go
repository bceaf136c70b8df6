//go:build linux

package memfd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// Config is what a driver decides about its segments.
type Config struct {
	// Label names segments that have none of their own.
	Label string
	// Root is put before /proc and /sys where the store looks at other processes
	// and at the kernel's settings; "" means "/".
	Root string
	// Sparse leaves pages unmade until somebody touches them.
	Sparse bool
	// Huge asks for huge pages; of no effect with Sparse.
	Huge bool
	// Bind has pages come from one NUMA node; nil leaves that to the kernel.
	Bind *Binding
	// GranularityBytes divides every size; a multiple of the page size.
	GranularityBytes int64
	// Stock is what is kept of weights that are destroyed; the zero value is nothing.
	Stock StockConfig
}

// Store keeps the segments of one driver. All methods may be called from any
// goroutine, as package device describes.
type Store struct {
	c     Config
	lease lease
	pager *pager
	lends bool // whether segments can be lent

	stock stock

	resident atomic.Int64 // sum over live segments
	buffers  sync.Pool    // of *[]byte, smallBytes each

	mu     sync.Mutex
	live   map[fileID]*Segment
	bytes  int64 // sum of sizes over live, and reserved
	closed bool
}

// NewStore probes the kernel and fails with the fix where it lacks something.
func NewStore(c Config) (*Store, error) {
	if c.Root == "" {
		c.Root = "/"
	}
	if page := int64(os.Getpagesize()); c.GranularityBytes < page || c.GranularityBytes%page != 0 {
		return nil, fmt.Errorf("granularity %d is not a multiple of the page size %d", c.GranularityBytes, page)
	}
	l, err := probeLease()
	if err != nil {
		return nil, err
	}
	p := &pager{note: "pages are made when touched"}
	if !c.Sparse {
		p = newPager(filepath.Join(c.Root, "sys"), c.Huge)
	}
	st := &Store{c: c, lease: l, pager: p, stock: stock{c: c.Stock}, lends: !c.Sparse && populates(), live: map[fileID]*Segment{}}
	st.stock.check()
	return st, nil
}

// HugeNote is empty when segments of at least a huge page's size get huge pages;
// else it says why not, and what to do.
func (st *Store) HugeNote() string { return st.pager.note }

// MissedHugeBytes counts bytes that should have got huge pages and did not,
// because the kernel found none just then.
func (st *Store) MissedHugeBytes() int64 { return st.pager.missed.Load() }

// ResidentBytes is what live segments occupy, as of each one's last populating,
// fill, clear or audit.
func (st *Store) ResidentBytes() int64 { return st.resident.Load() }

// Reserve promises bytes to a Create that follows, unless all live segments and
// promises would then come to more than limit. It returns what was taken before.
func (st *Store) Reserve(bytes, limit int64) (taken int64, ok bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if bytes > limit-st.bytes {
		return st.bytes, false
	}
	st.bytes += bytes
	return st.bytes - bytes, true
}

// Unreserve takes back a Reserve that no Create followed.
func (st *Store) Unreserve(bytes int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.bytes -= bytes
}

// Bytes is the sum of the sizes of live segments and of what is reserved.
func (st *Store) Bytes() int64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.bytes
}

// UnpopulatedBytes is what live segments and reservations may still come to occupy.
func (st *Store) UnpopulatedBytes() int64 { return max(0, st.Bytes()-st.ResidentBytes()) }

// CheckSize refuses what is not a positive multiple of the granularity.
func (st *Store) CheckSize(bytes int64) error {
	if bytes <= 0 || bytes%st.c.GranularityBytes != 0 {
		return fmt.Errorf("segment of %d bytes, granularity %d: %w", bytes, st.c.GranularityBytes, device.ErrSize)
	}
	return nil
}

// Create makes a segment of bytes that the caller has reserved. It uses the
// reservation up: the segment takes its place, or, on failure, nothing does.
func (st *Store) Create(ctx context.Context, bytes int64, o device.CreateOptions) (*Segment, error) {
	if limit := st.c.Stock.LimitBytes; limit > 0 {
		st.Shed(limit - st.Bytes())
	}
	s, err := st.create(ctx, bytes, o)
	if err != nil {
		st.Unreserve(bytes)
		return nil, fmt.Errorf("create segment of %d bytes: %w", bytes, err)
	}
	// Weights get their pages from Fill, each just before it is written: while its
	// zeroes are still in the processor's cache.
	if !o.Weights && !st.c.Sparse {
		if err := st.populate(ctx, s); err != nil {
			_, _ = st.Destroy(s)
			return nil, fmt.Errorf("create segment of %d bytes: %w", bytes, err)
		}
	}
	return s, nil
}

func (st *Store) create(ctx context.Context, bytes int64, o device.CreateOptions) (*Segment, error) {
	if err := st.CheckSize(bytes); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := newFile(cleanLabel(o.Label, st.c.Label), bytes, !o.Weights)
	if err != nil {
		return nil, err
	}
	if err := st.bind(f, bytes); err != nil {
		_ = f.Close()
		return nil, err
	}
	s, err := st.adopt(f, bytes, o.Weights, false)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if o.Weights && bytes >= stockedBytes && bytes <= st.c.Stock.Bytes {
		s.body.keepWhole(st.pager.hugeBytes)
	}
	return s, nil
}

// populate makes all of a new segment's pages. Close may meet it, so it takes the
// segment as every other work does.
func (st *Store) populate(ctx context.Context, s *Segment) error {
	_, done, err := st.shared(s)
	if err != nil {
		return err
	}
	defer done()
	left := s.bytes
	progress := func() error {
		left -= chunkBytes
		return errors.Join(s.measure(), st.roomFor(min(left, chunkBytes)))
	}
	if err := st.pager.populate(ctx, s.file, s.bytes, progress); err != nil {
		return err
	}
	if err := st.relax(s); err != nil {
		return err
	}
	if got := s.resident.Load(); got < s.bytes {
		return fmt.Errorf("populate: the kernel shows %d of %d bytes", got, s.bytes)
	}
	return nil
}

// Import adopts a file that an earlier process made.
func (st *Store) Import(f *os.File, bytes int64, o device.ImportOptions) (*Segment, error) {
	if err := st.CheckSize(bytes); err != nil {
		return nil, err
	}
	sealed, err := verify(f, bytes, o)
	if err != nil {
		return nil, fmt.Errorf("import segment of %d bytes: %w", bytes, err)
	}
	st.Reserve(bytes, math.MaxInt64) // they exist, whatever the limit says now
	s, err := st.adopt(f, bytes, o.Weights, sealed)
	if err != nil {
		st.Unreserve(bytes)
		return nil, fmt.Errorf("import segment of %d bytes: %w", bytes, err)
	}
	_, done, err := st.shared(s)
	if err != nil { // closed meanwhile, and the file with it
		return nil, fmt.Errorf("import: %w", err)
	}
	defer done()
	if err := s.measure(); err != nil {
		st.forget(s)
		return nil, err
	}
	return s, nil
}

func (st *Store) adopt(f *os.File, bytes int64, weights, sealed bool) (*Segment, error) {
	id, err := stat(f)
	if err != nil {
		return nil, err
	}
	s := newSegment(st, &body{file: f, id: fileID{dev: id.Dev, ino: id.Ino}, bytes: bytes}, weights)
	s.sealed.Store(sealed)
	if err := st.enlist(s); err != nil {
		return nil, err
	}
	return s, nil
}

// enlist makes a segment one of the live ones.
func (st *Store) enlist(s *Segment) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return device.ErrClosed
	}
	if st.live[s.body.id] != nil {
		return fmt.Errorf("%w: the file is a segment of this driver already", device.ErrMismatch)
	}
	st.live[s.body.id] = s
	return nil
}

// forget stops counting a segment.
func (st *Store) forget(s *Segment) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.live[s.body.id] != s {
		return
	}
	delete(st.live, s.body.id)
	st.bytes -= s.bytes
	st.resident.Add(-s.resident.Swap(0))
}

// own finds our segment behind the interface.
func (st *Store) own(ds device.Segment) (*Segment, error) {
	s, ok := ds.(*Segment)
	if !ok || s == nil || s.store != st {
		return nil, device.ErrForeign
	}
	return s, nil
}

// shared begins work on a segment that other work may accompany; call the
// returned function at its end.
func (st *Store) shared(ds device.Segment) (*Segment, func(), error) {
	return st.begin(ds, (*sync.RWMutex).RLock, (*sync.RWMutex).RUnlock)
}

// exclusive begins work that must be alone on its segment.
func (st *Store) exclusive(ds device.Segment) (*Segment, func(), error) {
	return st.begin(ds, (*sync.RWMutex).Lock, (*sync.RWMutex).Unlock)
}

func (st *Store) begin(ds device.Segment, lock, unlock func(*sync.RWMutex)) (*Segment, func(), error) {
	s, err := st.own(ds)
	if err != nil {
		return nil, nil, err
	}
	if st.Closed() {
		return nil, nil, device.ErrClosed
	}
	lock(&s.use)
	if s.dead {
		unlock(&s.use)
		return nil, nil, device.ErrDestroyed
	}
	return s, func() { unlock(&s.use) }, nil
}

// Export implements the driver's Export.
//
// Sealed weights leave on a read-write description, which nobody can write
// through or map writable: kernels that do not count read-only descriptions
// against a write lease would otherwise prove a release that has not happened.
// Scratch for reading leaves read-only where readers count; where they don't, the
// proof is worth more than the mode, which on an unsealed memfd is a convention
// anyway (its holder can reopen it through /proc).
func (st *Store) Export(ds device.Segment, m device.Mode) (*os.File, error) {
	s, done, err := st.shared(ds)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	defer done()
	if s.weights && !s.Sealed() {
		return nil, fmt.Errorf("export: %w", device.ErrNotSealed)
	}
	flags := unix.O_RDWR
	if !s.weights && m == device.ReadOnly && st.lease.readersCount {
		flags = unix.O_RDONLY
	}
	f, err := reopen(s.file, flags)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return f, nil
}

// Released implements the driver's Released.
func (st *Store) Released(ds device.Segment) (bool, error) {
	s, done, err := st.exclusive(ds)
	if err != nil {
		return false, fmt.Errorf("prove release: %w", err)
	}
	defer done()
	return alone(s.file)
}

// Holders implements the driver's Holders.
func (st *Store) Holders(ds device.Segment, except ...int) ([]device.Holder, error) {
	s, done, err := st.shared(ds)
	if err != nil {
		return nil, fmt.Errorf("find holders: %w", err)
	}
	defer done()
	return holders(filepath.Join(st.c.Root, "proc"), s.body.id, except)
}

// Seal implements the driver's Seal.
func (st *Store) Seal(ds device.Segment) error {
	s, done, err := st.exclusive(ds)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	defer done()
	if !s.weights {
		return fmt.Errorf("seal: %w", device.ErrScratch)
	}
	if s.Sealed() {
		return nil
	}
	ok, err := alone(s.file)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if !ok {
		return fmt.Errorf("seal: %w", device.ErrShared)
	}
	s.settle()
	if s.body.worn { // the file has its seals
		s.sealed.Store(true)
		return s.measure()
	}
	if err := st.relax(s); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := addSeals(s.file, writeSeals|unix.F_SEAL_SEAL); err != nil {
		return err
	}
	s.sealed.Store(true)
	return s.measure()
}

// Destroy implements the driver's Destroy, and tells whether there was still
// something to destroy. The memory of weights may go into the stock.
func (st *Store) Destroy(ds device.Segment) (bool, error) {
	s, err := st.own(ds)
	if err != nil {
		return false, fmt.Errorf("destroy: %w", err)
	}
	s.use.Lock()
	was := s.dead
	s.dead = true
	s.use.Unlock()
	if was {
		return false, nil
	}
	st.forget(s)
	if err := st.retire(s); err != nil {
		return true, fmt.Errorf("destroy: %w", err)
	}
	return true, nil
}

// Audit compares what the store counts as resident with what the kernel holds,
// segment by segment, and corrects the count. A difference means that a client
// punched holes into its scratch, or, with Sparse, that somebody touched pages.
func (st *Store) Audit() (counted, kernel int64, err error) {
	st.mu.Lock()
	list := slices.Collect(maps.Values(st.live))
	st.mu.Unlock()
	for _, s := range list {
		s.use.RLock()
		if !s.dead {
			counted += s.resident.Load()
			err = errors.Join(err, s.measure())
			kernel += s.resident.Load()
		}
		s.use.RUnlock()
	}
	return counted, kernel, err
}

// Close drops every segment of this process.
func (st *Store) Close() error {
	st.mu.Lock()
	st.closed = true
	list := slices.Collect(maps.Values(st.live))
	st.mu.Unlock()
	var err error
	for _, s := range list {
		_, e := st.Destroy(s)
		err = errors.Join(err, e)
	}
	st.stock.close()
	return err
}

// Closed tells whether Close was called.
func (st *Store) Closed() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.closed
}
