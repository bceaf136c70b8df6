package ledger

import (
	"errors"

	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// Ballast is a record without meaning that holds room in a region. What asks for
// something new is refused while it cannot be held; what has already happened is
// recorded even in a full region, by dropping it.
type Ballast struct {
	region *store.Region
	kind   store.Kind
	rec    store.RecID
	bytes  int
}

// ballastBytes is more than a record of a grant of a thousand blocks and mappers.
const ballastBytes = 64 << 10

// NewBallast holds room in a region by a record of the given kind. rec is the record that
// a predecessor left; 0: none.
func NewBallast(region *store.Region, kind store.Kind, rec store.RecID) *Ballast {
	b := &Ballast{region: region, kind: kind, rec: rec}
	b.bytes = min(ballastBytes, int(region.Stats().CapacityBytes/16))
	b.Hold()
	return b
}

// Hold reports whether the room is held, taking it again if it was given up. Only then
// may records of something new be written.
func (b *Ballast) Hold() bool {
	if b.rec == 0 {
		tx := b.region.Begin()
		rec := tx.Insert(b.kind, make([]byte, b.bytes))
		if tx.Commit() == nil {
			b.rec = rec
		}
	}
	return b.rec != 0
}

// Refusal is the answer to a request for something new that could not be recorded.
func (b *Ballast) Refusal() *schemas.Error { return ledgerFull(store.ErrFull) }

// Update replaces a record because of something that has already happened.
func (b *Ballast) Update(rec store.RecID, payload []byte) error {
	tx := b.region.Begin()
	tx.Update(rec, payload)
	err := tx.Commit()
	if !errors.Is(err, store.ErrFull) || b.rec == 0 {
		return err
	}
	tx = b.region.Begin()
	tx.Delete(b.rec)
	if err := tx.Commit(); err != nil {
		return err
	}
	b.rec = 0
	tx = b.region.Begin()
	tx.Update(rec, payload)
	return tx.Commit()
}

// Held reports whether the room is held.
func (b *Ballast) Held() bool { return b.rec != 0 }
