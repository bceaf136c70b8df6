package heap

import "math/bits"

// table finds the span of a granted block from its segment's id and its offset: open
// addressing, each entry with the hash that led to it, so that neither growing nor taking
// out looks at spans. Hashes are spread by multiplication; ids and offsets are the node's
// own, not a client's.
type table struct {
	slots []uint64 // hash and span; 0 is empty
	shift uint32   // a hash's slot is its highest bits
	n     int
}

const leastSlots = 64

func (t *table) init() { t.resize(leastSlots) }

func (t *table) resize(to int) {
	old := t.slots
	t.slots = make([]uint64, to)
	t.shift = uint32(33 - bits.Len32(uint32(to)))
	for _, e := range old {
		if e != 0 {
			t.put(e)
		}
	}
}

func hashOf(id SegmentID, off uint32) uint32 {
	h := (uint64(id)*0x9e3779b97f4a7c15 ^ uint64(off)) * 0xd6e8feb86659fd93
	return uint32(h >> 32)
}

func (t *table) put(e uint64) {
	mask := len(t.slots) - 1
	i := int(uint32(e>>32) >> t.shift)
	for t.slots[i&mask] != 0 {
		i++
	}
	t.slots[i&mask] = e
}

// add notes the block of span x.
func (t *table) add(id SegmentID, off, x uint32) {
	if 4*(t.n+1) > 3*len(t.slots) {
		t.resize(2 * len(t.slots))
	}
	t.n++
	t.put(uint64(hashOf(id, off))<<32 | uint64(x))
}

// find gives the slot of a block of an owned segment, and its span; 0 where there is none.
func (t *table) find(s *spans, seg *segment, off uint32) (at int, x uint32) {
	mask := len(t.slots) - 1
	h := hashOf(seg.id, off)
	for i := int(h >> t.shift); ; i++ {
		e := t.slots[i&mask]
		if e == 0 {
			return 0, 0
		}
		if uint32(e>>32) == h {
			if x := uint32(e); s.all[x].off == off && s.all[x].seg == seg.place {
				return i & mask, x
			}
		}
	}
}

// remove empties a slot. What stands behind it moves up where it could stand there: no
// search ends too early.
func (t *table) remove(at int) {
	mask := len(t.slots) - 1
	for i := (at + 1) & mask; t.slots[i] != 0; i = (i + 1) & mask {
		home := int(uint32(t.slots[i]>>32) >> t.shift)
		if (i-home)&mask >= (i-at)&mask {
			t.slots[at] = t.slots[i]
			at = i
		}
	}
	t.slots[at] = 0
	t.n--
}
