//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/internal/cover"
)

// pinBytes is how much is registered by one call: some milliseconds of the driver's time, in
// which other calls of it may wait. A copy must not span two registrations.
const pinBytes = 64 << 20

// warm is main memory that is kept registered, so that it is copied at the link's speed and
// without the processor: weights of other drivers, sealed ones and such as this driver writes
// itself. Nothing else is, since a hole that is punched into registered memory leaves the GPU with
// the old bytes for ever: what is sealed nobody can punch, and what is not nobody else has.
//
// Registering runs in the background, one segment after the other, while nothing is copied: the
// driver's calls wait for each other. But weights that come down are registered behind the copy,
// part by part: making their pages is what that waits for, and they can go up again as soon as they
// are there. It ends at the limit: what is registered stays so as long as the segment lives. A
// segment that is destroyed is let go of first, on the thread that destroys it; that waits for
// copies under way, and for the GPU.
type warm struct {
	d     *Driver
	limit int64

	mu     sync.Mutex
	held   map[any]*pinned // by its backing: waiting, registered, or refused by the driver
	bytes  int64           // what is registered or will be
	queue  []*pinned
	idle   chan struct{} // closed when the background work ends; nil: there is none
	closed bool
}

// pinned is the memory of one segment of them, and of those after it that get the same memory.
type pinned struct {
	w       *warm
	backing any
	bytes   int64
	landed  cover.Cover // what has come down, of a segment that does

	// Guarded by the warm's mu:
	ready  int64 // bytes from the beginning that may be registered
	asked  int64 // ready when it was last put into the queue
	behind bool  // what is registered comes down: the copy is not waited for
	queued bool

	// use is held shared by copies, and alone by what changes the rest.
	use        sync.RWMutex
	loan       device.Loan
	registered int64 // bytes from the beginning
	refused    bool
	gone       bool
}

// moving counts the long copies of a device that are under way. The zero value is ready.
type moving struct {
	mu    sync.Mutex
	n     int
	still chan struct{} // closed when there are none; nil: nobody waits
}

func (m *moving) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
}

func (m *moving) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n--; m.n == 0 && m.still != nil {
		close(m.still)
		m.still = nil
	}
}

// pass waits until there are none.
func (m *moving) pass() {
	m.mu.Lock()
	if m.n == 0 {
		m.mu.Unlock()
		return
	}
	if m.still == nil {
		m.still = make(chan struct{})
	}
	still := m.still
	m.mu.Unlock()
	<-still
}

// newWarm says what the device and the configuration allow.
func newWarm(d *Driver) *warm {
	w := &warm{d: d, limit: d.c.RegisterBytes, held: map[any]*pinned{}}
	if !d.pinsFiles {
		w.limit = 0 // sealed memory can be mapped for reading alone
	}
	return w
}

// halfOfMemory is how much is registered at most where the configuration does not say.
func halfOfMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit) / 2
}

// use gives a segment of which the bytes up to end are registered, until done is called; else
// nil. It does not wait.
func (w *warm) use(s device.Lender, end int64) *pinned {
	w.mu.Lock()
	p := w.held[s.Backing()]
	w.mu.Unlock()
	if p == nil || !p.use.TryRLock() {
		return nil
	}
	if p.registered < end || p.gone {
		p.use.RUnlock()
		return nil
	}
	return p
}

func (p *pinned) done() { p.use.RUnlock() }

// part is memory from off on, n bytes or up to the end of its registration.
func (p *pinned) part(off, n int64) []byte {
	return p.loan.Bytes()[off:][:min(n, pinBytes-off%pinBytes)]
}

// expect has sealed weights registered in the background, if there is room.
func (w *warm) expect(s device.Lender) {
	if !s.Weights() || !s.Sealed() {
		return
	}
	w.mu.Lock()
	p := w.held[s.Backing()]
	w.mu.Unlock()
	if p == nil {
		p = w.hold(s)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p != nil && w.held[p.backing] == p && p.ready < p.bytes {
		p.ready, p.behind = p.bytes, false
		w.enqueue(p)
	}
}

// follow is expect for weights that this driver writes: what has arrived of them is registered
// behind the writing. nil: they are not.
func (w *warm) follow(s device.Lender) *pinned {
	if !s.Weights() || s.Sealed() {
		return nil
	}
	if p := w.hold(s); p != nil {
		return p
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held[s.Backing()] // by another part of the same copy, or since it was another's
}

// arrived notes bytes that have come down; they stay what they are.
func (p *pinned) arrived(off, n int64) {
	if p == nil {
		return
	}
	p.landed.Claim(off, n)
	reach := min(p.landed.Reach(), p.bytes)
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if reach <= p.ready || w.held[p.backing] != p {
		return
	}
	p.ready, p.behind = reach, true
	if reach-p.asked >= pinBytes || reach == p.bytes {
		w.enqueue(p)
	}
}

// hold maps a segment to be registered, if there is room; nil: there is not, or it is held.
func (w *warm) hold(s device.Lender) *pinned {
	p := &pinned{w: w, backing: s.Backing(), bytes: s.Bytes()}
	p.landed.Begin(p.bytes)
	w.mu.Lock()
	if w.closed || w.held[p.backing] != nil || p.bytes > w.limit-w.bytes {
		w.mu.Unlock()
		return nil
	}
	p.use.Lock() // a recall waits until the loan is there
	w.held[p.backing] = p
	w.bytes += p.bytes
	w.mu.Unlock()
	loan, err := s.Entrust(p.release)
	p.loan, p.gone = loan, err != nil
	p.use.Unlock()
	if err == nil {
		return p
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget(p)
	return nil
}

// enqueue has what may be registered of a segment registered. It is called with mu held.
func (w *warm) enqueue(p *pinned) {
	p.asked = p.ready
	if p.queued || w.closed {
		return
	}
	p.queued = true
	w.queue = append(w.queue, p)
	if w.idle == nil {
		w.idle = make(chan struct{})
		go w.work(w.idle)
	}
}

// forget is called with mu held.
func (w *warm) forget(p *pinned) {
	if w.held[p.backing] != p {
		return
	}
	delete(w.held, p.backing)
	if !p.refused {
		w.bytes -= p.bytes
	}
}

// work registers what is queued.
func (w *warm) work(idle chan struct{}) {
	defer close(idle)
	for {
		w.mu.Lock()
		if len(w.queue) == 0 || w.closed {
			w.queue, w.idle = nil, nil
			w.mu.Unlock()
			return
		}
		p := w.queue[0]
		w.queue = w.queue[1:]
		p.queued = false
		w.mu.Unlock()
		err := onThread(w.d.cu, w.d.ctx, func() error {
			for more := true; more; {
				if !w.follows(p) {
					w.d.moving.pass()
				}
				var err error
				if more, err = p.register(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			p.refuse(err)
		}
	}
}

// follows tells whether what is to be registered comes down at present.
func (w *warm) follows(p *pinned) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return p.behind
}

// register registers the next part that may be; more says whether there is another.
func (p *pinned) register() (more bool, err error) {
	p.use.Lock()
	defer p.use.Unlock()
	p.w.mu.Lock()
	ready := p.ready
	p.w.mu.Unlock()
	if p.gone || p.registered == p.bytes {
		return false, nil
	}
	part := p.part(p.registered, p.bytes-p.registered)
	end := p.registered + int64(len(part))
	if end > ready {
		return false, nil
	}
	pin := p.w.d.cu.RegisterReadOnly
	if p.loan.Writes() {
		pin = p.w.d.cu.Register
	}
	if err := pin(part); err != nil {
		return false, err
	}
	p.registered = end
	return end < ready, nil
}

// refuse notes that the driver does not register a segment: it is not tried again.
func (p *pinned) refuse(err error) {
	_ = p.w.d.fault(err)
	p.use.Lock()
	defer p.use.Unlock()
	if p.gone {
		return
	}
	p.unregister()
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.refused = true
	p.w.bytes -= p.bytes
}

// release lets go of a segment: it unregisters its memory and unmaps it. Who comes second
// waits for the first.
func (p *pinned) release() {
	p.use.Lock()
	defer p.use.Unlock()
	if p.gone {
		return
	}
	p.gone = true
	if p.unregister() {
		p.loan.Return()
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.forget(p)
}

// unregister undoes register, with use held. Where the driver does not let go the memory stays
// mapped, lest other memory come to lie there; but a lost device asks for none any more.
func (p *pinned) unregister() bool {
	d := p.w.d
	err := onThread(d.cu, d.ctx, func() error {
		var err error
		for off := int64(0); off < p.registered; {
			part := p.part(off, p.registered-off)
			err = errors.Join(err, d.cu.Unregister(part))
			off += int64(len(part))
		}
		return err
	})
	p.registered = 0
	if err = d.fault(err); err == nil || errors.Is(err, device.ErrLost) {
		return true
	}
	d.state.set("warm", device.Degraded, fmt.Sprintf("main memory that was registered with the GPU is not let go of (%v): restart the node to have it back", err))
	return false
}

// close lets go of everything, once nothing is copied any more.
func (w *warm) close() {
	w.mu.Lock()
	w.closed = true
	idle := w.idle
	w.mu.Unlock()
	if idle != nil {
		<-idle
	}
	w.mu.Lock()
	var list []*pinned
	for _, p := range w.held {
		list = append(list, p)
	}
	w.mu.Unlock()
	for _, p := range list {
		p.release()
	}
}

// wait waits until nothing is being registered.
func (w *warm) wait() {
	w.mu.Lock()
	idle := w.idle
	w.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

// Expect implements device.Bridge: it has the segment registered.
func (d *Driver) Expect(src device.Segment) {
	s, ok := src.(device.Lender)
	if !ok || !s.Lends() || d.enter() != nil {
		return
	}
	defer d.leave()
	d.warm.expect(s)
}

// RegisteredBytes is main memory of other drivers that is registered with the GPU, or is about
// to be.
func (d *Driver) RegisteredBytes() int64 {
	d.warm.mu.Lock()
	defer d.warm.mu.Unlock()
	return d.warm.bytes
}
