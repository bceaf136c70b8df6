package dataplane

import (
	"os"

	"github.com/isobar-project/isobar/dataplane/internal/wire"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

// part is one message of an answer, with its files.
type part struct {
	packet fdwire.Packet
	files  []*os.File
}

// split makes the messages of a mapping, with its tensors as kept has them. Files move to the parts.
func split(id uint64, m *Mapping, kept *tables) ([]part, error) {
	tables, err := kept.packed(m.Tensors)
	if err != nil {
		return nil, err
	}
	var parts []part
	segments := m.Segments
	for len(parts) < len(tables) || len(segments) > 0 {
		answer := wire.Mapped{
			Type: wire.TypeMapped, ID: id, AllocationID: m.AllocationID, Kind: m.Kind, DeviceUUID: m.DeviceUUID, SizeBytes: m.SizeBytes,
			Segments: []schemas.Segment{}, Tensors: noTensors,
		}
		var p part
		for ; len(segments) > 0 && len(p.files) < wire.MaxSegments; segments = segments[1:] {
			s := &segments[0]
			answer.Segments = append(answer.Segments, schemas.Segment{
				FD: len(p.files), SegmentBytes: s.SegmentBytes, Offset: s.Offset, SizeBytes: s.SizeBytes,
			})
			p.files = append(p.files, s.File)
		}
		if n := len(parts); n < len(tables) {
			answer.Tensors = tables[n]
		}
		answer.More = len(segments) > 0 || len(parts)+1 < len(tables)
		if p.packet, err = fdwire.Encode(&answer); err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}
