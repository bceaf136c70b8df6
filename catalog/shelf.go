package catalog

import (
	"fmt"

	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
)

// shelf is the sealed copies of one device as the planner sees them. What a plan or a sum
// needs of a copy lies in a dozen places; of ten thousand they are not gathered anew each
// time, but when something of the copy has changed.
type shelf struct {
	candidates  []eviction.Candidate // in no order
	copies      []*Copy              // whose they are
	reclaimable int64                // bytes that letting go of unread models would yield
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
		s.reclaimable -= reclaimable(&s.candidates[cp.place])
	}
	switch there := cp.State == Sealed && c.grants[cp.Grant] == cp; {
	case there && !cp.shelved:
		cp.shelved, cp.place = true, len(s.copies)
		s.copies = append(s.copies, cp)
		s.candidates = append(s.candidates, c.candidate(cp))
	case there:
		s.candidates[cp.place] = c.candidate(cp)
	case cp.shelved:
		last := len(s.copies) - 1
		moved := s.copies[last]
		s.copies[cp.place], s.candidates[cp.place] = moved, s.candidates[last]
		moved.place = cp.place
		s.copies[last], s.candidates[last] = nil, eviction.Candidate{}
		s.copies, s.candidates = s.copies[:last], s.candidates[:last]
		cp.shelved, cp.place = false, 0
		return
	default:
		return
	}
	s.reclaimable += reclaimable(&s.candidates[cp.place])
}

// candidate is a sealed copy as the planner sees it, whoever asks. A version that has lost its name is
// another object than the one that has it, and unknown to the policy.
func (c *Catalog) candidate(cp *Copy) eviction.Candidate {
	x := eviction.Candidate{
		Object: object(cp), Pinned: cp.Model.Pinned, Readers: cp.Readers(), Priority: cp.Model.Priority,
		LastUsed: cp.UsedAt, Group: cp.Model.Tenant, Grace: cp.grace(),
	}
	if len(cp.feeds) > 0 {
		x.Excluded = "it is being copied"
	}
	if cp.Model.Superseded {
		x.Key += "@" + cp.Model.VersionString()
	} else if b, ok := c.policy.(eviction.Bookkeeper); ok {
		x.Worth = b.Worth(x.Key)
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
func (c *Catalog) Reclaimable(device string) (bytes int64) { return c.shelf(device).reclaimable }

// ReclaimableOf is what of that belongs to each of some tenants; nil where there are none.
func (c *Catalog) ReclaimableOf(device string, tenants []ledger.TenantFigures) map[string]int64 {
	if len(tenants) == 0 {
		return nil
	}
	of := make(map[string]int64, len(tenants))
	for _, t := range tenants {
		of[t.Tenant] = 0
	}
	s := c.shelf(device)
	for i := range s.candidates {
		x := &s.candidates[i]
		if _, asked := of[x.Group]; asked {
			of[x.Group] += reclaimable(x)
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
	}
	for device, s := range c.shelves {
		var bytes int64
		for _, cp := range s.copies {
			there--
			if cp.evictable() {
				bytes += cp.Granted
			}
		}
		if bytes != s.reclaimable || len(s.copies) != len(s.candidates) {
			return fmt.Errorf("catalog: %d bytes of %s can be reclaimed, said are %d", bytes, device, s.reclaimable)
		}
	}
	if there != 0 {
		return fmt.Errorf("catalog: %d sealed copies more than on the shelves", there)
	}
	return nil
}
