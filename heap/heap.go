package heap

// SegmentID names a segment. The caller chooses it.
type SegmentID uint64

// Block is a range of a segment that was granted.
type Block struct {
	Segment SegmentID
	Offset  int64 // bytes from the segment's start
	Bytes   int64 // granted, at least Asked
	Asked   int64 // requested; only the figure of internal waste depends on it; 0 means all of Bytes
}

// Kind says where a grant would lie.
type Kind uint8

const (
	// InSegment: in a segment that the owner already has.
	InSegment Kind = iota
	// Pooled: in segments of the pool, as far as More and Create don't add to them.
	Pooled
	// Create: in segments that must be made first.
	Create
)

// Placement is where a grant would lie now.
type Placement struct {
	Kind       Kind
	Segment    SegmentID   // InSegment, Pooled: the (first) segment
	More       []SegmentID // Pooled, grants above MaxSegmentBytes only: the further pooled segments, in order
	Create     []int64     // bytes of the segments to make; they follow Segment and More in the grant's order
	NeedsClear bool        // at least one pooled segment holds another owner's bytes; ask Foreign of each
	Whole      bool        // the grant takes whole segments: AllocWhole, not Alloc
	BlockBytes int64       // what will be granted in all
}
