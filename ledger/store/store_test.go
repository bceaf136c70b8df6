package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRecordsSurviveReopen(t *testing.T) {
	r := mustFormat(t, 1<<16)
	tx := r.Begin()
	a := tx.Insert(1, []byte("first"))
	b := tx.Insert(2, nil)
	c := tx.Insert(3, bytes.Repeat([]byte("x"), 5000))
	mustCommit(t, tx)
	tx = r.Begin()
	tx.Update(a, []byte("changed"))
	tx.Delete(b)
	mustCommit(t, tx)

	got, again := mustOpen(t, r.mem)
	want := state{a: {1, "changed"}, c: {3, strings.Repeat("x", 5000)}}
	if !equal(got, want) {
		t.Fatalf("holds %v, want %v", got, want)
	}
	if again.Label() != "test" {
		t.Errorf("label %q", again.Label())
	}
	s := again.Stats()
	if s.Records != 2 || s.PayloadBytes != 5007 || s.Transactions != 2 || s.CapacityBytes != 1<<16 {
		t.Errorf("stats %+v", s)
	}
	if k, p, ok := again.Read(a); !ok || k != 1 || string(p) != "changed" {
		t.Errorf("reads %d %q %v", k, p, ok)
	}
	if _, _, ok := again.Read(b); ok {
		t.Error("a deleted record reads")
	}
}

func TestOneTransactionMayChangeARecordRepeatedly(t *testing.T) {
	r := mustFormat(t, 1<<16)
	tx := r.Begin()
	old := tx.Insert(1, []byte("old"))
	mustCommit(t, tx)

	tx = r.Begin()
	tx.Update(old, []byte("a"))
	tx.Update(old, []byte("bb"))
	gone := tx.Insert(2, []byte("gone"))
	tx.Update(gone, []byte("gone too"))
	tx.Delete(gone)
	kept := tx.Insert(3, []byte("draft"))
	tx.Update(kept, []byte("final"))
	mustCommit(t, tx)
	if got, _ := mustOpen(t, bytes.Clone(r.mem)); !equal(got, state{old: {1, "bb"}, kept: {3, "final"}}) {
		t.Fatalf("holds %v", got)
	}
	if err := check(r); err != nil {
		t.Fatal(err)
	}

	tx = r.Begin()
	tx.Update(old, []byte("ccc"))
	tx.Delete(old)
	mustCommit(t, tx)
	if got, _ := mustOpen(t, bytes.Clone(r.mem)); !equal(got, state{kept: {3, "final"}}) {
		t.Fatalf("holds %v", got)
	}
	if err := check(r); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownRecordFailsTheWholeTransaction(t *testing.T) {
	for _, misuse := range []struct {
		name string
		do   func(tx *Tx, id RecID)
	}{
		{"update of zero", func(tx *Tx, _ RecID) { tx.Update(0, nil) }},
		{"update of an id never given", func(tx *Tx, _ RecID) { tx.Update(99, nil) }},
		{"delete of an id never given", func(tx *Tx, _ RecID) { tx.Delete(99) }},
		{"delete twice", func(tx *Tx, id RecID) { tx.Delete(id); tx.Delete(id) }},
		{"update after delete", func(tx *Tx, id RecID) { tx.Delete(id); tx.Update(id, nil) }},
		{"delete twice after insert", func(tx *Tx, _ RecID) { n := tx.Insert(1, nil); tx.Delete(n); tx.Delete(n) }},
	} {
		t.Run(misuse.name, func(t *testing.T) {
			r := mustFormat(t, 1<<16)
			tx := r.Begin()
			id := tx.Insert(1, []byte("stays"))
			mustCommit(t, tx)
			tx = r.Begin()
			tx.Insert(1, []byte("must not appear"))
			misuse.do(tx, id)
			tx.Insert(1, []byte("nor this"))
			if err := tx.Commit(); !errors.Is(err, ErrNoRecord) {
				t.Fatalf("commits with %v, want ErrNoRecord", err)
			}
			if err := check(r); err != nil {
				t.Fatal(err)
			}
			if got, _ := mustOpen(t, r.mem); !equal(got, state{id: {1, "stays"}}) {
				t.Fatalf("holds %v", got)
			}
		})
	}
}

// A full region refuses, changes nothing, and still deletes.
func TestFull(t *testing.T) {
	for _, size := range []int{0, 1, 200, 4000} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			r := mustFormat(t, 1<<15)
			payload := bytes.Repeat([]byte("p"), size)
			var ids []RecID
			for {
				tx := r.Begin()
				id := tx.Insert(1, payload)
				image := bytes.Clone(r.mem)
				err := tx.Commit()
				if err == nil {
					ids = append(ids, id)
					continue
				}
				if err != ErrFull {
					t.Fatal(err)
				}
				if !bytes.Equal(image, r.mem) {
					t.Fatal("a refused transaction wrote to the region")
				}
				break
			}
			perRecord := recordBytes + (size+granule-1)/granule*granule
			if least := (1<<15 - headerBytes - granule) / perRecord; len(ids) < least {
				t.Fatalf("full after %d records, room for %d", len(ids), least)
			}
			if err := check(r); err != nil {
				t.Fatal(err)
			}
			tx := r.Begin()
			for _, id := range ids {
				tx.Delete(id)
			}
			mustCommit(t, tx)
			tx = r.Begin()
			for range ids {
				tx.Insert(1, payload)
			}
			mustCommit(t, tx)
			if err := check(r); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Payloads once lay where the table grows to: their bytes are no slots.
func TestTableGrowsOverOldPayloads(t *testing.T) {
	r := mustFormat(t, MinBytes)
	tx := r.Begin()
	big := tx.Insert(1, bytes.Repeat([]byte{0xff}, 3900))
	mustCommit(t, tx)
	tx = r.Begin()
	tx.Delete(big)
	mustCommit(t, tx)
	for range 20 {
		tx = r.Begin()
		tx.Insert(2, nil)
		mustCommit(t, tx)
	}
	if err := check(r); err != nil {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	image := func() []byte {
		r := mustFormat(t, 1<<14)
		tx := r.Begin()
		tx.Insert(1, []byte("payload"))
		mustCommit(t, tx)
		tx = r.Begin()
		tx.Insert(2, []byte("another"))
		mustCommit(t, tx)
		return r.mem
	}
	for _, c := range []struct {
		name   string
		damage func(mem []byte) []byte
	}{
		{"magic", func(m []byte) []byte { m[offMagic]++; return m }},
		{"label", func(m []byte) []byte { m[offLabel]++; return m }},
		{"size", func(m []byte) []byte { return m[:len(m)-granule] }},
		{"commit word", func(m []byte) []byte { m[offCommit+4]++; return m }},
		{"commit word zero", func(m []byte) []byte { *word(m, offCommit) = 0; return m }},
		{"commit word of the past", func(m []byte) []byte { *word(m, offCommit) = seal(0); return m }},
		{"table length", func(m []byte) []byte { *word(m, offTable) = seal(1 << 40); return m }},
		{"slot number", func(m []byte) []byte { *word(m, slotOffset(1, 0)) = 77; return m }},
		{"slot place", func(m []byte) []byte { *word(m, slotOffset(1, 0)+8) = 1<<63 | 9; return m }},
		{"slot state", func(m []byte) []byte { *word(m, slotOffset(1, 0)+16) ^= 1 << 50; return m }},
		{"slot kind", func(m []byte) []byte { *word(m, slotOffset(1, 0)+16) ^= 1 << 33; return m }},
		{"payload", func(m []byte) []byte { m[len(m)-granule]++; return m }},
		{"twin slots", func(m []byte) []byte { copy(m[slotOffset(1, 1):], m[slotOffset(1, 0):slotOffset(1, 1)]); return m }},
		{"overlap", func(m []byte) []byte {
			s := slot{tx: 2, pos: 0, length: 7, kind: 2, state: stateLive}
			s.sum = s.checksum(2, []byte("payload"))
			*word(m, slotOffset(2, 0)+8), *word(m, slotOffset(2, 0)+16) = s.place(), s.detail()
			return m
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := c.damage(image())
			copied := bytes.Clone(mem)
			_, _, err := contents(mem)
			var ce *CorruptError
			if !errors.As(err, &ce) {
				t.Fatalf("opens with %v, want a CorruptError", err)
			}
			if !bytes.Equal(mem, copied) {
				t.Error("a refused image was changed")
			}
		})
	}
	t.Run("version", func(t *testing.T) {
		mem := image()
		*word(mem, offVersion) = 9
		_, _, err := contents(mem)
		var ve *VersionError
		if !errors.As(err, &ve) || ve.Found != 9 || ve.Supported != Version {
			t.Fatalf("opens with %v, want a VersionError", err)
		}
		if s := err.Error(); !strings.Contains(s, "version 9") || !strings.Contains(s, "version 1") {
			t.Errorf("message %q does not name both versions", s)
		}
	})
	t.Run("memory", func(t *testing.T) {
		for _, mem := range [][]byte{nil, memory(MinBytes - 1), memory(MinBytes + 1), memory(MinBytes + 64)[1:]} {
			if _, err := Open(mem, nil); err == nil {
				t.Errorf("opens %d bytes", len(mem))
			}
			if _, err := Format(mem, ""); err == nil {
				t.Errorf("formats %d bytes", len(mem))
			}
		}
		if _, err := Format(memory(MinBytes), strings.Repeat("l", MaxLabelBytes+1)); err == nil {
			t.Error("takes a label that is too long")
		}
		if r, err := Format(memory(MinBytes), strings.Repeat("l", MaxLabelBytes)); err != nil {
			t.Error(err)
		} else if _, again := mustOpen(t, r.mem); len(again.Label()) != MaxLabelBytes {
			t.Error("the longest label is not kept")
		}
	})
	t.Run("visit", func(t *testing.T) {
		stop := errors.New("stop")
		if _, err := Open(image(), func(RecID, Kind, []byte) error { return stop }); err != stop {
			t.Errorf("opens with %v, want visit's error", err)
		}
	})
}

func TestTransactionNumbersRunOut(t *testing.T) {
	r := mustFormat(t, MinBytes)
	*word(r.mem, offCommit) = seal(maxTransaction - 1)
	_, r = mustOpen(t, r.mem)
	tx := r.Begin()
	tx.Insert(1, nil)
	mustCommit(t, tx)
	tx = r.Begin()
	tx.Insert(1, nil)
	if err := tx.Commit(); err != ErrExhausted {
		t.Fatalf("commits with %v, want ErrExhausted", err)
	}
	if err := check(r); err != nil {
		t.Fatal(err)
	}
}

// A mapped region keeps few pages resident, and freed room is used before new.
func TestSparse(t *testing.T) {
	const size = 64 << 20
	fd, err := unix.MemfdCreate("ledger-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	}()
	r, err := Format(mem, "sparse")
	if err != nil {
		t.Fatal(err)
	}
	var ids []RecID
	payload := make([]byte, 300)
	for i := range 20_000 {
		tx := r.Begin()
		ids = append(ids, tx.Insert(1, payload))
		if len(ids) > 100 {
			victim := i * 7919 % 100
			tx.Delete(ids[victim])
			ids[victim] = ids[100]
			ids = ids[:100]
		}
		mustCommit(t, tx)
	}
	if _, _, err := contents(mem); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	resident, bound := st.Blocks*512, int64(128<<10)
	if resident > bound {
		t.Errorf("%d bytes resident after 20,000 transactions over 100 records, want at most %d", resident, bound)
	}
	if s := r.Stats(); s.TouchedBytes > bound || s.UsedBytes > s.TouchedBytes {
		t.Errorf("stats %+v", s)
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	r, step := pairOfUpdates(t)
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Errorf("%v allocations a transaction, want 0", n)
	}
	if err := check(r); err != nil {
		t.Fatal(err)
	}
}

func pairOfUpdates(tb testing.TB) (*Region, func()) {
	r := mustFormat(tb, 8<<20)
	payload := bytes.Repeat([]byte("p"), 300)
	tx := r.Begin()
	var ids [4096]RecID
	for i := range ids {
		ids[i] = tx.Insert(1, payload)
	}
	mustCommit(tb, tx)
	i := 0
	return r, func() {
		tx := r.Begin()
		tx.Update(ids[i%4096], payload)
		tx.Update(ids[(i*31+1)%4096], payload)
		i++
		if err := tx.Commit(); err != nil {
			tb.Fatal(err)
		}
	}
}

func BenchmarkCommitTwoUpdates(b *testing.B) {
	_, step := pairOfUpdates(b)
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
}

func BenchmarkInsertDelete(b *testing.B) {
	for _, live := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(live), func(b *testing.B) {
			r := mustFormat(b, 128<<20)
			payload := bytes.Repeat([]byte("p"), 300)
			tx := r.Begin()
			ids := make([]RecID, live)
			for i := range ids {
				ids[i] = tx.Insert(1, payload[:1+i*37%300])
			}
			mustCommit(b, tx)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				tx := r.Begin()
				at := i * 7919 % live
				tx.Delete(ids[at])
				ids[at] = tx.Insert(1, payload[:1+i*41%300])
				i++
				if err := tx.Commit(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	r := mustFormat(b, 64<<20)
	tx := r.Begin()
	for range 50_000 {
		tx.Insert(1, make([]byte, 300))
	}
	mustCommit(b, tx)
	for b.Loop() {
		if _, err := Open(r.mem, nil); err != nil {
			b.Fatal(err)
		}
	}
}
