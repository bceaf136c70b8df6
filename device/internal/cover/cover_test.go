//go:build linux

package cuda

import (
	"testing"

	"pgregory.net/rapid"
)

// What is claimed, disclaimed and closed agrees with a map of bytes: each is set to zero unless
// it was written, and none that was.
func TestCoverAgreesWithAMap(t *testing.T) {
	const total = 40
	rapid.Check(t, func(t *rapid.T) {
		var c cover
		c.begin(total)
		var written [total]bool
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			off := rapid.Int64Range(0, total).Draw(t, "off")
			n := rapid.Int64Range(0, total-off).Draw(t, "n")
			claim := rapid.Bool().Draw(t, "claim")
			if claim {
				c.claim(off, n)
			} else {
				c.disclaim(off, n)
			}
			for i := off; i < off+n; i++ {
				written[i] = claim
			}
			for i, s := range c.spans {
				if s.at >= s.end || i > 0 && c.spans[i-1].end > s.at {
					t.Fatalf("spans %v", c.spans)
				}
			}
		}
		set := func(gaps []span) error {
			for _, g := range gaps {
				for i := g.at; i < g.end; i++ {
					if written[i] {
						t.Fatalf("byte %d is set to zero and was written; gaps %v", i, gaps)
					}
					written[i] = true
				}
			}
			return nil
		}
		if err := c.close(set); err != nil {
			t.Fatal(err)
		}
		for i, ok := range written {
			if !ok {
				t.Fatalf("byte %d was not set to zero", i)
			}
		}
		c.claim(0, 1) // from now on all is written
		if err := c.close(func([]span) error { t.Fatal("closed twice"); return nil }); err != nil {
			t.Fatal(err)
		}
	})
}
