package catalog

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/ledger/store"
)

// Check recomputes what the catalog keeps in two ways and says what contradicts what. It
// is for tests and takes time in proportion to all there is.
func (c *Catalog) Check() error {
	grants, refs := 0, 0
	records := map[store.RecID]string{}
	note := func(rec store.RecID, what string) error {
		if rec != 0 && records[rec] != "" {
			return fmt.Errorf("catalog: record %d is %s and %s", rec, records[rec], what)
		}
		if rec != 0 {
			records[rec] = what
		}
		return nil
	}
	for id, m := range c.all {
		if m.ID != id || id >= c.next {
			return fmt.Errorf("catalog: model %d is listed as %d, the next is %d", m.ID, id, c.next)
		}
		if newest := c.models[nameKey(m.Tenant, m.Name)]; newest != m && !m.Superseded && (newest == nil || !newest.replaces(m)) {
			return fmt.Errorf("catalog: nothing leads to model %d %q", id, m.Name)
		}
		if err := note(m.rec, "a model"); err != nil {
			return err
		}
		if err := c.checkModel(m); err != nil {
			return err
		}
		for _, rec := range m.parked {
			if err := note(rec, "a parked copy"); err != nil {
				return err
			}
		}
		for d, cp := range m.copies {
			if cp.Device != d || cp.Model != m || cp.State == Failed {
				return fmt.Errorf("catalog: the copy of %q on %s is %s of %q on %s", m.Name, d, cp.State, cp.Model.Name, cp.Device)
			}
			if cp.Grant != uuid.Nil {
				grants++
				if c.grants[cp.Grant] != cp {
					return fmt.Errorf("catalog: the grant of %q on %s is not listed", m.Name, d)
				}
			}
			if (cp.rec != 0) != (cp.State != Loading) || cp.State == Loading && len(cp.waiters)+len(cp.demotions) == 0 || cp.State != Loading && len(cp.waiters)+len(cp.demotions) > 0 {
				return fmt.Errorf("catalog: the copy of %q on %s is %s with record %d and %d waiters", m.Name, d, cp.State, cp.rec, len(cp.waiters))
			}
			if cp.State == Sealed && len(cp.unloads) > 0 {
				return fmt.Errorf("catalog: the copy of %q on %s is sealed, and %d wait for its end", m.Name, d, len(cp.unloads))
			}
			if cp.from != nil && (!cp.from.feeds[cp] || cp.State != Loading) {
				return fmt.Errorf("catalog: the copy of %q on %s is %s, and said to be made of that on %s", m.Name, d, cp.State, cp.from.Device)
			}
			for f := range cp.feeds {
				if f.from != cp || f.Model.copies[f.Device] != f {
					return fmt.Errorf("catalog: the copy of %q on %s feeds none on %s", m.Name, d, f.Device)
				}
			}
			for id := range cp.refs {
				refs++
				if c.byRef[id] != cp {
					return fmt.Errorf("catalog: reference %s is not listed", id)
				}
			}
			if err := note(cp.rec, "a copy"); err != nil {
				return err
			}
			if err := c.checkCopy(cp); err != nil {
				return err
			}
		}
	}
	for k, m := range c.models {
		if c.all[m.ID] != m || nameKey(m.Tenant, m.Name) != k {
			return fmt.Errorf("catalog: the name %q means model %d, which is not listed", k, m.ID)
		}
	}
	for _, rec := range c.answers {
		if err := note(rec, "an answer"); err != nil {
			return err
		}
	}
	if grants != len(c.grants) || refs != len(c.byRef) {
		return fmt.Errorf("catalog: %d grants and %d references are listed, there are %d and %d", len(c.grants), len(c.byRef), grants, refs)
	}
	if c.ballast.Held() {
		records[0] = "the ballast"
	}
	if n := c.region.Stats().Records; n != len(records) {
		return fmt.Errorf("catalog: %d records, %d are known", n, len(records))
	}
	if err := c.checkIndex(); err != nil {
		return err
	}
	return c.checkShelves()
}

// replaces reports whether m is, or is to be, a later version of old.
func (m *Model) replaces(old *Model) bool {
	for p := m.prev; p != nil; p = p.prev {
		if p == old {
			return true
		}
	}
	return false
}

// checkModel compares a model with its record. When it was last used is told later.
func (c *Catalog) checkModel(m *Model) error {
	if m.rec == 0 {
		return nil
	}
	var r modelRecord
	_, payload, _ := c.region.Read(m.rec)
	if err := json.Unmarshal(payload, &r); err != nil {
		return fmt.Errorf("catalog: the record of model %q: %w", m.Name, err)
	}
	if r.ID != m.ID || r.Tenant != m.Tenant || r.Name != m.Name || r.ContentID != m.ContentID || r.Superseded != m.Superseded ||
		r.Pinned != m.Pinned || r.Shared != m.Shared || r.Priority != m.Priority || r.Version != m.Version {
		return fmt.Errorf("catalog: model %+v is recorded as %+v", *m, r)
	}
	return nil
}

func (c *Catalog) checkCopy(cp *Copy) error {
	if cp.rec == 0 {
		return nil
	}
	var r copyRecord
	_, payload, _ := c.region.Read(cp.rec)
	if err := json.Unmarshal(payload, &r); err != nil {
		return fmt.Errorf("catalog: the record of a copy of %q: %w", cp.Model.Name, err)
	}
	if r.Model != cp.Model.ID || r.Device != cp.Device || r.Grant != cp.Grant || r.Revoking != (cp.State == Revoking) || r.Force != cp.force || len(r.Refs) != len(cp.refs) {
		return fmt.Errorf("catalog: copy %+v is recorded as %+v", *cp, r)
	}
	return nil
}
