package catalog

import (
	"fmt"
	"slices"

	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
)

// shelf is the sealed copies of one device as the planner sees them. What a plan or a sum
// needs of a copy lies in a dozen places; of ten thousand they are not gathered anew each
// time, but when something of the copy has changed.
type shelf struct {
	copies     []*Copy              // in no order
	candidates []eviction.Candidate // of each
	worths     []worths             // of each, by the policies that were asked so far
	// reclaimable is the bytes that letting go of unread models would yield, by the number of
	// their tenant.
	reclaimable []int64
}

// worths is where a policy keeps what it holds the copies of a shelf worth.
type worths struct {
	policy eviction.Bookkeeper
	of     []*eviction.Worth
}

// touched notes that something of a copy, or of its model, is not as it was. It may be called
// before the change or after it, within one call of the catalog.
func (c *Catalog) touched(cp *Copy) {
	c.stale(cp) // it may have left its model
	c.touchedModel(cp.Model)
}

// touchedModel is touched for all copies: what one of them costs depends on the others.
func (c *Catalog) touchedModel(m *Model) {
	for _, cp := range m.copies {
		c.stale(cp)
	}
}

func (c *Catalog) stale(cp *Copy) {
	if !cp.stale {
		cp.stale = true
		c.unshelved = append(c.unshelved, cp)
	}
}

// shelf returns what a device holds, as it is now.
func (c *Catalog) shelf(device string) *shelf {
	for i, cp := range c.unshelved {
		c.shelve(cp)
		c.unshelved[i] = nil
	}
	c.unshelved = c.unshelved[:0]
	return c.shelfAsItWas(device)
}

// shelfAsItWas is shelf without what has changed since it was last asked for.
func (c *Catalog) shelfAsItWas(device string) *shelf {
	s := c.shelves[device]
	if s == nil {
		s = new(shelf)
		c.shelves[device] = s
	}
	return s
}

// shelve puts a copy where it belongs, or takes it away.
func (c *Catalog) shelve(cp *Copy) {
	cp.stale = false
	s := c.shelfAsItWas(cp.Device)
	if cp.shelved {
		s.count(cp.place, -1)
	}
	switch there := cp.State == Sealed && c.grants[cp.Grant] == cp; {
	case there && !cp.shelved:
		cp.shelved, cp.place = true, len(s.copies)
		s.grow(cp)
	case there:
	case cp.shelved:
		s.shrink(cp)
		return
	default:
		return
	}
	s.candidates[cp.place] = c.candidate(cp)
	for i := range s.worths {
		s.worths[i].of[cp.place] = worth(cp, s.worths[i].policy)
	}
	s.count(cp.place, +1)
}

// grow makes a place at the end for a copy.
func (s *shelf) grow(cp *Copy) {
	s.copies = append(s.copies, cp)
	s.candidates = append(s.candidates, eviction.Candidate{})
	for i := range s.worths {
		s.worths[i].of = append(s.worths[i].of, nil)
	}
}

// shrink gives the place of a copy to the last one.
func (s *shelf) shrink(cp *Copy) {
	last := len(s.copies) - 1
	moved := s.copies[last]
	s.copies[cp.place], s.candidates[cp.place] = moved, s.candidates[last]
	moved.place = cp.place
	s.copies[last], s.candidates[last] = nil, eviction.Candidate{}
	s.copies, s.candidates = s.copies[:last], s.candidates[:last]
	for i := range s.worths {
		of := s.worths[i].of
		of[cp.place], of[last] = of[last], nil
		s.worths[i].of = of[:last]
	}
	cp.shelved, cp.place = false, 0
}

// count adds what the copy at a place holds to what can be reclaimed, or takes it off.
func (s *shelf) count(place int, sign int64) {
	x := &s.candidates[place]
	for x.Group >= len(s.reclaimable) {
		s.reclaimable = append(s.reclaimable, 0)
	}
	s.reclaimable[x.Group] += sign * reclaimable(x)
}

// worthsBy is where a policy keeps what it holds each copy worth; nil for one that does not.
func (s *shelf) worthsBy(p eviction.Policy) []*eviction.Worth {
	policy, ok := p.(eviction.Bookkeeper)
	if !ok {
		return nil
	}
	for i := range s.worths {
		if s.worths[i].policy == policy {
			return s.worths[i].of
		}
	}
	w := worths{policy: policy, of: make([]*eviction.Worth, len(s.copies))}
	for i, cp := range s.copies {
		w.of[i] = worth(cp, policy)
	}
	s.worths = append(s.worths, w)
	return w.of
}

// worth is where a policy keeps what it holds a copy worth. A version that has lost its name is
// another object than the one that has it, and unknown to the policy.
func worth(cp *Copy, policy eviction.Bookkeeper) *eviction.Worth {
	if cp.Model.Superseded {
		return nil
	}
	return policy.Worth(cp.Key())
}

// candidate is a sealed copy as the planner sees it, whoever asks.
func (c *Catalog) candidate(cp *Copy) eviction.Candidate {
	x := eviction.Candidate{
		Object: object(cp), Pinned: cp.Model.Pinned, Readers: cp.Readers(), Priority: cp.Model.Priority,
		LastUsed: cp.UsedAt, Grace: cp.grace(), Doubled: cp.doubled(),
	}
	x.Group, _ = c.index.group(cp.Model.Tenant)
	if len(cp.feeds) > 0 {
		x.Excluded = "it is being copied"
	}
	if cp.Model.Superseded {
		x.Key += "@" + cp.Model.VersionString()
	}
	return x
}

func reclaimable(x *eviction.Candidate) int64 {
	if x.Pinned || x.Readers > 0 || x.Excluded != "" {
		return 0
	}
	return x.Bytes
}

// Reclaimable sums the bytes on a device that letting go of unread models would yield.
func (c *Catalog) Reclaimable(device string) (bytes int64) {
	for _, of := range c.shelf(device).reclaimable {
		bytes += of
	}
	return bytes
}

// ReclaimableOf is what of that belongs to each of some tenants; nil where there are none.
func (c *Catalog) ReclaimableOf(device string, tenants []ledger.TenantFigures) map[string]int64 {
	if len(tenants) == 0 {
		return nil
	}
	s := c.shelf(device)
	of := make(map[string]int64, len(tenants))
	for _, t := range tenants {
		of[t.Tenant] = 0
		if group, ok := c.index.group(t.Tenant); ok && group < len(s.reclaimable) {
			of[t.Tenant] = s.reclaimable[group]
		}
	}
	return of
}

// checkShelves gathers all shelves anew and says what they had wrong.
func (c *Catalog) checkShelves() error {
	there := 0
	for _, cp := range c.grants {
		s := c.shelf(cp.Device)
		if cp.State != Sealed {
			continue
		}
		there++
		if !cp.shelved || s.copies[cp.place] != cp || s.candidates[cp.place] != c.candidate(cp) {
			return fmt.Errorf("catalog: %s is not on the shelf as it is, which is %+v", cp.Key(), c.candidate(cp))
		}
		for _, w := range s.worths {
			if w.of[cp.place] != worth(cp, w.policy) {
				return fmt.Errorf("catalog: what %s is worth by %s is looked for in the wrong place", cp.Key(), w.policy.Name())
			}
		}
	}
	for device, s := range c.shelves {
		bytes := make([]int64, len(s.reclaimable))
		for i, cp := range s.copies {
			there--
			if cp.evictable() {
				bytes[s.candidates[i].Group] += cp.Granted
			}
		}
		if !slices.Equal(bytes, s.reclaimable) || len(s.copies) != len(s.candidates) {
			return fmt.Errorf("catalog: %d bytes of %s can be reclaimed, said are %d", bytes, device, s.reclaimable)
		}
	}
	if there != 0 {
		return fmt.Errorf("catalog: %d sealed copies more than on the shelves", there)
	}
	return nil
}
