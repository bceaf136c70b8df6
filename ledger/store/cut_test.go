package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// step is one change of a drawn transaction. It chooses its record by rank, so
// that it means something in every state.
type step struct {
	verb verb
	rank int
	kind Kind
	size int
	fill byte
}

func (s step) payload() []byte { return []byte(strings.Repeat(string('a'+rune(s.fill%26)), s.size)) }

func stepGen() *rapid.Generator[step] {
	return rapid.Custom(func(t *rapid.T) step {
		return step{
			verb: rapid.SampledFrom([]verb{insert, insert, update, update, remove}).Draw(t, "verb"),
			rank: rapid.IntRange(0, 40).Draw(t, "rank"),
			kind: Kind(rapid.IntRange(0, 3).Draw(t, "kind")),
			size: rapid.SampledFrom([]int{0, 1, 63, 64, 65, 130, 300, 700}).Draw(t, "size"),
			fill: rapid.Byte().Draw(t, "fill"),
		}
	})
}

// stage puts the steps into a transaction and returns what the region must
// hold once it commits.
func stage(tx *Tx, before state, steps []step) state {
	after := maps.Clone(before)
	for _, s := range steps {
		ids := slices.Sorted(maps.Keys(after))
		if s.verb == insert || len(ids) == 0 {
			if id := tx.Insert(s.kind, s.payload()); id != 0 {
				after[id] = record{s.kind, string(s.payload())}
			}
			continue
		}
		id := ids[s.rank%len(ids)]
		if s.verb == update {
			tx.Update(id, s.payload())
			after[id] = record{after[id].kind, string(s.payload())}
		} else {
			tx.Delete(id)
			delete(after, id)
		}
	}
	return after
}

// A writer that dies between any two stores leaves the state before its
// transaction or the state after it; so does one that dies while it opens such
// an image; and the next transaction on that image sees nothing of the lost one.
func TestEveryCutIsBeforeOrAfter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := Format(memory(MinBytes), "cut")
		if err != nil {
			t.Fatal(err)
		}
		before := state{}
		txs := rapid.SliceOfN(rapid.SliceOfN(stepGen(), 0, 8), 1, 12).Draw(t, "transactions")
		for n, steps := range txs {
			var images [][]byte
			r.SetObserver(func(int) { images = append(images, slices.Clone(r.mem)) })
			tx := r.Begin()
			after := stage(tx, before, steps)
			if rapid.IntRange(0, 9).Draw(t, "discard") == 0 {
				tx.Discard()
				after = before
			} else if err := tx.Commit(); err != nil {
				if err != ErrFull {
					t.Fatalf("transaction %d: %v", n, err)
				}
				if len(images) != 0 {
					t.Fatalf("transaction %d: refused as full after %d stores", n, len(images))
				}
				after = before
			}
			for i, image := range images {
				want := before
				if i == len(images)-1 {
					want = after // the commit word is the last store
				}
				checkCut(t, fmt.Sprintf("transaction %d cut after store %d of %d", n, i+1, len(images)), image, want)
			}
			if err := check(r); err != nil {
				t.Fatalf("transaction %d: %v", n, err)
			}
			if got, _, err := contents(slices.Clone(r.mem)); err != nil || !equal(got, after) {
				t.Fatalf("transaction %d: holds %v (%v), want %v", n, got, err, after)
			}
			before = after
			if rapid.IntRange(0, 4).Draw(t, "reopen") == 0 {
				if _, r, err = contents(r.mem); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func checkCut(t *rapid.T, where string, image []byte, want state) {
	t.Helper()
	var cutsOfOpen [][]byte
	opened := slices.Clone(image)
	if _, err := open(opened, nil, func(int) { cutsOfOpen = append(cutsOfOpen, slices.Clone(opened)) }); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	for i, again := range append([][]byte{image}, cutsOfOpen...) {
		got, r, err := contents(again)
		if err != nil || !equal(got, want) {
			t.Fatalf("%s, open cut after store %d: holds %v (%v), want %v", where, i, got, err, want)
		}
		// The lost transaction's number is used again here.
		tx := r.Begin()
		next := maps.Clone(want)
		if ids := slices.Sorted(maps.Keys(want)); len(ids) > 0 {
			tx.Delete(ids[0])
			delete(next, ids[0])
		} else {
			next[tx.Insert(7, nil)] = record{kind: 7}
		}
		if err := tx.Commit(); err != nil {
			t.Fatalf("%s, open cut after store %d: next transaction: %v", where, i, err)
		}
		if got, _, err := contents(r.mem); err != nil || !equal(got, next) {
			t.Fatalf("%s, open cut after store %d: after the next transaction %v (%v), want %v", where, i, got, err, next)
		}
	}
}

// Memory whose Format was cut is recognised and holds nothing.
func TestFormatCutBeforeMagic(t *testing.T) {
	mem := memory(MinBytes)
	if _, err := Format(mem, "cut"); err != nil {
		t.Fatal(err)
	}
	*word(mem, offMagic) = 0
	if _, err := Open(mem, nil); err != ErrUnformatted {
		t.Fatalf("opens with %v, want ErrUnformatted", err)
	}
	if _, err := Format(mem, "again"); err != ErrNotZero {
		t.Fatalf("formats with %v, want ErrNotZero", err)
	}
}
