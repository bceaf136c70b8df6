package health

import (
	"cmp"
	"slices"
	"sync"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// Change is a warning that came into force or is over.
type Change struct {
	Warning schemas.HealthWarning
	Raised  bool
}

// Board is the warnings in force. Make it with NewBoard.
type Board struct {
	clock  clock.Clock
	change func(Change)

	mu      sync.Mutex
	sources map[string][]schemas.HealthWarning
}

// NewBoard makes a board without warnings. change may be nil.
func NewBoard(c clock.Clock, change func(Change)) *Board {
	if change == nil {
		change = func(Change) {}
	}
	return &Board{clock: c, change: change, sources: map[string][]schemas.HealthWarning{}}
}

// identity is what makes two warnings the same one.
type identity struct {
	code            schemas.WarningCode
	device, subject string
}

func identityOf(w *schemas.HealthWarning) identity { return identity{w.Code, w.DeviceID, w.Subject} }

// Say replaces what a source has said before. Severity is filled in by the code where it is
// empty, Since always. A warning that only says the same in other words is no change.
func (b *Board) Say(source string, warnings ...schemas.HealthWarning) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.sources[source]
	now := b.clock.Wall()
	fresh := make([]schemas.HealthWarning, 0, len(warnings))
	var raised []Change
	for _, w := range warnings {
		same := func(o schemas.HealthWarning) bool { return identityOf(&o) == identityOf(&w) }
		if slices.ContainsFunc(fresh, same) {
			continue
		}
		if w.Severity == "" {
			w.Severity = schemas.SeverityOf(w.Code)
		}
		w.Since = now
		if i := slices.IndexFunc(old, same); i >= 0 {
			w.Since = old[i].Since
		} else {
			raised = append(raised, Change{w, true})
		}
		fresh = append(fresh, w)
	}
	for _, o := range old {
		if !slices.ContainsFunc(fresh, func(w schemas.HealthWarning) bool { return identityOf(&o) == identityOf(&w) }) {
			b.change(Change{o, false})
		}
	}
	if len(fresh) == 0 {
		delete(b.sources, source)
	} else {
		b.sources[source] = fresh
	}
	for _, c := range raised {
		b.change(c)
	}
}

// List is all warnings in force: the worst first, then by code, device and subject.
func (b *Board) List() []schemas.HealthWarning {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []schemas.HealthWarning{}
	for _, ws := range b.sources {
		out = append(out, ws...)
	}
	slices.SortFunc(out, func(x, y schemas.HealthWarning) int {
		return cmp.Or(cmp.Compare(rank(y.Severity), rank(x.Severity)), cmp.Compare(x.Code, y.Code),
			cmp.Compare(x.DeviceID, y.DeviceID), cmp.Compare(x.Subject, y.Subject))
	})
	return out
}

func rank(s schemas.Severity) int { return slices.Index(s.Names(), string(s)) }
