package cover

import (
	"testing"

	"pgregory.net/rapid"
)

// What is claimed, disclaimed and closed agrees with a map of bytes: each is set to zero unless
// it was written, and none that was.
func TestCoverAgreesWithAMap(t *testing.T) {
	const total = 40
	rapid.Check(t, func(t *rapid.T) {
		var c Cover
		c.Begin(total)
		var written [total]bool
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			off := rapid.Int64Range(0, total).Draw(t, "off")
			n := rapid.Int64Range(0, total-off).Draw(t, "n")
			claim := rapid.Bool().Draw(t, "claim")
			before := written
			fresh := c.Claim(off, n)
			for i := off; i < off+n; i++ {
				written[i] = true
			}
			news := [total]bool{}
			for _, f := range fresh {
				for i := f.At; i < f.End; i++ {
					news[i] = true
				}
			}
			for i := range int64(total) {
				if want := i >= off && i < off+n && !before[i]; news[i] != want {
					t.Fatalf("claim of %d bytes at %d: byte %d is fresh %v, want %v", n, off, i, news[i], want)
				}
			}
			if !claim {
				from := rapid.Int64Range(0, total).Draw(t, "from")
				c.Disclaim(fresh, from)
				for i := max(from, off); i < off+n; i++ {
					written[i] = before[i]
				}
			}
			for i, s := range c.spans {
				if s.At >= s.End || i > 0 && c.spans[i-1].End > s.At {
					t.Fatalf("spans %v", c.spans)
				}
			}
		}
		set := func(gaps []Span) error {
			for _, g := range gaps {
				for i := g.At; i < g.End; i++ {
					if written[i] {
						t.Fatalf("byte %d is set to zero and was written; gaps %v", i, gaps)
					}
					written[i] = true
				}
			}
			return nil
		}
		if err := c.Close(set); err != nil {
			t.Fatal(err)
		}
		for i, ok := range written {
			if !ok {
				t.Fatalf("byte %d was not set to zero", i)
			}
		}
		c.Claim(0, 1) // from now on all is written
		if err := c.Close(func([]Span) error { t.Fatal("closed twice"); return nil }); err != nil {
			t.Fatal(err)
		}
	})
}
