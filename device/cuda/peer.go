//go:build linux

package cuda

import (
	"context"
	"fmt"
	"slices"

	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// peerBytes is how much of a copy between GPUs is given to the stream at a time: over NVLink
// it takes a fraction of a millisecond, over PCIe some.
const peerBytes = 128 << 20

// fromPeer copies from another GPU's segment. Where the GPUs reach each other's memory it is
// one copy; else the driver finds the way.
func (d *Driver) fromPeer(ctx context.Context, to *Segment, toOff int64, from *Segment, fromOff, n int64) error {
	from.use.RLock()
	defer from.use.RUnlock()
	if err := from.usable(); err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	if err := from.d.settle("push", from); err != nil {
		return err
	}
	// Either device may be the one that copies: both get at both.
	direct := from.openTo(d) && to.openTo(from.d)
	return d.stream(ctx, "pull", nil, n, func(l *lane, at, n int64) (int64, error) {
		n = min(n, peerBytes)
		a, b := to.pointer(toOff+at), from.pointer(fromOff+at)
		if direct {
			return n, d.cu.OnDevice(a, b, n, l.stream)
		}
		return n, d.cu.Between(a, d.ctx, b, from.d.ctx, n, l.stream)
	})
}

// openTo lets another GPU of the process at a segment, and tells whether it can be.
func (s *Segment) openTo(other *Driver) bool {
	s.opened.Lock()
	defer s.opened.Unlock()
	if open, known := s.peers[other.dev]; known {
		return open
	}
	open := other.reaches(s.d.dev) && s.d.control.do(func() error { return s.d.cu.Access(s.at, s.bytes, other.dev, true) }) == nil
	if s.peers == nil {
		s.peers = map[api.Device]bool{}
	}
	s.peers[other.dev] = open
	return open
}

// reaches tells whether this GPU gets at another's memory directly.
func (d *Driver) reaches(other api.Device) bool {
	can, err := d.cu.CanAccess(d.dev, other)
	return err == nil && can
}

// peers names those that reach this GPU's memory directly.
func (r *Runtime) peers(d api.Device, c *Config) ([]string, error) {
	others := c.Others
	if others == nil {
		n, err := r.cu.Count()
		if err != nil {
			return nil, err
		}
		others = map[string]int{}
		for i := range n {
			others[fmt.Sprintf("gpu-%d", i)] = i
		}
	}
	var out []string
	for id, ordinal := range others {
		if ordinal == c.Ordinal {
			continue
		}
		other, err := r.cu.Device(ordinal)
		if err != nil {
			return nil, err
		}
		if can, err := r.cu.CanAccess(other, d); err == nil && can {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out, nil
}
