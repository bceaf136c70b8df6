package ledger

// LookAgain has every waiting request ask anew for the room that it lacks: a plan of the
// optimizer has ended, and what it freed is back.
func (d *Device) LookAgain(now Now) {
	d.begin()
	d.askAnew()
	d.pump(now)
}

// Maps reports whether a session holds descriptors of the grant.
func (g *Grant) Maps(s SessionID) bool { return g.mapper(s) != nil }

// Leave takes one who joined a running command off its waiters. It reports whether the
// command still runs and ref waited.
func (a *Answers) Leave(key string, ref any) bool {
	o, ok := a.m[key]
	if !ok || o.done != nil {
		return false
	}
	for i, r := range o.running {
		if r == ref && i > 0 {
			o.running = append(o.running[:i], o.running[i+1:]...)
			return true
		}
	}
	return false
}
