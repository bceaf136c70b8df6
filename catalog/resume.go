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
		c.moved(cp.Device)
	}
}

// Waiters are the refs of the requests that wait for the copy's load.
func (cp *Copy) Waiters() []any {
	out := make([]any, len(cp.waiters))
	for i, r := range cp.waiters {
		out[i] = r.Ref
	}
	return out
}
