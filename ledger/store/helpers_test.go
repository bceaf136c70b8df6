package store

import (
	"fmt"
	"maps"
	"testing"
)

// state is what a region should hold, as the tests model it.
type state map[RecID]record

type record struct {
	kind    Kind
	payload string
}

// memory is zeroed and aligned like a fresh mapping.
func memory(n int) []byte { return make([]byte, n) }

// contents opens an image and returns what it holds.
func contents(mem []byte) (state, *Region, error) {
	got := state{}
	r, err := Open(mem, func(id RecID, k Kind, p []byte) error {
		got[id] = record{k, string(p)}
		return nil
	})
	return got, r, err
}

func mustOpen(t testing.TB, mem []byte) (state, *Region) {
	t.Helper()
	got, r, err := contents(mem)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return got, r
}

func mustFormat(t testing.TB, bytes int) *Region {
	t.Helper()
	r, err := Format(memory(bytes), "test")
	if err != nil {
		t.Fatalf("format: %v", err)
	}
	return r
}

func mustCommit(t testing.TB, tx *Tx) {
	t.Helper()
	if err := tx.Commit(); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

// check compares everything a region knows beside its memory with its memory.
func check(r *Region) error {
	if err := checkArena(&r.arena); err != nil {
		return err
	}
	got, again, err := contents(append([]byte(nil), r.mem...))
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	for id, want := range got {
		k, p, ok := r.Read(id)
		if !ok || k != want.kind || string(p) != want.payload {
			return fmt.Errorf("record %d reads %v %d %q, reopened %+v", id, ok, k, p, want)
		}
	}
	a, b := r.Stats(), again.Stats()
	if a != b {
		return fmt.Errorf("stats %+v, reopened %+v", a, b)
	}
	if len(got) != a.Records || len(r.free)+a.Records != len(r.recs) {
		return fmt.Errorf("%d records, %d free, table %d, counted %d", a.Records, len(r.free), len(r.recs), len(got))
	}
	return nil
}

// checkArena walks the runs from the first granule to the last and the bins.
func checkArena(a *arena) error {
	if a.top > a.limit {
		return fmt.Errorf("top %d is over limit %d", a.top, a.limit)
	}
	var used, free uint32
	wasFree := false
	for pos := uint32(0); pos < a.top; {
		t := a.tags[pos]
		if t.n == 0 || pos+t.n > a.top {
			return fmt.Errorf("run at %d has length %d under top %d", pos, t.n, a.top)
		}
		last := a.tags[pos+t.n-1]
		if last.n != t.n || last.free != t.free {
			return fmt.Errorf("run at %d: first and last tag differ", pos)
		}
		if t.free && (wasFree || pos+t.n == a.top) {
			return fmt.Errorf("run at %d was not joined with its neighbour", pos)
		}
		if t.free {
			free++
		} else {
			used += t.n
		}
		wasFree = t.free
		pos += t.n
	}
	if used != a.used {
		return fmt.Errorf("%d granules in use, counted %d", a.used, used)
	}
	for b := range bins {
		if (a.heads[b] != 0) != (a.set[b/64]&(1<<(b%64)) != 0) {
			return fmt.Errorf("bin %d: the bitmap is wrong", b)
		}
		prev := uint32(0)
		for at := a.heads[b]; at != 0; at = a.tags[at-1].next {
			t := a.tags[at-1]
			if !t.free || binOf(t.n) != b || t.prev != prev {
				return fmt.Errorf("bin %d lists a wrong run at %d", b, at-1)
			}
			prev = at
			if free--; free > a.top {
				return fmt.Errorf("bin %d lists more runs than there are", b)
			}
		}
	}
	if free != 0 {
		return fmt.Errorf("%d free runs are in no bin", free)
	}
	return nil
}

func equal(a, b state) bool { return maps.Equal(a, b) }
