package ledger

// books are the sums of a device: one identity (design.md, Bytes).
//
//	used = granted + reserved + promised + revoking + zombie + astray + foreign
//	free = limit − used − pooled − slack − warming
//
// promised bytes belong to requests that have been decided but whose memory workers
// are still preparing; the contract shows them as reserved, and what is not used but
// held (pooled, slack, warming) as pooled.
type books struct {
	limit    int64
	granted  int64
	models   int64 // the part of granted, revoking and zombie that is weights
	leaving  int64 // the part of revoking that is weights
	reserved int64
	promised int64
	revoking int64
	zombie   int64
	astray   int64 // zombies too: destroyed segments that no grant has, and that are not back
	foreign  int64
	pooled   int64 // idle whole segments, given up before anything is refused
	slack    int64 // free parts of owners' segments: only their owners can have them
	warming  int64 // segments being made for the pool
	aside    int64 // the part of pooled that is being cleared in the background
	doomed   int64 // the part of pooled that is already on its way back
}

func (b *books) used() int64 {
	return b.granted + b.reserved + b.promised + b.revoking + b.zombie + b.astray + b.foreign
}

func (b *books) free() int64 { return b.limit - b.used() - b.pooled - b.slack - b.warming }

// spare is what a newcomer could be given without taking anything from anybody: it may
// be negative where the limit was lowered or others grew.
func (b *books) spare() int64 { return b.limit - b.used() - b.slack }

// atOnce is idle memory that can be given back now: neither going already nor being cleared.
func (b *books) atOnce() int64 { return b.pooled - b.doomed - b.aside }

// Figures is what a device knows of its bytes at one moment:
//
//	Used = Granted + Reserved + Revoking + Zombie + Foreign
//	Limit = Used + Free + Pooled
//
// Models are a part of Used: those that are being made are among them.
// Free is negative where more is used than the limit, which may be lowered at any time.
type Figures struct {
	Limit, Physical, Used, Free, Available int64
	Granted, Reserved, Revoking, Zombie    int64
	Foreign, Pooled, Reclaimable, Models   int64
	Largest, Deficit                       int64
	Segments                               int64 // bytes of all our segments that exist
	Waiting                                int
	Grants                                 int
	Fragmentation                          float64
}

// Figures reports the sums of now.
func (d *Device) Figures() Figures {
	b := &d.books
	// What is kept for floors counts as reserved. The pool is given up for them as for
	// anybody: so much of it is not shown twice.
	floors := d.floors("")
	used := b.used() + floors
	pooled := b.pooled + b.slack + b.warming - min(max(0, floors-max(0, b.free())), b.pooled+b.warming)
	h := d.heap.Stats()
	return Figures{
		Limit: b.limit, Physical: d.cfg.Physical, Used: used, Free: b.limit - used - pooled,
		Available: max(0, b.limit-used+d.reclaimable),
		Granted:   b.granted, Reserved: b.reserved + b.promised + floors, Revoking: b.revoking,
		Zombie: b.zombie + b.astray, Foreign: b.foreign, Pooled: pooled,
		Reclaimable: d.reclaimable, Models: b.models + d.promisedWeights(),
		Largest: max(0, b.spare()-floors), Deficit: d.deficit(),
		Segments: h.SegmentBytes + b.doomed + b.astray,
		Waiting:  d.line.Len() + d.heldCount(), Grants: len(d.grants),
		Fragmentation: h.FragmentationPercentage,
	}
}

// deficit is what the head of the queue lacks once the idle memory is given up.
func (d *Device) deficit() int64 {
	s := d.line.Head()
	if s == nil {
		return 0
	}
	r := s.Of
	return max(0, r.need-d.spareFor(r))
}
