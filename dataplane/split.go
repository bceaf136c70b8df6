package dataplane

import (
	"fmt"
	"os"

	"github.com/isobar-project/isobar/dataplane/internal/wire"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

// partBytes is what a part's segments and tensors may come to by tensorBytes'
// reckoning, which is never below what encoding makes of them.
const partBytes = fdwire.MaxFrameBytes - 64<<10

// segmentBytes bounds an encoded segment: four names and numbers.
const segmentBytes = 80

// tensorBytes bounds what a tensor takes in a message.
func tensorBytes(t *schemas.Tensor) int {
	const namesAndNumbers = 100
	return namesAndNumbers + len(t.Name) + len(t.DType) + 9*len(t.Shape)
}

// part is one message of an answer, with its files.
type part struct {
	packet fdwire.Packet
	files  []*os.File
}

// split makes the messages of a mapping. Files move to the parts.
func split(id uint64, m *Mapping) ([]part, error) {
	var parts []part
	segments, tensors := m.Segments, m.Tensors
	for first := true; first || len(segments) > 0 || len(tensors) > 0; first = false {
		answer := wire.Mapped{
			Type: wire.TypeMapped, ID: id, AllocationID: m.AllocationID, Kind: m.Kind, DeviceUUID: m.DeviceUUID, SizeBytes: m.SizeBytes,
			Segments: []schemas.Segment{}, Tensors: []schemas.Tensor{},
		}
		var p part
		room := partBytes
		for ; len(segments) > 0 && len(p.files) < wire.MaxSegments; segments = segments[1:] {
			s := &segments[0]
			answer.Segments = append(answer.Segments, schemas.Segment{
				FD: len(p.files), SegmentBytes: s.SegmentBytes, Offset: s.Offset, SizeBytes: s.SizeBytes,
			})
			p.files = append(p.files, s.File)
			room -= segmentBytes
		}
		n := 0
		for n < len(tensors) {
			if room -= tensorBytes(&tensors[n]); room < 0 {
				break
			}
			n++
		}
		if n == 0 && len(p.files) == 0 && len(tensors) > 0 {
			return nil, fmt.Errorf("tensor with a name of %d bytes fits no message", len(tensors[0].Name))
		}
		answer.Tensors, tensors = append(answer.Tensors, tensors[:n]...), tensors[n:]
		answer.More = len(segments) > 0 || len(tensors) > 0
		var err error
		if p.packet, err = fdwire.Encode(&answer); err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}
