package weightstest

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/isobar-project/isobar/weights"
)

// Memory is a weights.Sink of plain bytes.
type Memory struct {
	Segments [][]byte
	// Before, if set, is called at the start of every Fill; its error ends it.
	Before func(ctx context.Context, r weights.Read) error
}

// NewMemory has the segments of a layout, all bytes zero and already touched.
func NewMemory(l *weights.Layout) *Memory {
	m := &Memory{}
	for _, s := range l.Segments {
		b := make([]byte, s.Bytes)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 0
		}
		m.Segments = append(m.Segments, b)
	}
	return m
}

// Fill implements weights.Sink.
func (m *Memory) Fill(ctx context.Context, segment int, off int64, f *os.File, fileOff, n int64) error {
	if m.Before != nil {
		if err := m.Before(ctx, weights.Read{FileOffset: fileOff, Segment: segment, Offset: off, Bytes: n}); err != nil {
			return err
		}
	}
	if segment < 0 || segment >= len(m.Segments) || off < 0 || n < 0 || off > int64(len(m.Segments[segment]))-n {
		return fmt.Errorf("fill of %d bytes at %d lies outside segment %d", n, off, segment)
	}
	got, err := f.ReadAt(m.Segments[segment][off:off+n], fileOff)
	if err == io.EOF && int64(got) < n {
		return io.ErrUnexpectedEOF
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// Tensor is the bytes of a placed tensor, not a copy.
func (m *Memory) Tensor(model *weights.Model, p weights.Placed) []byte {
	n := model.Tensors[p.Tensor].Bytes
	return m.Segments[p.Segment][p.Offset : p.Offset+n : p.Offset+n]
}
