//go:build linux

package hostram

import (
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/internal/memfd"
)

// TryBind says why memory cannot be bound to a NUMA node by this process, and what would
// change that; nil where it can.
func TryBind(node int) error { return memfd.TryBind(node) }

// NodesOf counts the bytes of a segment by the NUMA node that they lie on, by asking the
// kernel for each page. It is for tests and measurements: it maps the whole segment, piece
// by piece.
func (d *Driver) NodesOf(s device.Segment) (map[int]int64, error) { return d.store.NodesOf(s) }
