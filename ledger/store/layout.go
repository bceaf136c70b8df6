package store

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"unsafe"
)

// Version is the version of the format that this package reads and writes. A
// region of another version is not converted in place: an upgrade is a
// take-over, which writes a new region.
const Version = 1

// The header fills the first page. Magic and version stay where they are in
// every version of the format, so that each can name the other.
const (
	headerBytes   = 4096
	offMagic      = 0   // uint64, stored last by Format
	offVersion    = 8   // uint64
	offSize       = 16  // uint64: the length of the whole region
	offLabelBytes = 24  // uint64
	offLabel      = 32  // MaxLabelBytes bytes, the rest zero
	offHeaderSum  = 96  // uint64: crc32c of the bytes from offVersion to here
	offCommit     = 512 // sealed word: number of the last committed transaction
	offTable      = 576 // sealed word: how many records the table ever held

	// MaxLabelBytes is the longest label a region can carry.
	MaxLabelBytes = 64
	// MinBytes is the smallest region: the header and one page.
	MinBytes = 2 * headerBytes

	magic = 0x31_52_47_44_4c_4f_53_49 // "ISOLDGR1", read as a little-endian number
)

// A record is two slots of three words. A slot is
//
//	word 0  number of the transaction that wrote it; 0: never written or scrubbed
//	word 1  payload place: extent (high 32 bits, in granules from the end), length (low 32 bits)
//	word 2  state (16 bits), kind (16 bits), checksum (low 32 bits)
const (
	slotBytes   = 24
	recordBytes = 2 * slotBytes

	stateLive      = 1
	stateTombstone = 2
)

// granule is the unit of the payload arena: a cache line.
const granule = 64

// maxTransaction is the largest number that a sealed word can hold: at a
// million transactions a second it lasts for nine years.
const maxTransaction = 1<<48 - 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal packs a number below 2^48 with a check of itself into one word, so that
// a damaged word is noticed and yet a single store replaces it.
func seal(n uint64) uint64 { return n<<16 | uint64(check16(n)) }

// unseal is the reverse of seal; ok is false for a word that seal never made.
func unseal(w uint64) (n uint64, ok bool) {
	n = w >> 16
	return n, uint16(w) == check16(n)
}

// check16 is not zero for zero, so that zeroed memory is not a sealed word.
func check16(n uint64) uint16 { return uint16(mix(n^0x9e3779b97f4a7c15) >> 48) }

// slot is a slot as read from, or about to be written to, the region.
type slot struct {
	tx     uint64
	pos    uint32 // in granules, from the end of the region
	length uint32 // of the payload, in bytes
	state  uint16
	kind   Kind
	sum    uint32
}

func (s slot) place() uint64  { return uint64(s.pos)<<32 | uint64(s.length) }
func (s slot) detail() uint64 { return uint64(s.state)<<48 | uint64(s.kind)<<32 | uint64(s.sum) }

// checksum covers the payload and everything else that the slot says, the id
// included, so that neither a slot nor a payload can pass for another's.
func (s slot) checksum(id RecID, payload []byte) uint32 {
	h := uint64(crc32.Checksum(payload, castagnoli))
	h = mix(h ^ s.tx)
	h = mix(h ^ s.place())
	h = mix(h ^ uint64(id)<<32 ^ uint64(s.state)<<16 ^ uint64(s.kind))
	return uint32(h >> 32)
}

// mix is the finalizer of MurmurHash3: every bit of x moves half of the result.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// word gives the address of the aligned word at off.
func word(mem []byte, off int) *uint64 { return (*uint64)(unsafe.Pointer(&mem[off])) }

func (r *Region) readSlot(id RecID, which int) slot {
	off := slotOffset(id, which)
	place, detail := *word(r.mem, off+8), *word(r.mem, off+16)
	return slot{
		tx:     *word(r.mem, off),
		pos:    uint32(place >> 32),
		length: uint32(place),
		state:  uint16(detail >> 48),
		kind:   Kind(detail >> 32),
		sum:    uint32(detail),
	}
}

// slotOffset is where a slot lies. Ids start at 1.
func slotOffset(id RecID, which int) int {
	return headerBytes + int(id-1)*recordBytes + which*slotBytes
}

// tableEnd is the first byte after a table of n records.
func tableEnd(n uint32) int { return headerBytes + int(n)*recordBytes }

// granules is how many granules a payload of n bytes takes.
func granules(n uint32) uint32 { return uint32((uint64(n) + granule - 1) / granule) }

// extent is the payload's bytes. Positions count from the end of the region, so
// the first granule of the arena is the region's last.
func extent(mem []byte, pos, length uint32) []byte {
	end := len(mem) - int(pos)*granule
	start := end - int(granules(length))*granule
	return mem[start : start+int(length) : start+int(length)]
}

// checkMemory says whether mem can be a region at all.
func checkMemory(mem []byte) error {
	switch {
	case len(mem) < MinBytes:
		return fmt.Errorf("store: a region of %d bytes is smaller than the least, %d", len(mem), MinBytes)
	case len(mem)%granule != 0:
		return fmt.Errorf("store: a region of %d bytes is not a multiple of %d", len(mem), granule)
	case uint64(len(mem)) > uint64(granule)<<31:
		return fmt.Errorf("store: a region of %d bytes is larger than the format can address", len(mem))
	case uintptr(unsafe.Pointer(&mem[0]))%8 != 0:
		return fmt.Errorf("store: the memory of a region must be aligned to 8 bytes")
	}
	return nil
}

func headerSum(mem []byte) uint64 {
	return uint64(crc32.Checksum(mem[offVersion:offHeaderSum], castagnoli))
}

// checkHeader reads what does not change after Format.
func checkHeader(mem []byte) (label string, err error) {
	if *word(mem, offMagic) != magic {
		if *word(mem, offMagic) == 0 {
			return "", ErrUnformatted
		}
		return "", corrupt(offMagic, "the magic number is not a ledger region's")
	}
	if v := *word(mem, offVersion); v != Version {
		return "", &VersionError{Found: v, Supported: Version}
	}
	if *word(mem, offHeaderSum) != headerSum(mem) {
		return "", corrupt(offHeaderSum, "the header's checksum does not match")
	}
	if n := *word(mem, offSize); n != uint64(len(mem)) {
		return "", corrupt(offSize, fmt.Sprintf("the header says %d bytes, the memory has %d", n, len(mem)))
	}
	n := *word(mem, offLabelBytes)
	if n > MaxLabelBytes {
		return "", corrupt(offLabelBytes, "the label is longer than it can be")
	}
	field := mem[offLabel : offLabel+MaxLabelBytes]
	if len(bytes.TrimRight(field[n:], "\x00")) != 0 {
		return "", corrupt(offLabel, "bytes follow the label")
	}
	return string(field[:n]), nil
}
