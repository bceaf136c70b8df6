package eviction

import (
	"github.com/isobar-project/isobar/clock"
)

// Panel is every policy at once: each hears of everything that happens, so that a client
// can choose any of them when room is made. As a Policy it speaks for its default, which
// is what decides where nobody chose.
type Panel struct {
	speaker *Cost
	members map[string]Policy
	all     []Policy // each once, in a fixed order
}

var (
	_ Bookkeeper = (*Panel)(nil)
	_ Listener   = (*Panel)(nil)
)

// NewPanel makes the panel of all policies. Its default is Cost, the policy that reloads
// least on the traces of package replay.
func NewPanel() *Panel {
	speaker := NewCost(DefaultRemembered)
	p := &Panel{speaker: speaker, all: []Policy{speaker, NewGDSF(DefaultRemembered), NewLRU(), NewLFU(), NewFIFO(), NewSize()}}
	p.members = make(map[string]Policy, len(p.all))
	for _, m := range p.all {
		p.members[m.Name()] = m
	}
	return p
}

// Choose returns the member of that name; "" is the default.
func (p *Panel) Choose(name string) (Policy, bool) {
	if name == "" {
		return p.speaker, true
	}
	m, ok := p.members[name]
	return m, ok
}

// Name implements Policy.
func (p *Panel) Name() string { return p.speaker.Name() }

// Loaded implements Policy.
func (p *Panel) Loaded(o Object, now clock.Instant) {
	for _, m := range p.all {
		m.Loaded(o, now)
	}
}

// Used implements Policy.
func (p *Panel) Used(key string, now clock.Instant) {
	for _, m := range p.all {
		m.Used(key, now)
	}
}

// Evicted implements Policy.
func (p *Panel) Evicted(key string, now clock.Instant) {
	for _, m := range p.all {
		m.Evicted(key, now)
	}
}

// Removed implements Policy.
func (p *Panel) Removed(key string) {
	for _, m := range p.all {
		m.Removed(key)
	}
}

// Value implements Policy: the default's.
func (p *Panel) Value(key string, now clock.Instant) float64 { return p.speaker.Value(key, now) }

// Worth implements Bookkeeper: the default's.
func (p *Panel) Worth(key string) *Worth { return p.speaker.Worth(key) }

// worthPerByte says that the default's values are worth per byte.
func (p *Panel) worthPerByte() {}

// prospect implements foreseer: the default's.
func (p *Panel) prospect(key string) (float64, bool) { return p.speaker.prospect(key) }

// recalled implements foreseer: the default's.
func (p *Panel) recalled(key string) (float64, bool) { return p.speaker.recalled(key) }

// Heard implements Listener: the default listens.
func (p *Panel) Heard(o Object, now clock.Instant) { p.speaker.Heard(o, now) }
