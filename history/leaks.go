package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Held is a grant as the rules for leaks see it.
type Held struct {
	ID                string
	Owner             string
	Bytes             int64
	Created, LastUsed time.Time
	Mapped            bool // somebody has it mapped now
	Kept              bool // persistent, leased, or a reservation: meant to be there unmapped
	// Gone says what has become of its owner, where that is not there any more, and nothing else
	// will end the grant; "": the owner is there, or there never was one that could go.
	Gone string
}

// unused reports whether nobody maps a grant, and nobody has mapped it or asked for a handle
// for UnusedAfter.
func (h *Held) unused(now time.Time) bool { return !h.Mapped && now.Sub(h.LastUsed) >= UnusedAfter }

// Suspected is the kind of leak that a grant by itself is suspected to be; "": none.
func (h *Held) Suspected(now time.Time) LeakKind {
	switch {
	case !h.unused(now):
		return ""
	case h.Gone != "":
		return OwnerGone
	case !h.Kept:
		return Unused
	}
	return ""
}

// UnusedAfter is how long a grant may lie there before it is suspected.
const UnusedAfter = 15 * time.Minute

// LeakKind says by which rule something is suspected. The kinds are the contract's.
type LeakKind string

// The kinds of leaks.
const (
	Unused    LeakKind = "unused"     // nothing keeps it, and nobody uses it
	OwnerGone LeakKind = "owner_gone" // it outlived its owner, and nobody uses it
	Growing   LeakKind = "growing"    // its owner's grants only become more
)

// Suspect is an owner whose bytes look like a leak.
type Suspect struct {
	Owner              string
	Kind               LeakKind
	Bytes              int64    // suspected
	Grants             int      // of so many
	IDs                []string // of these the largest, at most MaxIDs
	GrowthBytesPerHour float64
	OldestUnused       time.Duration
	Age                time.Duration // since the oldest of them was granted
	Reason, Fix        string

	largest []*Held
	gone    string
}

// MaxIDs is how many grants a suspect names.
const MaxIDs = 10

// quarters is into how many parts the window of the growth rule falls.
const quarters = 4

// Suspects finds the owners whose bytes look like leaks, the worst first. There are three
// rules. Unused: grants that nothing keeps and nobody uses. OwnerGone: grants that outlived
// their owner, and nobody uses. Growing: of the owner's grants that are still there, some were
// made in each quarter of the window, and they outweigh what is older: who gives back what it
// no longer needs has most of its grants in the last quarter, or all in the first.
func Suspects(held []Held, now time.Time, window time.Duration) []Suspect {
	owners := map[string]*ownerSum{}
	for i := range held {
		g := &held[i]
		s := owners[g.Owner]
		if s == nil {
			s = &ownerSum{by: map[LeakKind]*Suspect{}}
			owners[g.Owner] = s
		}
		s.add(g, now, window)
	}
	var out []Suspect
	for owner, s := range owners {
		if len(s.by) == 0 && s.grows() {
			for _, g := range s.young {
				s.suspect(Growing, g, now)
			}
		}
		for _, x := range s.by {
			x.GrowthBytesPerHour = float64(s.grown) / window.Hours()
			x.describe(owner, window)
			out = append(out, *x)
		}
	}
	slices.SortFunc(out, func(a, b Suspect) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Kind, b.Kind))
	})
	return out
}

// ownerSum is what one owner holds.
type ownerSum struct {
	by      map[LeakKind]*Suspect
	young   []*Held // made within the window
	made    [quarters]int
	grown   int64
	earlier int64
}

func (s *ownerSum) add(g *Held, now time.Time, window time.Duration) {
	if k := g.Suspected(now); k != "" {
		s.suspect(k, g, now)
	}
	if age := now.Sub(g.Created); age < window && age >= 0 {
		s.made[int(age*quarters/window)]++
		s.young = append(s.young, g)
		s.grown += g.Bytes
	} else {
		s.earlier += g.Bytes
	}
}

func (s *ownerSum) grows() bool {
	return s.grown > s.earlier && !slices.Contains(s.made[:], 0)
}

func (s *ownerSum) suspect(k LeakKind, g *Held, now time.Time) {
	x := s.by[k]
	if x == nil {
		x = &Suspect{Kind: k}
		s.by[k] = x
	}
	x.Bytes += g.Bytes
	x.Grants++
	x.Age = max(x.Age, now.Sub(g.Created))
	if g.unused(now) && now.Sub(g.LastUsed) >= x.OldestUnused {
		x.OldestUnused, x.gone = now.Sub(g.LastUsed), g.Gone
	}
	x.largest = append(x.largest, g)
	if len(x.largest) > 4*MaxIDs {
		x.trim()
	}
}

func (x *Suspect) trim() {
	slices.SortFunc(x.largest, func(a, b *Held) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.ID, b.ID)) })
	x.largest = x.largest[:min(len(x.largest), MaxIDs)]
}

// describe says why, and what to do.
func (x *Suspect) describe(owner string, window time.Duration) {
	x.Owner = owner
	x.trim()
	for _, g := range x.largest {
		x.IDs = append(x.IDs, g.ID)
	}
	x.largest = nil
	switch x.Kind {
	case Unused:
		x.Reason = fmt.Sprintf("%d grants that nobody maps, the oldest unused for %s", x.Grants, x.OldestUnused.Round(time.Second))
		x.Fix = "deallocate them; a lease_seconds or a session_id would have them end by themselves"
	case OwnerGone:
		x.Reason = fmt.Sprintf("%d grants that nobody maps, the oldest unused for %s: %s", x.Grants, x.OldestUnused.Round(time.Second), x.gone)
		x.Fix = "deallocate them, unless a successor of their owner still has to map them"
	case Growing:
		x.Reason = fmt.Sprintf("its grants grew in each quarter of the last %s and none of these were given back", window)
		x.Fix = "look in its owner for what is allocated again and again and never deallocated"
	}
}
