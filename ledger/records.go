package ledger

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger/store"
)

// The kinds of records of a device's region. Their numbers are the format.
const (
	kindSegment store.Kind = 1
	kindGrant   store.Kind = 2
	kindAnswer  store.Kind = 3
	kindLimits  store.Kind = 4
	kindSession store.Kind = 5
	kindBallast store.Kind = 6
	kindQuota   store.Kind = 7
)

var errShort = errors.New("record is too short")

// enc appends little-endian fields to a record.
type enc struct{ b []byte }

func (e *enc) u32(v uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, v) }
func (e *enc) i64(v int64)  { e.b = binary.LittleEndian.AppendUint64(e.b, uint64(v)) }
func (e *enc) raw(v []byte) { e.b = append(e.b, v...) }
func (e *enc) str(v string) { e.u32(uint32(len(v))); e.b = append(e.b, v...) }
func (e *enc) at(v time.Time) {
	if v.IsZero() {
		e.i64(0)
		return
	}
	e.i64(v.UnixNano())
}

// dec reads them back; err is sticky, and every length is checked against what is there.
type dec struct {
	b   []byte
	err error
}

func (d *dec) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		d.err = errShort
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *dec) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (d *dec) i64() int64 {
	if v := d.take(8); v != nil {
		return int64(binary.LittleEndian.Uint64(v))
	}
	return 0
}

func (d *dec) str() string { return string(d.take(int(d.u32()))) }

func (d *dec) at() time.Time {
	if v := d.i64(); v != 0 {
		return time.Unix(0, v).UTC()
	}
	return time.Time{}
}

// count reads a number of items of at least size bytes each, which must all be there.
func (d *dec) count(size int) int {
	n := int(d.u32())
	if d.err == nil && n > len(d.b)/size {
		d.err = errShort
	}
	if d.err != nil {
		return 0
	}
	return n
}

func (d *dec) end() error {
	if d.err == nil && len(d.b) != 0 {
		d.err = errors.New("record has bytes left over")
	}
	return d.err
}

func bit(b bool, n uint) uint32 {
	if b {
		return 1 << n
	}
	return 0
}

func encodeSegment(b []byte, s *segment) []byte {
	e := enc{b: b[:0]}
	e.i64(int64(s.id))
	e.i64(s.bytes)
	e.u32(bit(s.weights, 0))
	e.str(s.last)
	return e.b
}

func decodeSegment(b []byte) (*segment, error) {
	d := dec{b: b}
	s := &segment{id: heap.SegmentID(d.i64()), bytes: d.i64()}
	s.weights = d.u32()&1 != 0
	s.last = d.str()
	return s, d.end()
}

func encodeGrant(b []byte, g *Grant) []byte {
	e := enc{b: b[:0]}
	e.raw(g.ID[:])
	e.str(g.Owner.Tenant)
	e.str(g.Owner.User)
	e.str(string(g.Owner.Session))
	e.u32(uint32(g.Owner.PID))
	e.u32(g.Owner.UID)
	e.str(string(g.Class))
	e.str(string(g.Status))
	e.i64(g.Size)
	e.i64(g.Granted)
	e.i64(g.Align)
	e.str(g.Purpose)
	e.str(g.Model)
	e.u32(bit(g.Persistent, 0) | bit(g.Sealed, 1) | bit(g.Bound, 2) | bit(g.Follows.PID != 0, 3) |
		bit(g.Filling, 4) | bit(g.Origin != uuid.UUID{}, 5) | bit(g.readByOthers(), 6))
	e.i64(int64(g.Priority))
	e.at(g.Created)
	e.at(g.LastUsed)
	e.i64(int64(g.Lease))
	e.i64(int64(g.LeaseEnds))
	e.u32(uint32(len(g.Blocks)))
	for _, b := range g.Blocks {
		e.i64(int64(b.Segment))
		e.i64(b.Offset)
		e.i64(b.Bytes)
		e.i64(b.Asked)
	}
	e.u32(uint32(len(g.Claims)))
	for _, c := range g.Claims {
		e.raw(c.Digest[:])
		e.i64(int64(c.Expires))
	}
	e.u32(uint32(len(g.Mappers)))
	for _, m := range g.Mappers {
		e.str(string(m.Session))
		e.u32(uint32(m.PID))
		e.str(string(m.Mode))
	}
	if p := g.Follows; p.PID != 0 {
		e.u32(uint32(p.PID))
		e.i64(int64(p.Start))
		e.u32(p.UID)
	}
	if g.Origin != (uuid.UUID{}) {
		e.raw(g.Origin[:])
	}
	if g.readByOthers() {
		for _, c := range g.Claims {
			e.str(c.Tenant)
		}
		for _, m := range g.Mappers {
			e.str(m.Tenant)
		}
	}
	return e.b
}

// readByOthers reports whether a claim or a mapping is another tenant's than the owner's,
// which a shared model's may be. Else the owner's tenant says it all.
func (g *Grant) readByOthers() bool {
	for i := range g.Claims {
		if g.Claims[i].Tenant != g.Owner.Tenant {
			return true
		}
	}
	for i := range g.Mappers {
		if g.Mappers[i].Tenant != g.Owner.Tenant {
			return true
		}
	}
	return false
}

func decodeGrant(b []byte) (*Grant, error) {
	d := dec{b: b}
	g := &Grant{}
	copy(g.ID[:], d.take(16))
	g.Owner = Owner{Tenant: d.str(), User: d.str(), Session: SessionID(d.str()), PID: int32(d.u32()), UID: d.u32()}
	g.Class, g.Status = Class(d.str()), Status(d.str())
	g.Size, g.Granted, g.Align = d.i64(), d.i64(), d.i64()
	g.Purpose, g.Model = d.str(), d.str()
	flags := d.u32()
	g.Persistent, g.Sealed, g.Bound = flags&1 != 0, flags&2 != 0, flags&4 != 0
	g.Filling = flags&16 != 0
	g.Priority = int(d.i64())
	g.Created, g.LastUsed = d.at(), d.at()
	g.Lease, g.LeaseEnds = time.Duration(d.i64()), clock.Instant(d.i64())
	for n := d.count(32); n > 0; n-- {
		g.Blocks = append(g.Blocks, heap.Block{Segment: heap.SegmentID(d.i64()), Offset: d.i64(), Bytes: d.i64(), Asked: d.i64()})
	}
	for n := d.count(40); n > 0; n-- {
		var c Claim
		copy(c.Digest[:], d.take(32))
		c.Expires = clock.Instant(d.i64())
		g.Claims = append(g.Claims, c)
	}
	for n := d.count(12); n > 0; n-- {
		g.Mappers = append(g.Mappers, Mapper{Session: SessionID(d.str()), PID: int32(d.u32()), Mode: Mode(d.str())})
	}
	if flags&8 != 0 {
		g.Follows = Process{PID: int32(d.u32()), Start: uint64(d.i64()), UID: d.u32()}
	}
	if flags&32 != 0 {
		copy(g.Origin[:], d.take(16))
	}
	others := flags&64 != 0
	for i := range g.Claims {
		if g.Claims[i].Tenant = g.Owner.Tenant; others {
			g.Claims[i].Tenant = d.str()
		}
	}
	for i := range g.Mappers {
		if g.Mappers[i].Tenant = g.Owner.Tenant; others {
			g.Mappers[i].Tenant = d.str()
		}
	}
	return g, d.end()
}

// EncodeAnswer is the record of an answer, in whichever region it lies.
func EncodeAnswer(a AnswerRecord, now clock.Instant) []byte {
	e := enc{b: make([]byte, 0, 96+len(a.Key)+len(a.Body)+len(a.Model))}
	e.str(a.Key)
	e.raw(a.Digest[:])
	e.str(a.Action)
	e.raw(a.Grant[:])
	e.str(a.Model)
	e.str(string(a.Body))
	e.i64(int64(now))
	return e.b
}

// DecodeAnswer reads it back.
func DecodeAnswer(b []byte) (AnswerRecord, error) {
	d := dec{b: b}
	a := AnswerRecord{Key: d.str()}
	copy(a.Digest[:], d.take(32))
	a.Action = d.str()
	var id uuid.UUID
	copy(id[:], d.take(16))
	a.Grant, a.Model, a.Body, a.At = id, d.str(), []byte(d.str()), clock.Instant(d.i64())
	return a, d.end()
}

func encodeLimits(l limits) []byte {
	e := enc{}
	e.i64(l.set)
	e.i64(l.reserve)
	e.i64(l.models)
	return e.b
}

func decodeLimits(b []byte) (limits, error) {
	d := dec{b: b}
	l := limits{set: d.i64(), reserve: d.i64(), models: d.i64()}
	return l, d.end()
}
