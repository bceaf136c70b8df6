package catalog

import "fmt"

// index finds models by their names, and numbers their tenants: plans name either, and are
// made too often for looking at each model.
type index struct {
	named   map[string][]*Model // every version, of whichever tenant, in no order
	tenants map[string]*tenant
	free    []int // numbers of tenants that have no model any more
}

// tenant is one that has models.
type tenant struct{ number, models int }

func newIndex() index {
	return index{named: map[string][]*Model{}, tenants: map[string]*tenant{}}
}

// enter takes in a model.
func (x *index) enter(m *Model) {
	x.named[m.Name] = append(x.named[m.Name], m)
	t := x.tenants[m.Tenant]
	if t == nil {
		t = &tenant{number: len(x.tenants)}
		if last := len(x.free) - 1; last >= 0 {
			t.number, x.free = x.free[last], x.free[:last]
		}
		x.tenants[m.Tenant] = t
	}
	t.models++
}

// leave takes a model out.
func (x *index) leave(m *Model) {
	same := x.named[m.Name]
	for i, other := range same {
		if other == m {
			last := len(same) - 1
			same[i], same[last] = same[last], nil
			same = same[:last]
			break
		}
	}
	if x.named[m.Name] = same; len(same) == 0 {
		delete(x.named, m.Name)
	}
	t := x.tenants[m.Tenant]
	if t.models--; t.models == 0 {
		delete(x.tenants, m.Tenant)
		x.free = append(x.free, t.number)
	}
}

// group is the number of a tenant, below groups; it reports false where he has no model.
func (x *index) group(tenant string) (number int, ok bool) {
	if t := x.tenants[tenant]; t != nil {
		return t.number, true
	}
	return 0, false
}

// groups is how many numbers there are.
func (x *index) groups() int { return len(x.tenants) + len(x.free) }

// list takes in a model: it has a number by which it is found.
func (c *Catalog) list(m *Model) {
	c.all[m.ID] = m
	c.index.enter(m)
}

// checkIndex says what of the models is not listed as it is.
func (c *Catalog) checkIndex() error {
	models, numbers := 0, map[int]bool{}
	for name, same := range c.index.named {
		for _, m := range same {
			models++
			if c.all[m.ID] != m || m.Name != name {
				return fmt.Errorf("catalog: model %d %q is listed by the name %q", m.ID, m.Name, name)
			}
		}
	}
	for _, number := range c.index.free {
		numbers[number] = true
	}
	of := 0
	for name, t := range c.index.tenants {
		of += t.models
		if numbers[t.number] || t.number >= c.index.groups() {
			return fmt.Errorf("catalog: tenant %q has number %d, as another has", name, t.number)
		}
		numbers[t.number] = true
	}
	if models != len(c.all) || of != models {
		return fmt.Errorf("catalog: there are %d models, %d are listed by their names and %d by their tenants", len(c.all), models, of)
	}
	loading, leaving := len(c.loading), len(c.leaving)
	for _, m := range c.all {
		for _, cp := range m.copies {
			if (cp.State == Loading) != c.loading[cp] || (cp.State == Revoking) != c.leaving[cp] {
				return fmt.Errorf("catalog: %s is %s, and not listed as such", cp.Key(), cp.State)
			}
			switch cp.State {
			case Loading:
				loading--
			case Revoking:
				leaving--
			}
		}
	}
	if loading != 0 || leaving != 0 {
		return fmt.Errorf("catalog: %d copies more are listed as loading, and %d as revoking, than there are", loading, leaving)
	}
	return nil
}
