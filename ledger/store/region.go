package store

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Kind says what a record is. Its meaning is the caller's; all values are valid.
type Kind uint16

// RecID names a record of one region from its insertion to its deletion; then
// the id may be given to another record. Zero names none.
type RecID uint32

// Region is a store of records in a slice of memory. See the package comment
// for its contract; it is not safe for concurrent use.
type Region struct {
	mem     []byte
	label   string
	last    uint64 // the last committed transaction
	recs    []rec  // by id-1: every record the table ever held, live or not
	free    []RecID
	live    int
	payload int64 // bytes of the live payloads
	arena   arena
	tx      Tx
	observe func(store int)
	stores  int
}

// rec is what the writer knows of a record without reading the region.
type rec struct {
	pos    uint32
	length uint32
	op     uint32 // 1 + index of the pending change in the open transaction
	kind   Kind
	slot   uint8 // the slot in force
	live   bool
}

// Stats are the figures of a region.
type Stats struct {
	Records       int    // live records
	PayloadBytes  int64  // their payloads, as given
	UsedBytes     int64  // header, the table at its largest, extents in use
	TouchedBytes  int64  // the part of the region that was ever in use and not given back: bounds the resident bytes
	CapacityBytes int64  // the whole region
	Transactions  uint64 // committed since Format
}

// Format makes a region of zeroed memory (a fresh memfd) and names it. The
// magic number is stored last: a writer that dies before leaves memory that Open
// calls ErrUnformatted.
func Format(mem []byte, label string) (*Region, error) {
	if err := checkMemory(mem); err != nil {
		return nil, err
	}
	if len(label) > MaxLabelBytes {
		return nil, fmt.Errorf("store: a label of %d bytes is longer than %d", len(label), MaxLabelBytes)
	}
	for _, b := range mem[:headerBytes] {
		if b != 0 {
			return nil, ErrNotZero
		}
	}
	*word(mem, offVersion) = Version
	*word(mem, offSize) = uint64(len(mem))
	*word(mem, offLabelBytes) = uint64(len(label))
	copy(mem[offLabel:], label)
	*word(mem, offHeaderSum) = headerSum(mem)
	*word(mem, offCommit) = seal(0)
	*word(mem, offTable) = seal(0)
	atomic.StoreUint64(word(mem, offMagic), magic)
	r := &Region{mem: mem, label: label}
	r.arena.limit = r.arenaLimit(0)
	return r, nil
}

// Unfinished reports whether the memory's writer died inside Format, or before it. It
// clears what that writer left, so that Format takes the memory again.
func Unfinished(mem []byte) bool {
	if checkMemory(mem) != nil || atomic.LoadUint64(word(mem, offMagic)) != 0 {
		return false
	}
	clear(mem[:headerBytes])
	return true
}

// Open reads a region that a writer left, calls visit for every record in the
// order of their ids, and returns the region ready for the next transaction. The
// payload is valid during the call only. An error of visit ends Open and is
// returned as it is.
//
// The whole image is checked before its first change (the scrubbing of what an
// unfinished transaction wrote) and before the first call of visit.
func Open(mem []byte, visit func(id RecID, kind Kind, payload []byte) error) (*Region, error) {
	return open(mem, visit, nil)
}

func open(mem []byte, visit func(RecID, Kind, []byte) error, observe func(int)) (*Region, error) {
	if err := checkMemory(mem); err != nil {
		return nil, err
	}
	label, err := checkHeader(mem)
	if err != nil {
		return nil, err
	}
	r := &Region{mem: mem, label: label, observe: observe}
	last, ok := unseal(atomic.LoadUint64(word(mem, offCommit)))
	if !ok {
		return nil, corrupt(offCommit, "the commit word does not match its check")
	}
	n, ok := unseal(*word(mem, offTable))
	if !ok || n > uint64((len(mem)-headerBytes)/recordBytes) {
		return nil, corrupt(offTable, "the length of the table is impossible")
	}
	r.last = last
	scrub, err := r.readTable(uint32(n))
	if err != nil {
		return nil, err
	}
	if err := r.rebuildArena(); err != nil {
		return nil, err
	}
	for _, off := range scrub {
		r.store(off, 0)
	}
	for i := range slices.Backward(r.recs) {
		if !r.recs[i].live {
			r.free = append(r.free, RecID(i+1))
		}
	}
	if visit == nil {
		return r, nil
	}
	for i := range r.recs {
		if c := &r.recs[i]; c.live {
			if err := visit(RecID(i+1), c.kind, extent(mem, c.pos, c.length)); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// readTable fills recs from the slots in force and lists the offsets of the
// slots that an unfinished transaction wrote.
func (r *Region) readTable(n uint32) (scrub []int, err error) {
	r.recs = make([]rec, n)
	for i := range r.recs {
		id := RecID(i + 1)
		a, b := r.readSlot(id, 0), r.readSlot(id, 1)
		for which, s := range [...]*slot{&a, &b} {
			if s.tx == r.last+1 {
				scrub = append(scrub, slotOffset(id, which))
				s.tx = 0
			}
			if s.tx > r.last {
				return nil, corrupt(slotOffset(id, which), "a slot is newer than any transaction can be")
			}
		}
		if a.tx == b.tx {
			if a.tx != 0 {
				return nil, corrupt(slotOffset(id, 0), "both slots carry the same transaction")
			}
			r.recs[i].slot = 1 // never written: the first write goes to slot 0
			continue
		}
		s, which := a, 0
		if b.tx > a.tx {
			s, which = b, 1
		}
		if err := r.adopt(id, s, which); err != nil {
			return nil, err
		}
	}
	return scrub, nil
}

// adopt checks the slot in force and takes it into recs.
func (r *Region) adopt(id RecID, s slot, which int) error {
	off := slotOffset(id, which)
	c := &r.recs[id-1]
	c.slot = uint8(which)
	room := uint64(len(r.mem)-tableEnd(uint32(len(r.recs)))) / granule
	switch {
	case s.state != stateLive && s.state != stateTombstone:
		return corrupt(off, "a slot is neither live nor a tombstone")
	case s.state == stateTombstone && s.length != 0:
		return corrupt(off, "a tombstone has a payload")
	case uint64(s.pos)+(uint64(s.length)+granule-1)/granule > room:
		return corrupt(off, "a payload lies outside the arena")
	}
	payload := extent(r.mem, s.pos, s.length)
	if s.sum != s.checksum(id, payload) {
		return corrupt(off, "a record's checksum does not match")
	}
	if s.state == stateLive {
		c.live, c.kind, c.pos, c.length = true, s.kind, s.pos, s.length
		r.live++
		r.payload += int64(s.length)
	}
	return nil
}

// rebuildArena derives the free extents from the live records: they are never
// written down.
func (r *Region) rebuildArena() error {
	used := make([]span, 0, r.live)
	for i := range r.recs {
		if c := &r.recs[i]; c.live && c.length > 0 {
			used = append(used, span{pos: c.pos, n: granules(c.length)})
		}
	}
	slices.SortFunc(used, func(a, b span) int { return int(int64(a.pos) - int64(b.pos)) })
	for i := 1; i < len(used); i++ {
		if used[i-1].pos+used[i-1].n > used[i].pos {
			return corrupt(len(r.mem)-int(used[i].pos)*granule, "two payloads overlap")
		}
	}
	r.arena.limit = r.arenaLimit(uint32(len(r.recs)))
	r.arena.rebuild(used)
	return nil
}

// arenaLimit is how many granules the arena may have while the table holds n
// records.
func (r *Region) arenaLimit(n uint32) uint32 {
	end := tableEnd(n)
	if end > len(r.mem) {
		return 0
	}
	return uint32((len(r.mem) - end) / granule)
}

// Label is the name given to Format.
func (r *Region) Label() string { return r.label }

// Read gives a committed record. The payload points into the region and is
// valid until the next Commit.
func (r *Region) Read(id RecID) (kind Kind, payload []byte, ok bool) {
	if !r.isLive(id) {
		return 0, nil, false
	}
	c := &r.recs[id-1]
	return c.kind, extent(r.mem, c.pos, c.length), true
}

func (r *Region) isLive(id RecID) bool {
	return id != 0 && uint64(id) <= uint64(len(r.recs)) && r.recs[id-1].live
}

// Stats gives the figures of the committed state, in constant time.
func (r *Region) Stats() Stats {
	table := int64(tableEnd(uint32(len(r.recs))))
	return Stats{
		Records:       r.live,
		PayloadBytes:  r.payload,
		UsedBytes:     table + int64(r.arena.used)*granule,
		TouchedBytes:  table + int64(r.arena.top)*granule,
		CapacityBytes: int64(len(r.mem)),
		Transactions:  r.last,
	}
}

// SetObserver has f called after every store to the region's memory, with a
// count of them. It is for tests that cut the image there; while it is set,
// payloads are written in small pieces so that they are cut too.
func (r *Region) SetObserver(f func(store int)) { r.observe = f }

// store writes one aligned word.
func (r *Region) store(off int, v uint64) {
	*word(r.mem, off) = v
	if r.observe != nil {
		r.observed()
	}
}

func (r *Region) observed() {
	r.stores++
	r.observe(r.stores)
}

// observedPiece is the most bytes of a payload between two observations.
const observedPiece = 32

// write copies a payload into a free extent.
func (r *Region) write(dst, src []byte) {
	for r.observe != nil && len(src) > observedPiece {
		copy(dst, src[:observedPiece])
		dst, src = dst[observedPiece:], src[observedPiece:]
		r.observed()
	}
	copy(dst, src)
	if r.observe != nil {
		r.observed()
	}
}
