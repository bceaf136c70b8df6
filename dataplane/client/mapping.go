package client

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/schemas"
)

// Mode says how to map a grant.
type Mode string

// The modes. Weights can be mapped read-only alone.
const (
	ReadOnly  Mode = "ro"
	ReadWrite Mode = "rw"
)

// Mapping is a grant in this process's memory.
type Mapping struct {
	AllocationID string
	// Kind is memfd or cuda_vmm.
	Kind       string
	DeviceUUID string
	SizeBytes  int64
	// Segments, one after the other, are the grant's bytes.
	Segments []Segment
	// Tensors of a model.
	Tensors []schemas.Tensor

	mode Mode
}

// Segment is one piece of a mapping.
type Segment struct {
	// Bytes are the grant's bytes in this segment; nil for memory of a GPU.
	Bytes []byte
	// File imports memory of a GPU with its driver; nil for memfd. Closed by Unmap.
	File *os.File
	// SegmentBytes, Offset and SizeBytes: the grant has SizeBytes from Offset on of a
	// segment of SegmentBytes.
	SegmentBytes, Offset, SizeBytes int64

	whole []byte // what was mapped: from a page's beginning
}

// Tensor returns the bytes of a tensor; nil if there is none of that name or its
// memory is a GPU's.
func (m *Mapping) Tensor(name string) []byte {
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if t.Name != name || t.Segment < 0 || t.Segment >= len(m.Segments) {
			continue
		}
		b := m.Segments[t.Segment].Bytes
		if t.Offset < 0 || t.SizeBytes < 0 || t.Offset > int64(len(b))-t.SizeBytes {
			return nil
		}
		return b[t.Offset : t.Offset+t.SizeBytes : t.Offset+t.SizeBytes]
	}
	return nil
}

// add maps one segment. The file is consumed.
func (m *Mapping) add(s schemas.Segment, f *os.File) error {
	seg := Segment{SegmentBytes: s.SegmentBytes, Offset: s.Offset, SizeBytes: s.SizeBytes}
	if f == nil {
		return fmt.Errorf("segment %d names descriptor %d, which did not come", len(m.Segments), s.FD)
	}
	if s.Offset < 0 || s.SizeBytes <= 0 || s.SegmentBytes < s.SizeBytes || s.Offset > s.SegmentBytes-s.SizeBytes {
		_ = f.Close()
		return fmt.Errorf("segment %d: bytes %d to %d+%d of %d", len(m.Segments), s.Offset, s.Offset, s.SizeBytes, s.SegmentBytes)
	}
	if m.Kind != string(schemas.HandleMemfd) {
		seg.File = f
		m.Segments = append(m.Segments, seg)
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < s.Offset+s.SizeBytes {
		// Touching what lies behind the file's end would be a fatal signal.
		return fmt.Errorf("segment %d: its file has %d bytes, not %d", len(m.Segments), st.Size(), s.Offset+s.SizeBytes)
	}
	prot := unix.PROT_READ
	if m.mode == ReadWrite {
		prot |= unix.PROT_WRITE
	}
	page := int64(os.Getpagesize())
	start := s.Offset / page * page
	skip := s.Offset - start
	seg.whole, err = unix.Mmap(int(f.Fd()), start, int(skip+s.SizeBytes), prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("segment %d: mmap: %w", len(m.Segments), err)
	}
	seg.Bytes = seg.whole[skip : skip+s.SizeBytes : skip+s.SizeBytes]
	m.Segments = append(m.Segments, seg)
	return nil
}

// unmap takes the memory away.
func (m *Mapping) unmap() error {
	var errs []error
	for i := range m.Segments {
		s := &m.Segments[i]
		if s.whole != nil {
			errs = append(errs, unix.Munmap(s.whole))
		}
		if s.File != nil {
			errs = append(errs, s.File.Close())
		}
	}
	m.Segments = nil
	return errors.Join(errs...)
}
