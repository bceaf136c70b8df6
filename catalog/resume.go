package catalog

import "github.com/isobar-project/isobar/ledger"

// Resume goes on with the releases that a predecessor had begun; called once, after
// Restore.
func (c *Catalog) Resume(now ledger.Now) {
	c.begin()
	for _, cp := range c.copies() {
		if cp.State == Revoking {
			c.out.Steps = append(c.out.Steps, Step{Kind: StepRelease, Copy: cp, Grant: cp.Grant, Force: cp.force, Why: cp.why})
		}
		c.moved(cp)
	}
}

// Waiters are the refs of the requests that wait for the copy: loads, and unloads that take
// the model to main memory.
func (cp *Copy) Waiters() []any {
	out := make([]any, 0, len(cp.waiters)+len(cp.demotions))
	for _, r := range cp.waiters {
		out = append(out, r.Ref)
	}
	for _, d := range cp.demotions {
		if ref := d.unload.Ref.(*batch).ref; ref != nil {
			out = append(out, ref)
		}
	}
	return out
}
