package store

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzOpen feeds damaged images: each opens, and then works, or is refused with
// a typed error and left alone. With mend, the checks over the damage are made
// good first, so that the fuzzer gets past them.
func FuzzOpen(f *testing.F) {
	r := mustFormat(f, MinBytes)
	f.Add(bytes.Clone(r.mem[:1024]), []byte{}, true)
	tx := r.Begin()
	a := tx.Insert(1, []byte("one"))
	b := tx.Insert(2, bytes.Repeat([]byte("two"), 50))
	tx.Insert(3, nil)
	mustCommit(f, tx)
	tx = r.Begin()
	tx.Update(a, []byte("three"))
	tx.Delete(b)
	mustCommit(f, tx)
	f.Add(bytes.Clone(r.mem[:1024]), bytes.Clone(r.mem[headerBytes:headerBytes+4*recordBytes]), true)
	f.Add(bytes.Clone(r.mem[:1024]), bytes.Clone(r.mem[headerBytes:headerBytes+4*recordBytes]), false)

	f.Fuzz(func(t *testing.T, header, table []byte, mend bool) {
		mem := memory(4 * MinBytes)
		copy(mem[:headerBytes], header)
		copy(mem[headerBytes:], table)
		if mend {
			mendImage(mem)
		}
		image := bytes.Clone(mem)
		got, r, err := contents(mem)
		if err != nil {
			var ce *CorruptError
			var ve *VersionError
			if !errors.As(err, &ce) && !errors.As(err, &ve) && err != ErrUnformatted {
				t.Fatalf("refused with %T %v", err, err)
			}
			if !bytes.Equal(image, mem) {
				t.Fatal("a refused image was changed")
			}
			return
		}
		if err := check(r); err != nil {
			t.Fatal(err)
		}
		tx := r.Begin()
		for id := range got {
			if id%2 == 0 {
				tx.Delete(id)
				delete(got, id)
			} else {
				tx.Update(id, []byte("updated"))
				got[id] = record{got[id].kind, "updated"}
			}
		}
		if id := tx.Insert(5, []byte("new")); id != 0 {
			got[id] = record{5, "new"}
		}
		if err := tx.Commit(); err == ErrFull || err == ErrExhausted {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if err := check(r); err != nil {
			t.Fatal(err)
		}
		if after, _ := mustOpen(t, mem); !equal(after, got) {
			t.Fatalf("holds %v, want %v", after, got)
		}
	})
}

func mendImage(mem []byte) {
	*word(mem, offMagic) = magic
	*word(mem, offVersion) = Version
	*word(mem, offSize) = uint64(len(mem))
	*word(mem, offHeaderSum) = headerSum(mem)
	*word(mem, offCommit) = seal(*word(mem, offCommit) >> 16)
	records := *word(mem, offTable) >> 16
	*word(mem, offTable) = seal(records)
	r := &Region{mem: mem}
	for id := RecID(1); uint64(id) <= min(records, 16); id++ {
		for which := range 2 {
			s := r.readSlot(id, which)
			if uint64(s.pos)*granule+uint64(s.length)+granule > uint64(len(mem)) {
				continue
			}
			s.sum = s.checksum(id, extent(mem, s.pos, s.length))
			*word(mem, slotOffset(id, which)+16) = s.detail()
		}
	}
}
