package ledger_test

import (
	"errors"
	"testing"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// In a full region nothing new is recorded, but what has happened is.
func TestBallastLeavesRoomForWhatHasHappened(t *testing.T) {
	region, err := store.Format(make([]byte, 64<<10), "x")
	if err != nil {
		t.Fatal(err)
	}
	b := ledger.NewBallast(region, 9, 0)
	insert := func() store.RecID {
		tx := region.Begin()
		id := tx.Insert(1, make([]byte, 100))
		if tx.Commit() != nil {
			return 0
		}
		return id
	}
	var ids []store.RecID
	for id := insert(); id != 0; id = insert() {
		ids = append(ids, id)
	}
	if !b.Hold() {
		t.Fatal("the ballast was given up for something new")
	}
	tx := region.Begin()
	tx.Update(ids[0], make([]byte, 1000))
	if err := tx.Commit(); !errors.Is(err, store.ErrFull) {
		t.Fatalf("the region is not full: %v", err)
	}
	if err := b.Update(ids[0], make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if b.Hold() || b.Held() {
		t.Fatal("there is room for the ballast in a full region")
	}
	tx = region.Begin()
	for _, id := range ids {
		tx.Delete(id)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if !b.Hold() {
		t.Fatal("the ballast is not taken again")
	}
}
