package history

import (
	"fmt"
	"sort"
	"time"
)

// Held is a grant as the rule for leaks sees it.
type Held struct {
	Owner             string
	Bytes             int64
	Created, LastUsed time.Time
	Mapped            bool // somebody has it mapped now
	Kept              bool // persistent, leased, or a reservation: meant to be there unmapped
}

// Unused reports whether a grant is suspected by itself: nobody maps it, nothing keeps it,
// and nobody has mapped it or asked for a handle for UnusedAfter.
func (h *Held) Unused(now time.Time) bool {
	return !h.Mapped && !h.Kept && now.Sub(h.LastUsed) >= UnusedAfter
}

// UnusedAfter is how long a grant may lie there before it is suspected.
const UnusedAfter = 15 * time.Minute

// Suspect is an owner whose bytes look like a leak.
type Suspect struct {
	Owner              string
	Bytes              int64 // suspected
	GrowthBytesPerHour float64
	OldestUnused       time.Duration
	Reason             string
}

// quarters is into how many parts the window of the growth rule falls.
const quarters = 4

// Suspects finds the owners whose bytes only grow, the worst first. There are two rules.
// Unused: grants that are Unused. Growth: of the owner's grants that are still there, some
// were made in each quarter of the window, and they outweigh what is older: who gives back
// what it no longer needs has most of its grants in the last quarter, or all in the first.
func Suspects(held []Held, now time.Time, window time.Duration) []Suspect {
	type sum struct {
		Suspect
		unused  int
		made    [quarters]int
		grown   int64
		earlier int64
	}
	owners := map[string]*sum{}
	for i := range held {
		g := &held[i]
		s := owners[g.Owner]
		if s == nil {
			s = &sum{Suspect: Suspect{Owner: g.Owner}}
			owners[g.Owner] = s
		}
		if g.Unused(now) {
			s.unused++
			s.Bytes += g.Bytes
			s.OldestUnused = max(s.OldestUnused, now.Sub(g.LastUsed))
		}
		if age := now.Sub(g.Created); age < window && age >= 0 {
			s.made[int(age*quarters/window)]++
			s.grown += g.Bytes
		} else {
			s.earlier += g.Bytes
		}
	}
	var out []Suspect
	for _, s := range owners {
		s.GrowthBytesPerHour = float64(s.grown) / window.Hours()
		grows := s.grown > s.earlier
		for _, n := range s.made {
			grows = grows && n > 0
		}
		switch {
		case s.unused > 0:
			s.Reason = fmt.Sprintf("%d grants that nobody maps, the oldest unused for %s", s.unused, s.OldestUnused.Round(time.Second))
		case grows:
			s.Bytes = s.grown
			s.Reason = fmt.Sprintf("its grants grew in each quarter of the last %s and none of these were given back", window)
		default:
			continue
		}
		out = append(out, s.Suspect)
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Bytes > out[j].Bytes || out[i].Bytes == out[j].Bytes && out[i].Owner < out[j].Owner
	})
	return out
}
