package heap

// sums are the figures kept up to date by every change.
type sums struct {
	bytes   int64 // of all segments
	used    int64 // in blocks
	waste   int64 // in blocks, beyond what was asked
	pooled  int64 // in idle segments, those set aside included
	idle    int   // segments within the pool's reach
	free    int   // free spans of owners' segments
	largest uint32
	stale   bool // largest may be too large
}

// Stats are the figures of a heap, in bytes where the name does not say
// otherwise. SegmentBytes = UsedBytes + SlackBytes + PooledBytes.
type Stats struct {
	Segments     int
	SegmentBytes int64 // all of them
	UsedBytes    int64 // in blocks
	SlackBytes   int64 // free inside owners' segments: only their owners can have it
	PooledBytes  int64 // in idle segments

	FreeBlocks              int     // free ranges of owners' segments
	LargestFree             int64   // the largest of them
	FragmentationPercentage float64 // 100 × (1 − LargestFree / SlackBytes); 0 where nothing is free
	InternalWaste           int64   // in blocks, beyond what was asked for
}

// Stats gives the figures, in constant time but for the first call after the
// largest free range went, which looks at every owner.
func (h *Heap) Stats() Stats {
	if h.sums.stale {
		h.sums.largest, h.sums.stale = h.largest(), false
	}
	s := Stats{
		Segments:      len(h.segments),
		SegmentBytes:  h.sums.bytes,
		UsedBytes:     h.sums.used,
		SlackBytes:    h.sums.bytes - h.sums.used - h.sums.pooled,
		PooledBytes:   h.sums.pooled,
		FreeBlocks:    h.sums.free,
		LargestFree:   int64(h.sums.largest) * h.cfg.UnitBytes,
		InternalWaste: h.sums.waste,
	}
	if s.SlackBytes > 0 {
		s.FragmentationPercentage = 100 * (1 - float64(s.LargestFree)/float64(s.SlackBytes))
	}
	return s
}

// OwnerBytes are the bytes of an owner's segments: what it has in blocks, and what nobody
// else can have beside them.
func (h *Heap) OwnerBytes(owner string) int64 {
	if o := h.owners[owner]; o != nil {
		return o.bytes
	}
	return 0
}

func (h *Heap) largest() (n uint32) {
	for _, o := range h.owners {
		n = max(n, h.free.largest(&o.free))
	}
	return n
}
