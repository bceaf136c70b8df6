//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// lane is a copy thread: a stream of its own and two pinned chunks, so that one is filled or
// emptied while the other is copied. All its methods run on its thread.
type lane struct {
	cu     *api.CUDA
	thread *thread
	stream api.Stream
	memory []byte // of both chunks
	chunks [2]chunk
	turn   int
}

// chunk is pinned memory, and the place in the stream at which it is free again.
type chunk struct {
	host []byte
	room []byte // host and a little more, for reads that begin and end at blocks
	// short is waited for after a copy of the chunk, long after one that takes longer.
	short, long api.Event
	under       api.Event // which of them, while busy
	busy        bool
	at, n       int64 // what its owner keeps with it
	// window is memory that is copied from in place of host, registered until the copy is through.
	window []byte
}

// newLane starts one, or leaves nothing.
func newLane(d *Driver) (*lane, error) {
	t, err := startThread(d.cu, d.ctx)
	if err != nil {
		return nil, err
	}
	l := &lane{cu: d.cu, thread: t}
	if err := t.do(func() error { return l.open(&d.c) }); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *lane) open(config *Config) (err error) {
	if l.stream, err = l.cu.NewStream(); err != nil {
		return err
	}
	// A chunk is waited for a fraction of a millisecond, and then to be filled by this thread: where
	// each has a processor, sleeping costs 3 % of a load (an H100, 16 processors, 2026-11-22).
	sleep, bytes := runtime.NumCPU() < config.CopyThreads, config.ChunkBytes
	for i := range l.chunks {
		c := &l.chunks[i]
		if c.short, err = l.cu.NewEvent(sleep); err != nil {
			return err
		}
		if c.long, err = l.cu.NewEvent(true); err != nil {
			return err
		}
	}
	each := bytes + 2*blockBytes
	memory, err := pinnable(2 * each)
	if err != nil {
		return err
	}
	if err := l.cu.Register(memory); err != nil {
		return errors.Join(err, unix.MunmapPtr(unsafe.Pointer(&memory[0]), uintptr(len(memory))))
	}
	l.memory = memory
	for i := range l.chunks {
		l.chunks[i].room = memory[i*each:][:each:each]
		l.chunks[i].host = l.chunks[i].room[:bytes:bytes]
	}
	return nil
}

// hugeBytes is what memory is a multiple of that huge pages serve on the machines that have GPUs.
const hugeBytes = 2 << 20

// pinnable maps memory and makes its pages, huge ones where the kernel has them: a copy by the
// processor then misses fewer translations, and one by the GPU has fewer pieces.
func pinnable(n int) ([]byte, error) {
	n = (n + hugeBytes - 1) / hugeBytes * hugeBytes
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("map %d bytes for copies: %w", n, err) }
	room, err := unix.MmapPtr(-1, 0, nil, uintptr(n+hugeBytes), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return fail(err)
	}
	skip := (hugeBytes - uintptr(room)%hugeBytes) % hugeBytes
	at, err := unix.MmapPtr(-1, 0, unsafe.Add(room, skip), uintptr(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED)
	_ = unix.MunmapPtr(room, skip)
	_ = unix.MunmapPtr(unsafe.Add(room, skip+uintptr(n)), hugeBytes-skip)
	if err != nil {
		return fail(err)
	}
	memory := unsafe.Slice((*byte)(at), n)
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)                           // small pages do too
	if err := unix.Madvise(memory, unix.MADV_POPULATE_WRITE); err != nil { // an old kernel
		for i := 0; i < n; i += int(pageBytes) {
			memory[i] = 0
		}
	}
	return memory, nil
}

// close ends a lane and its thread. The pinned memory is kept where the driver does not let go
// of it: it may still be the source of a copy.
func (l *lane) close() error {
	err := l.thread.do(func() error {
		err := l.drain()
		if l.memory != nil {
			failed := l.cu.Unregister(l.memory)
			if failed == nil {
				failed = unix.MunmapPtr(unsafe.Pointer(&l.memory[0]), uintptr(len(l.memory)))
			}
			err = errors.Join(err, failed)
		}
		for _, c := range l.chunks {
			for _, e := range []api.Event{c.short, c.long} {
				if e != 0 {
					err = errors.Join(err, l.cu.CloseEvent(e))
				}
			}
		}
		if l.stream != 0 {
			err = errors.Join(err, l.cu.CloseStream(l.stream))
		}
		return err
	})
	l.thread.stop()
	return err
}

// chunk gives the chunk whose turn it is, once its last copy is through. On an error it is the
// chunk whose copy failed.
func (l *lane) chunk() (*chunk, error) {
	c := &l.chunks[l.turn]
	l.turn = 1 - l.turn
	return c, l.settle(c)
}

// sent notes that the stream's present end is where c is free again. Where that cannot be
// noted nothing is under way any more when it returns: who is told of an error may unmap.
func (l *lane) sent(c *chunk) error { return l.mark(c, c.short) }

// sentLong is sent of what takes the GPU longer than a chunk does.
func (l *lane) sentLong(c *chunk) error { return l.mark(c, c.long) }

func (l *lane) mark(c *chunk, e api.Event) error {
	if err := l.cu.Record(e, l.stream); err != nil {
		return errors.Join(err, l.cu.Sync(l.stream))
	}
	c.busy, c.under = true, e
	return nil
}

// settle waits until a chunk's copy is through; on an error, until all are.
func (l *lane) settle(c *chunk) error {
	if !c.busy {
		return nil
	}
	c.busy = false
	err := l.cu.Wait(c.under)
	if err != nil {
		err = errors.Join(err, l.cu.Sync(l.stream))
	}
	return errors.Join(err, l.unpin(c))
}

// drain waits for everything.
func (l *lane) drain() error { return errors.Join(l.settle(&l.chunks[0]), l.settle(&l.chunks[1])) }

// finish waits for what was given to the stream without a chunk.
func (l *lane) finish() error {
	c, err := l.chunk()
	if err == nil {
		err = l.sent(c)
	}
	return errors.Join(err, l.drain())
}

// write copies b to an address.
func (l *lane) write(to api.Pointer, b []byte) error {
	for len(b) > 0 {
		c, err := l.chunk()
		if err == nil {
			n := copy(c.host, b)
			err = l.push(c, to, c.host[:n])
			to, b = to+api.Pointer(n), b[n:]
		}
		if err != nil {
			return errors.Join(err, l.drain())
		}
	}
	return l.drain()
}

// push sends bytes that lie in a chunk to an address.
func (l *lane) push(c *chunk, to api.Pointer, b []byte) error {
	if err := l.cu.ToDevice(to, b, l.stream); err != nil {
		return err
	}
	return l.sent(c)
}

// read copies from an address into b: while one chunk arrives, the one before is emptied.
func (l *lane) read(b []byte, from api.Pointer) error {
	var before *chunk
	var into []byte
	land := func() error {
		if before == nil {
			return nil
		}
		err := l.settle(before)
		copy(into, before.host)
		return err
	}
	for len(b) > 0 {
		c, err := l.chunk()
		if err == nil {
			part := b[:min(len(b), len(c.host))]
			if err = l.cu.ToHost(c.host[:len(part)], from, l.stream); err == nil {
				err = errors.Join(l.sent(c), land())
			}
			before, into = c, part
			from, b = from+api.Pointer(len(part)), b[len(part):]
		}
		if err != nil {
			return errors.Join(err, l.drain())
		}
	}
	return land()
}

// lanes are the copy threads of a device, made as they are first needed.
type lanes struct {
	d       *Driver
	idle    chan *lane
	waiting atomic.Int32

	mu   sync.Mutex // held while one is made
	made int

	listing sync.Mutex
	list    []*spread // that take more lanes
}

func newLanes(d *Driver) *lanes { return &lanes{d: d, idle: make(chan *lane, d.c.CopyThreads)} }

// spare gives a lane that nobody uses, or nil.
func (p *lanes) spare() *lane {
	select {
	case l := <-p.idle:
		return l
	default:
	}
	l, _ := p.grow()
	return l
}

// grow makes a lane if there may be another; else it gives none.
func (p *lanes) grow() (*lane, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made == p.d.c.CopyThreads {
		return nil, nil
	}
	l, err := newLane(p.d)
	if err != nil {
		return nil, err
	}
	p.made++
	return l, nil
}

// take waits for a lane. It fails only where there is none yet and none can be made.
func (p *lanes) take() (*lane, error) {
	if l := p.spare(); l != nil {
		return l, nil
	}
	p.mu.Lock()
	none := p.made == 0
	p.mu.Unlock()
	if none {
		if l, err := p.grow(); l != nil || err != nil {
			return l, err
		}
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	return <-p.idle, nil
}

// crowded tells whether somebody waits for a lane.
func (p *lanes) crowded() bool { return p.waiting.Load() > 0 }

// put gives a lane back: to who waits for one, to a range that more lanes work on, or to nobody.
func (p *lanes) put(l *lane) {
	w := p.needy()
	if w == nil {
		p.idle <- l
		return
	}
	go func() {
		_ = l.thread.do(func() error { w.work(l, true); return nil }) // w has the error
		w.extras.Done()
		p.put(l)
	}()
}

// needy finds a range that a free lane may work on, and counts it in there.
func (p *lanes) needy() *spread {
	if p.crowded() {
		return nil
	}
	p.listing.Lock()
	defer p.listing.Unlock()
	for _, w := range p.list {
		if w.join() {
			return w
		}
	}
	return nil
}

// enlist has free lanes work on a range, discharge no more.
func (p *lanes) enlist(w *spread) {
	p.listing.Lock()
	defer p.listing.Unlock()
	p.list = append(p.list, w)
}

func (p *lanes) discharge(w *spread) {
	p.listing.Lock()
	defer p.listing.Unlock()
	p.list = slices.DeleteFunc(p.list, func(e *spread) bool { return e == w })
}

// with runs f on a lane.
func (p *lanes) with(f func(l *lane) error) error {
	l, err := p.take()
	if err != nil {
		return err
	}
	defer p.put(l)
	return l.thread.do(func() error { return f(l) })
}

// close ends all lanes; none is in use any more. What a lost device answers to that is not told.
func (p *lanes) close() error {
	p.mu.Lock()
	made := p.made
	p.made = 0
	p.mu.Unlock()
	var err error
	for range made {
		err = errors.Join(err, (<-p.idle).close())
	}
	if p.d.lost() != nil {
		return nil
	}
	return p.d.fault(err)
}
