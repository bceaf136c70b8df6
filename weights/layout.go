package weights

import (
	"fmt"
	"math/bits"
)

// LayoutOptions say how a model is cut into segments and reads. Zero means the default.
type LayoutOptions struct {
	// SegmentBytes is the size up to which tensors share a segment. Rounded down to granularity.
	// Default 1 GiB, and of a model above 16 GiB a sixteenth, up to 4 GiB: a handle costs whoever
	// attaches 40 µs (an H100, 2026-11-22), and segments still move one by one.
	SegmentBytes int64
	// Granularity is the device's: every segment is a multiple. Default 4096, a power of two.
	Granularity int64
	// Align is every tensor's alignment in its segment. Default 256, what GPU kernels
	// ask of a base pointer; a power of two up to Granularity.
	Align int64
	// ChunkBytes is the largest single read, and the step at which a load can be
	// cancelled. Default 8 MiB; a power of two.
	ChunkBytes int64
}

// Layout says where in a model's segments every tensor goes and which file ranges
// fill them. It is a pure function of the model's tensors and the options.
type Layout struct {
	Segments []SegmentPlan
	// Placed has one entry for each of the model's tensors, in their order.
	Placed []Placed
	// Reads are disjoint in the segments, cover every tensor's bytes, and may be done
	// in any order. They may also carry the padding that lies between tensors in the file.
	Reads []Read
	// ReadBytes is their sum: what Load's progress ends at.
	ReadBytes int64
}

// SegmentPlan is one segment to create.
type SegmentPlan struct {
	Bytes int64 // a multiple of the granularity
	Used  int64 // up to the end of the last tensor
}

// Placed is a tensor's place. A tensor without bytes is at the start of segment 0.
type Placed struct {
	Tensor  int // index into Model.Tensors
	Segment int
	Offset  int64
}

// Read is one range of a file that goes to one range of a segment.
type Read struct {
	File       int // index into Model.Files
	FileOffset int64
	Segment    int
	Offset     int64
	Bytes      int64
}

// Layout places the tensors in the order of their bytes in the files, so that
// neighbours in a file stay neighbours in a segment and are read at one go. A tensor
// never crosses a segment; one that is larger than SegmentBytes gets a segment of its
// own. Each segment ends with its last tensor, rounded up to granularity, so what is
// wasted is less than one granularity a segment and Align a tensor. A model without
// any bytes gets one segment of one granularity.
//
// It panics on options that are no powers of two where they must be: they are the
// program's, not the user's.
func (m *Model) Layout(o LayoutOptions) *Layout {
	o = o.complete(m.TotalBytes)
	p := placer{options: o, layout: &Layout{Placed: make([]Placed, 0, len(m.Tensors))}}
	for i, t := range m.Tensors {
		p.place(i, t)
	}
	p.closeRun()
	l := p.layout
	for i := range l.Segments {
		l.Segments[i].Bytes = roundUp(l.Segments[i].Used, o.Granularity)
	}
	if len(l.Segments) == 0 {
		l.Segments = []SegmentPlan{{Bytes: o.Granularity}}
	}
	return l
}

func (o LayoutOptions) complete(model int64) LayoutOptions {
	set := func(v *int64, byDefault int64) {
		if *v == 0 {
			*v = byDefault
		}
	}
	set(&o.SegmentBytes, min(max(model/16, 1<<30), 4<<30))
	set(&o.Granularity, 4096)
	set(&o.Align, min(256, o.Granularity))
	set(&o.ChunkBytes, 8<<20)
	for name, v := range map[string]int64{"Granularity": o.Granularity, "Align": o.Align, "ChunkBytes": o.ChunkBytes} {
		if v < 1 || bits.OnesCount64(uint64(v)) != 1 {
			panic(fmt.Sprintf("weights: LayoutOptions.%s is %d, not a power of two", name, v))
		}
	}
	if o.Align > o.Granularity || o.SegmentBytes < 0 {
		panic(fmt.Sprintf("weights: LayoutOptions with Align %d, Granularity %d, SegmentBytes %d", o.Align, o.Granularity, o.SegmentBytes))
	}
	o.SegmentBytes = max(o.SegmentBytes&^(o.Granularity-1), o.Granularity)
	return o
}

// placer holds the run of bytes that is contiguous in file and segment so far.
type placer struct {
	options LayoutOptions
	layout  *Layout
	run     Read
}

func (p *placer) place(i int, t Tensor) {
	l := p.layout
	if t.Bytes == 0 {
		l.Placed = append(l.Placed, Placed{Tensor: i})
		return
	}
	last := len(l.Segments) - 1
	at := int64(0)
	if last >= 0 {
		at = roundUp(l.Segments[last].Used, p.options.Align)
	}
	if last < 0 || at > p.options.SegmentBytes-t.Bytes {
		l.Segments = append(l.Segments, SegmentPlan{})
		last, at = last+1, 0
	}
	l.Segments[last].Used = at + t.Bytes
	l.Placed = append(l.Placed, Placed{Tensor: i, Segment: last, Offset: at})

	// Same distance in file and segment, padding included: one run.
	if r := &p.run; r.Bytes > 0 && r.File == t.File && r.Segment == last && t.FileOffset-r.FileOffset == at-r.Offset {
		r.Bytes = at + t.Bytes - r.Offset
		return
	}
	p.closeRun()
	p.run = Read{File: t.File, FileOffset: t.FileOffset, Segment: last, Offset: at, Bytes: t.Bytes}
}

// closeRun cuts the run into chunks. They end at multiples of ChunkBytes in the
// segment, so that no two workers populate the same huge page but at a run's ends.
func (p *placer) closeRun() {
	l, c := p.layout, p.options.ChunkBytes
	for r := &p.run; r.Bytes > 0; {
		part := *r
		part.Bytes = min(r.Bytes, c-r.Offset%c)
		l.Reads = append(l.Reads, part)
		l.ReadBytes += part.Bytes
		r.FileOffset += part.Bytes
		r.Offset += part.Bytes
		r.Bytes -= part.Bytes
	}
}

// roundUp rounds n up to a multiple of a power of two.
func roundUp(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }
