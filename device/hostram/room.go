//go:build linux

package hostram

import (
	"fmt"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/internal/memfd"
)

// maxAge is how old the machine's figures may be when room is plentiful: a pool
// that fills by hundreds of segments a second should not read /proc for each.
const maxAge = 20 * time.Millisecond

// room decides whether bytes can be taken without anybody being killed for them.
type room struct {
	c     Config
	store *memfd.Store

	mu   sync.Mutex
	read bool
	at   clock.Instant // of the figures
	left int64         // room then, less what was promised since
}

// take promises bytes to a creation: on success the store has them reserved.
func (r *room) take(bytes int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if taken, ok := r.store.Reserve(bytes, r.c.limit()); !ok {
		return fmt.Errorf("%s: %d bytes asked for, %d of %d taken: %w",
			r.c.ID, bytes, taken, r.c.PhysicalBytes, device.ErrOutOfMemory)
	}
	now := r.c.Clock.Now()
	// Half: what others take within maxAge must not turn a yes into a lie.
	if r.read && now.Sub(r.at) <= maxAge && bytes <= r.left/2 {
		r.left -= bytes
		return nil
	}
	err := r.look(now)
	if stock := r.store.StockBytes(); err == nil && r.left < 0 && stock > 0 {
		r.store.Shed(stock + r.left)
		err = r.look(now)
	}
	if err != nil {
		r.store.Unreserve(bytes)
		return err
	}
	if r.left < 0 {
		left := max(0, r.left+bytes)
		r.left += bytes
		r.store.Unreserve(bytes)
		return fmt.Errorf("%s: %d bytes asked for, the machine and its control groups have %d left beside a headroom of %d: %w",
			r.c.ID, bytes, left, r.c.HeadroomBytes, device.ErrOutOfMemory)
	}
	return nil
}

// nodeRoom looks whether a NUMA node can give so many bytes more and keep the headroom: what
// was there when a creation began may have been taken by others since, and memory bound to a
// full node has the kernel kill for it. Half of the headroom may go meanwhile.
func nodeRoom(c *Config, bytes int64) error {
	figures, err := c.Figures()
	if err != nil {
		return fmt.Errorf("%s: look for room: %w", c.ID, err)
	}
	if left := figures.RoomBytes() - c.HeadroomBytes/2; bytes > left {
		return fmt.Errorf("%s: others took the memory meanwhile, %d bytes are left: %w", c.ID, max(0, left), device.ErrOutOfMemory)
	}
	return nil
}

// look reads the figures. Bytes promised but not populated yet are taken off, those
// just reserved among them: weights that wait for their fill, and creations under way.
func (r *room) look(now clock.Instant) error {
	// The order matters: pages made in between count twice, not never.
	unpopulated := r.store.UnpopulatedBytes()
	figures, err := r.c.Figures()
	if err != nil {
		return fmt.Errorf("%s: look for room: %w", r.c.ID, err)
	}
	r.read, r.at = true, now
	r.left = figures.RoomBytes() - r.c.HeadroomBytes - unpopulated
	return nil
}
