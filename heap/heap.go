package heap

import (
	"fmt"
	"math/bits"
	"slices"
)

// SegmentID names a segment. The caller chooses it.
type SegmentID uint64

// Block is a range of a segment that was granted.
type Block struct {
	Segment SegmentID
	Offset  int64 // bytes from the segment's start
	Bytes   int64 // granted
	// Asked is what was requested, at most Bytes; zero means all of Bytes. Only
	// the figure of internal waste depends on it.
	Asked int64
}

// Config are the settings of a heap. A field's zero means its default.
type Config struct {
	// GranularityBytes is what segment sizes are multiples of: the driver's.
	// Default 4 KiB, the page of host memory.
	GranularityBytes int64
	// Classes are the sizes of the warm pools, ascending. Those below the
	// granularity or no multiple of it are left out. Default 1, 4, 16 and 64 MiB.
	Classes []int64
	// OwnSegmentBytes is the least grant that gets segments of its own whatever
	// it wastes. Default 16 MiB: rounding to 2 MiB wastes at most an eighth.
	OwnSegmentBytes int64
	// MaxSegmentBytes is the largest segment to make; larger grants are several
	// segments in order. Default 1 GiB.
	MaxSegmentBytes int64
	// MaxWaste is the largest share of a request by which a whole segment may
	// exceed it. Default 0.125; negative: none.
	MaxWaste float64
	// UnitBytes is what block sizes and offsets are multiples of, a power of two
	// and a divisor of the granularity. Default 256, the alignment that GPU
	// allocators promise.
	UnitBytes int64
}

const (
	mib = 1 << 20
	// maxUnits bounds a segment: offsets are kept in 32 bits.
	maxUnits = 1 << 31
	// slabFactor is how many blocks of the size that needed it a new slab holds
	// at least.
	slabFactor = 4
)

// withDefaults fills in what is zero and drops the classes that can't be.
func (c Config) withDefaults() Config {
	if c.GranularityBytes == 0 {
		c.GranularityBytes = 4096
	}
	if c.OwnSegmentBytes == 0 {
		c.OwnSegmentBytes = 16 * mib
	}
	if c.MaxSegmentBytes == 0 {
		c.MaxSegmentBytes = 1 << 30
	}
	if c.UnitBytes == 0 {
		c.UnitBytes = 256
	}
	switch {
	case c.MaxWaste == 0:
		c.MaxWaste = 0.125
	case c.MaxWaste < 0:
		c.MaxWaste = 0
	}
	classes := c.Classes
	if len(classes) == 0 {
		classes = []int64{1 * mib, 4 * mib, 16 * mib, 64 * mib}
	}
	c.Classes = nil
	for _, b := range classes {
		if c.GranularityBytes > 0 && b >= c.GranularityBytes && b%c.GranularityBytes == 0 {
			c.Classes = append(c.Classes, b)
		}
	}
	return c
}

// Validate says what is wrong with the settings, defaults filled in.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.UnitBytes < 1 || c.UnitBytes&(c.UnitBytes-1) != 0:
		return fmt.Errorf("heap: unit of %d bytes is not a power of two", c.UnitBytes)
	case c.GranularityBytes < 1 || c.GranularityBytes%c.UnitBytes != 0:
		return fmt.Errorf("heap: granularity of %d bytes is not a multiple of the unit, %d", c.GranularityBytes, c.UnitBytes)
	case c.MaxSegmentBytes < c.GranularityBytes || c.MaxSegmentBytes%c.GranularityBytes != 0:
		return fmt.Errorf("heap: largest segment of %d bytes is not a multiple of the granularity, %d", c.MaxSegmentBytes, c.GranularityBytes)
	case c.MaxSegmentBytes/c.UnitBytes > maxUnits:
		return fmt.Errorf("heap: largest segment of %d bytes has over %d units", c.MaxSegmentBytes, maxUnits)
	case c.OwnSegmentBytes < 1:
		return fmt.Errorf("heap: own segments from %d bytes on", c.OwnSegmentBytes)
	case c.MaxWaste > 1:
		return fmt.Errorf("heap: waste of %v is more than the request itself", c.MaxWaste)
	case !slices.IsSorted(c.Classes) || len(slices.Compact(slices.Clone(c.Classes))) != len(c.Classes):
		return fmt.Errorf("heap: classes %v are not ascending", c.Classes)
	case len(c.Classes) > 0 && c.Classes[len(c.Classes)-1] > c.MaxSegmentBytes:
		return fmt.Errorf("heap: the class of %d bytes is over the largest segment, %d", c.Classes[len(c.Classes)-1], c.MaxSegmentBytes)
	}
	return nil
}

// Heap is the heap of one device. See the package comment for its contract.
type Heap struct {
	cfg      Config
	segments map[SegmentID]*segment
	recent   *segment // the one that lookup found last
	owners   map[string]*owner
	asked    *owner    // the one that party found last
	spare    []*owner  // owners without a segment, to be used again
	sizes    []*bucket // one for each size of a segment there is and each class, ascending
	dirty    list      // pooled segments to clear, the longest idle first
	spans    spans
	free     index // of the free spans
	found    found
	sums     sums
	shift    uint // bytes are units shifted left by it: a division would take longer than a step of a search
}

// found is the free span that Place found last, for which wish, and where it is in the index;
// when the placement is carried out it is asked for again. Every change of a free span forgets it.
type found struct {
	at          cursor // zero: none
	e           entry
	size, align int64
	n, a        uint32 // the wish in units
}

// New makes an empty heap. Settings that Validate refuses make it panic.
func New(cfg Config) *Heap {
	if err := cfg.Validate(); err != nil {
		panic(err.Error())
	}
	h := &Heap{
		cfg:      cfg.withDefaults(),
		segments: map[SegmentID]*segment{},
		owners:   map[string]*owner{},
		dirty:    list{kind: byAge},
	}
	h.shift = uint(bits.TrailingZeros64(uint64(h.cfg.UnitBytes)))
	h.spans.init()
	h.free.init()
	for _, b := range h.cfg.Classes {
		h.bucket(b).class = true
	}
	return h
}

// Config gives the settings in force, defaults filled in.
func (h *Heap) Config() Config {
	c := h.cfg
	c.Classes = slices.Clone(c.Classes)
	return c
}

// owner is a party with segments, or whose bytes pooled segments still hold.
type owner struct {
	name     string
	segments int    // it has, or was the last to have
	bytes    int64  // of the segments it has
	free     shelf  // its free ranges
	pooled   []list // idle segments that hold its bytes, one list for each size
}

// party finds an owner, or nil. Who asks often asks again.
func (h *Heap) party(name string) *owner {
	if h.asked != nil && h.asked.name == name {
		return h.asked
	}
	o := h.owners[name]
	if o != nil {
		h.asked = o
	}
	return o
}

func (h *Heap) owner(name string) *owner {
	if o := h.party(name); o != nil {
		return o
	}
	var o *owner
	if n := len(h.spare); n > 0 {
		o, h.spare = h.spare[n-1], h.spare[:n-1]
	} else {
		o = &owner{}
	}
	o.name = name
	h.owners[name] = o
	return o
}

// leave drops one segment's reference to its owner.
func (h *Heap) leave(o *owner) {
	if o.segments--; o.segments > 0 {
		return
	}
	delete(h.owners, o.name)
	if h.asked == o {
		h.asked = nil
	}
	o.name, o.bytes, o.pooled = "", 0, o.pooled[:0]
	h.spare = append(h.spare, o)
}

// changed ends every change; in an invariants build it walks the heap.
func (h *Heap) changed() {
	if invariants {
		if err := h.Check(); err != nil {
			panic(err.Error())
		}
	}
}

func misuse(format string, args ...any) {
	panic("heap: " + fmt.Sprintf(format, args...))
}
