package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// The image of a history: a header of a page, and then a place of a mebibyte for each device,
// of which only what was written takes memory where the memory is sparse. A place begins with
// the device's name; the reels follow, the heads before the slots.
const (
	headerBytes = 4096
	// PlaceBytes is what one device takes at most, and ImageBytes what Open and Format need for
	// so many devices that no node has more.
	PlaceBytes = 1 << 20
	ImageBytes = 256 << 20

	magic   = 0x3152545348425349 // "ISBHSTR1", read as a little-endian number
	version = 1

	offMagic      = 0  // uint64, stored last
	offVersion    = 8  // uint32
	offSum        = 12 // uint32: of what follows
	offGeneration = 16 // uint64: of this image, mixed into every checksum
	offFine       = 24 // uint32: points of each ring of seconds
	offCoarse     = 28 // uint32: and of minutes
	headerEnd     = 32

	nameBytes   = 256 // length and checksum, 4 bytes each, and the name
	maxName     = nameBytes - 8
	sketchBytes = 1024 // of a record
)

// Errors of Open: the history must begin anew. Memory that was never written is ErrNew.
var (
	ErrNew        = errors.New("no history has been written there")
	ErrUnreadable = errors.New("the history cannot be read")
)

// layout says how many points the rings of a place have.
type layout struct{ fine, coarse int }

// bytes is what a place takes.
func (l layout) bytes() int { return l.carve(new(series), make([]byte, PlaceBytes), 0) }

// carve gives a series its parts of a place and returns how much of it they take.
func (l layout) carve(s *series, mem []byte, seed uint32) int {
	at := nameBytes
	take := func(n int) []byte {
		b := mem[at : at+n : at+n]
		at += n
		return b
	}
	reels := s.reels()
	for i, r := range reels {
		*r = reel{size: sketchBytes, seed: mix(seed, uint32(i))}
		switch {
		case r == &s.trace.reel:
			r.size, r.bound = traceBytes, traceBlocks
		case r == &s.fine.reel:
			r.size, r.bound = pointBytes, l.fine
		case r == &s.coarse.reel:
			r.size, r.bound = pointBytes, l.coarse
		case i%2 == 0:
			r.bound = minutes
		default:
			r.bound = hours
		}
		r.heads = take(2 * r.size)
	}
	for _, r := range reels {
		r.slots = take(r.bound * r.size)
	}
	return at
}

// mix makes a seed of a seed.
func mix(seed, n uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], n)
	return crc32.Update(seed, castagnoli, b[:])
}

// Format begins a history in memory, which keeps it when its writer ends. What lies there is
// void from then on and need not be cleared: generation tells the images of one memory apart
// and must be another each time.
func Format(mem []byte, cfg Config, generation uint64) (*History, error) {
	h := New(cfg)
	if len(mem) < headerBytes+PlaceBytes {
		return nil, fmt.Errorf("history: %d bytes are too few for a history: at least %d", len(mem), headerBytes+PlaceBytes)
	}
	h.mem = mem
	h.writeHeader(generation)
	return h, nil
}

// writeHeader makes everything void that was written under another header.
func (h *History) writeHeader(generation uint64) {
	le := binary.LittleEndian
	le.PutUint64(h.mem[offMagic:], 0)
	le.PutUint32(h.mem[offVersion:], version)
	le.PutUint64(h.mem[offGeneration:], generation)
	le.PutUint32(h.mem[offFine:], uint32(h.layout.fine))
	le.PutUint32(h.mem[offCoarse:], uint32(h.layout.coarse))
	sum := crc32.Checksum(h.mem[offGeneration:headerEnd], castagnoli)
	le.PutUint32(h.mem[offSum:], sum)
	le.PutUint64(h.mem[offMagic:], magic)
	h.generation, h.seed = generation, sum
}

// Open goes on with a history that a predecessor left in memory. An error says that there is
// none to go on with, and changes nothing: Format begins one.
func Open(mem []byte, cfg Config) (*History, error) {
	h := New(cfg)
	if len(mem) < headerBytes+PlaceBytes {
		return nil, fmt.Errorf("%w: %d bytes are too few", ErrUnreadable, len(mem))
	}
	le := binary.LittleEndian
	was := layout{int(le.Uint32(mem[offFine:])), int(le.Uint32(mem[offCoarse:]))}
	sum := crc32.Checksum(mem[offGeneration:headerEnd], castagnoli)
	switch {
	case le.Uint64(mem[offMagic:]) == 0:
		return nil, ErrNew
	case le.Uint64(mem[offMagic:]) != magic:
		return nil, fmt.Errorf("%w: it does not begin as one does", ErrUnreadable)
	case le.Uint32(mem[offVersion:]) != version:
		return nil, fmt.Errorf("%w: its format is version %d, this program writes %d", ErrUnreadable, le.Uint32(mem[offVersion:]), version)
	case le.Uint32(mem[offSum:]) != sum || was.fine < least || was.fine > maxFine || was.coarse < least || was.coarse > maxCoarse:
		return nil, fmt.Errorf("%w: its header is damaged", ErrUnreadable)
	}
	h.mem, h.seed, h.generation = mem, sum, le.Uint64(mem[offGeneration:])
	wanted := h.layout
	h.layout = was
	for i := range h.places() {
		name, ok := h.nameAt(i)
		if !ok {
			break
		}
		h.named = append(h.named, name)
		h.adopt(name, i)
	}
	if wanted != was {
		h.rebuild(wanted)
	}
	return h, nil
}

// places is how many devices have room.
func (h *History) places() int { return (len(h.mem) - headerBytes) / PlaceBytes }

func (h *History) place(i int) []byte {
	return h.mem[headerBytes+i*PlaceBytes : headerBytes+(i+1)*PlaceBytes]
}

// nameAt is the name of the device that has a place.
func (h *History) nameAt(i int) (string, bool) {
	b := h.place(i)[:nameBytes]
	n := binary.LittleEndian.Uint32(b)
	if n > maxName {
		return "", false
	}
	name := b[8 : 8+n]
	return string(name), binary.LittleEndian.Uint32(b[4:]) == crc32.Update(mix(h.seed, n), castagnoli, name)
}

// claim gives a device a place of its own: a free one, else that of a device that nobody has
// looked at since Open. It reports false where there is none.
func (h *History) claim(name string) (int, bool) {
	i := len(h.named)
	if i == h.places() {
		i = slices.IndexFunc(h.named, func(n string) bool { return !h.series[n].looked })
	}
	if i < 0 || len(name) > maxName {
		return 0, false
	}
	if i == len(h.named) {
		h.named = append(h.named, name)
	} else {
		delete(h.series, h.named[i])
		h.named[i] = name
	}
	b := h.place(i)[:nameBytes]
	binary.LittleEndian.PutUint32(b[4:], 0) // void while it is written
	binary.LittleEndian.PutUint32(b, uint32(len(name)))
	copy(b[8:], name)
	binary.LittleEndian.PutUint32(b[4:], crc32.Update(mix(h.seed, uint32(len(name))), castagnoli, []byte(name)))
	return i, true
}

// adopt opens what lies in a device's place.
func (h *History) adopt(name string, i int) *series {
	s := new(series)
	h.layout.carve(s, h.place(i), crc32.Update(mix(h.seed, uint32(i)), castagnoli, []byte(name)))
	s.open(h.stored)
	h.series[name] = s
	return s
}

// rebuild writes everything anew where the rings are to have more points, or fewer. A writer
// that dies meanwhile leaves a history that has lost a part.
func (h *History) rebuild(to layout) {
	names, old := h.named, make([]*series, len(h.named))
	for i, name := range names {
		s := h.series[name]
		for _, r := range s.reels() {
			r.heads, r.slots = bytes.Clone(r.heads), bytes.Clone(r.slots)
		}
		old[i] = s
	}
	h.layout, h.named, h.series = to, nil, map[string]*series{}
	h.writeHeader(h.generation + 1)
	for i, name := range names {
		at, _ := h.claim(name)
		s := h.adopt(name, at)
		for k, r := range s.reels() {
			was := old[i].reels()[k]
			for j := range was.len() {
				if b := was.at(j); b != nil {
					r.push(b)
				}
			}
		}
		s.open(h.stored)
	}
}
