package store

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Tx collects changes; nothing of it is in the region before Commit. A region
// has one transaction at a time.
type Tx struct {
	r    *Region
	ops  []op
	buf  []byte // the payloads, copied
	grew uint32 // records beyond the table that were promised to inserts
	err  error  // the first misuse or want of room; Commit returns it
}

// op is the pending change of one record.
type op struct {
	id     RecID
	kind   Kind
	verb   verb
	start  int // payload in Tx.buf
	length uint32
	pos    uint32 // its extent, once taken
}

type verb uint8

const (
	insert verb = iota
	update
	remove
	nothing // inserted and deleted in the same transaction
)

// Begin starts a transaction, discarding one that was begun and not committed.
// The same Tx is used again and again: do not keep it after Commit.
func (r *Region) Begin() *Tx {
	t := &r.tx
	t.r = r
	if len(t.ops) > 0 || t.err != nil {
		t.discard()
	}
	return t
}

// Insert adds a record and returns its id, which is good for the other calls of
// the same transaction and, once Commit returned nil, from then on. It returns 0
// when the table can hold no more; Commit then returns ErrFull. The payload is
// copied.
func (t *Tx) Insert(kind Kind, payload []byte) RecID {
	if t.err != nil {
		return 0
	}
	r := t.r
	var id RecID
	if n := len(r.free); n > 0 {
		id, r.free = r.free[n-1], r.free[:n-1]
	} else {
		if tableEnd(uint32(len(r.recs))+1) > len(r.mem) {
			t.err = ErrFull
			return 0
		}
		r.recs = append(r.recs, rec{slot: 1})
		t.grew++
		id = RecID(len(r.recs))
	}
	t.add(op{id: id, kind: kind, verb: insert}, payload)
	return id
}

// Update replaces the payload of a record, which keeps its kind. The payload is
// copied. An id without a record makes Commit return ErrNoRecord.
func (t *Tx) Update(id RecID, payload []byte) {
	if o := t.pending(id); o != nil {
		t.place(o, payload)
	} else if t.known(id) {
		t.add(op{id: id, kind: t.r.recs[id-1].kind, verb: update}, payload)
	}
}

// Delete removes a record. An id without a record makes Commit return
// ErrNoRecord.
func (t *Tx) Delete(id RecID) {
	o := t.pending(id)
	switch {
	case o == nil && t.known(id):
		t.add(op{id: id, kind: t.r.recs[id-1].kind, verb: remove}, nil)
	case o != nil && o.verb == insert:
		o.verb = nothing
	case o != nil:
		o.verb, o.length = remove, 0
	}
}

// Discard forgets the transaction. The ids it promised are free again.
func (t *Tx) Discard() { t.discard() }

// pending finds the change that this transaction already makes to a record that
// it has not deleted.
func (t *Tx) pending(id RecID) *op {
	if t.err != nil || id == 0 || uint64(id) > uint64(len(t.r.recs)) {
		return nil
	}
	i := t.r.recs[id-1].op
	if i == 0 {
		return nil
	}
	o := &t.ops[i-1]
	if o.verb == remove || o.verb == nothing {
		t.err = fmt.Errorf("%w: %d, deleted by the same transaction", ErrNoRecord, id)
		return nil
	}
	return o
}

func (t *Tx) known(id RecID) bool {
	if t.err != nil {
		return false
	}
	if !t.r.isLive(id) {
		t.err = fmt.Errorf("%w: %d", ErrNoRecord, id)
		return false
	}
	return true
}

func (t *Tx) add(o op, payload []byte) {
	t.ops = append(t.ops, o)
	t.r.recs[o.id-1].op = uint32(len(t.ops))
	t.place(&t.ops[len(t.ops)-1], payload)
}

func (t *Tx) place(o *op, payload []byte) {
	if uint64(len(payload)) > uint64(len(t.r.mem)) {
		t.err = ErrFull
		return
	}
	o.start, o.length = len(t.buf), uint32(len(payload))
	t.buf = append(t.buf, payload...)
}

// Commit makes the whole transaction durable, or, with an error, none of it:
// ErrFull, ErrNoRecord, ErrExhausted. Either way the transaction is over. One
// without changes writes nothing.
func (t *Tx) Commit() error {
	if err := t.prepare(); err != nil {
		t.discard()
		return err
	}
	if len(t.ops) == 0 {
		return nil
	}
	r := t.r
	number := r.last + 1
	if t.grew > 0 {
		t.extendTable()
	}
	for i := range t.ops {
		t.write(&t.ops[i], number)
	}
	atomic.StoreUint64(word(r.mem, offCommit), seal(number))
	if r.observe != nil {
		r.observed()
	}
	r.last = number
	for i := range t.ops {
		t.apply(&t.ops[i])
	}
	t.clear()
	return nil
}

// extendTable adds the records that inserts were promised. Payloads may have
// lain where they come to be, so their slots are emptied first.
func (t *Tx) extendTable() {
	r := t.r
	for i := len(r.recs) - int(t.grew); i < len(r.recs); i++ {
		for which := range 2 {
			if off := slotOffset(RecID(i+1), which); *word(r.mem, off) != 0 {
				r.store(off, 0)
			}
		}
	}
	r.store(offTable, seal(uint64(len(r.recs))))
}

// prepare takes all the room that the transaction needs, or none. It writes
// nothing to the region.
func (t *Tx) prepare() error {
	r := t.r
	if t.err != nil {
		return t.err
	}
	if r.last >= maxTransaction {
		return ErrExhausted
	}
	limit := r.arena.limit
	if t.grew > 0 {
		r.arena.limit = r.arenaLimit(uint32(len(r.recs)))
	}
	full := r.arena.top > r.arena.limit
	taken := 0
	for ; !full && taken < len(t.ops); taken++ {
		o := &t.ops[taken]
		if o.length == 0 || o.verb == nothing {
			o.length = 0
			continue
		}
		pos, ok := r.arena.take(granules(o.length))
		if !ok {
			full = true
			break
		}
		o.pos = pos
	}
	if !full {
		return nil
	}
	for i := range t.ops[:taken] {
		if o := &t.ops[i]; o.length > 0 {
			r.arena.give(o.pos, granules(o.length))
		}
	}
	r.arena.limit = limit
	return ErrFull
}

// write fills the extent and the slot that is not in force. At any cut inside
// it that slot still loses to the one in force, or is newer than the commit
// word.
func (t *Tx) write(o *op, number uint64) {
	if o.verb == nothing {
		return
	}
	r := t.r
	payload := t.buf[o.start : o.start+int(o.length)]
	s := slot{tx: number, pos: o.pos, length: o.length, kind: o.kind, state: stateLive}
	if o.verb == remove {
		s.state = stateTombstone
	}
	if o.length > 0 {
		r.write(extent(r.mem, s.pos, s.length), payload)
	}
	s.sum = s.checksum(o.id, payload)
	off := slotOffset(o.id, 1-int(r.recs[o.id-1].slot))
	r.store(off, s.tx)
	r.store(off+8, s.place())
	r.store(off+16, s.detail())
}

// apply brings the state beside the region up to date after the commit.
func (t *Tx) apply(o *op) {
	r := t.r
	c := &r.recs[o.id-1]
	c.op = 0
	if o.verb == nothing {
		r.free = append(r.free, o.id)
		return
	}
	if c.live {
		if c.length > 0 {
			r.arena.give(c.pos, granules(c.length))
		}
		r.live--
		r.payload -= int64(c.length)
	}
	c.slot = 1 - c.slot
	c.live = o.verb != remove
	if !c.live {
		c.pos, c.length = 0, 0
		r.free = append(r.free, o.id)
		return
	}
	c.kind, c.pos, c.length = o.kind, o.pos, o.length
	r.live++
	r.payload += int64(o.length)
}

// discard undoes the promises of ids.
func (t *Tx) discard() {
	r := t.r
	if r == nil {
		return
	}
	for i := range slices.Backward(t.ops) {
		o := &t.ops[i]
		r.recs[o.id-1].op = 0
		fresh := uint32(o.id) > uint32(len(r.recs))-t.grew
		if (o.verb == insert || o.verb == nothing) && !fresh {
			r.free = append(r.free, o.id)
		}
	}
	r.recs = r.recs[:uint32(len(r.recs))-t.grew]
	t.clear()
}

func (t *Tx) clear() {
	t.ops, t.buf, t.grew, t.err = t.ops[:0], t.buf[:0], 0, nil
}
