package history

import (
	"encoding/binary"
	"hash/crc32"
)

// reel is a bounded series of records in memory that outlives its writer. The newest record
// lies in one of two heads and is written anew in the other one as it grows; when the next one
// begins it goes to its slot, over one that is out of reach. So a writer that dies at any
// store leaves what was there before, or what was to be there, and nothing else: a record
// whose checksum does not match was never written.
type reel struct {
	heads, slots []byte // two records, and bound records
	size         int    // bytes of a record
	bound        int    // records within reach, the newest included
	seed         uint32 // of the checksums: no record passes for one of another reel or image

	n       uint32 // the newest record's number, counted from 1; 0: there is none
	version uint32 // how often the newest was written anew
	head    int    // where it lies
	stored  func() // called after every store, by tests
}

// A record: number, version, length and checksum, 4 bytes each, and then the payload.
const recordHeader = 16

// castagnoli is the polynomial that processors know.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// open finds the newest record.
func (r *reel) open() {
	r.n, r.version, r.head = 0, 0, 0
	for i := range 2 {
		n, version, _, ok := r.read(r.heads[i*r.size:])
		if ok && (n > r.n || n == r.n && version >= r.version) {
			r.n, r.version, r.head = n, version, i
		}
	}
}

// read checks the record that begins there; the payload lies in the reel's memory.
func (r *reel) read(at []byte) (n, version uint32, payload []byte, ok bool) {
	n, version = binary.LittleEndian.Uint32(at), binary.LittleEndian.Uint32(at[4:])
	length := binary.LittleEndian.Uint32(at[8:])
	if n == 0 || length > uint32(r.size-recordHeader) {
		return 0, 0, nil, false
	}
	payload = at[recordHeader : recordHeader+length]
	return n, version, payload, binary.LittleEndian.Uint32(at[12:]) == r.sum(at[:12], payload)
}

func (r *reel) sum(header, payload []byte) uint32 {
	return crc32.Update(crc32.Update(r.seed, castagnoli, header), castagnoli, payload)
}

// len is how many records are within reach; some of them may be unreadable.
func (r *reel) len() int { return int(min(r.n, uint32(r.bound))) }

// at is the payload of the i-th record within reach, the oldest being 0; nil if it cannot be
// read.
func (r *reel) at(i int) []byte {
	n := r.n - uint32(r.len()-1-i)
	place := r.heads[r.head*r.size:]
	if n != r.n {
		place = r.slots[r.slot(n):]
	}
	if found, _, payload, ok := r.read(place); ok && found == n {
		return payload
	}
	return nil
}

// last is the newest record's payload; nil if there is none.
func (r *reel) last() []byte {
	if r.n == 0 {
		return nil
	}
	return r.at(r.len() - 1)
}

// slot is where the record of that number comes to lie.
func (r *reel) slot(n uint32) int { return int((n-1)%uint32(r.bound)) * r.size }

// push begins a new record.
func (r *reel) push(payload []byte) {
	if r.n > 0 {
		r.store(r.slots[r.slot(r.n):], r.heads[r.head*r.size:(r.head+1)*r.size])
	}
	r.write(r.n+1, 0, payload)
}

// replace writes the newest record anew; there must be one.
func (r *reel) replace(payload []byte) { r.write(r.n, r.version+1, payload) }

// room is the largest payload.
func (r *reel) room() int { return r.size - recordHeader }

func (r *reel) write(n, version uint32, payload []byte) {
	var header [recordHeader]byte
	binary.LittleEndian.PutUint32(header[:], n)
	binary.LittleEndian.PutUint32(header[4:], version)
	binary.LittleEndian.PutUint32(header[8:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(header[12:], r.sum(header[:12], payload))
	r.n, r.version, r.head = n, version, 1-r.head
	at := r.heads[r.head*r.size : (r.head+1)*r.size]
	r.store(at, header[:])
	r.store(at[recordHeader:], payload)
}

// piece is the most bytes that are stored at once while a test looks on.
const piece = 8

func (r *reel) store(dst, src []byte) {
	for r.stored != nil && len(src) > piece {
		copy(dst, src[:piece])
		dst, src = dst[piece:], src[piece:]
		r.stored()
	}
	copy(dst, src)
	if r.stored != nil {
		r.stored()
	}
}
