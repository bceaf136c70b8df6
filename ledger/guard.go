package ledger

import (
	"fmt"
	"strings"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// Guard says that room for a request would be that of models which were just loaded and are
// worth no less than what it is for. They are kept for a while; then it is looked again.
type Guard struct {
	Until  clock.Instant
	Models []string // as the request's tenant may know them
	// Short is true where even then there would not be enough.
	Short bool
}

// Reason says it in words.
func (g *Guard) Reason(now Now) string {
	left := g.left(now).Round(time.Millisecond)
	switch len(g.Models) {
	case 0:
		return fmt.Sprintf("what could go was just loaded and is worth no less: it is kept for another %v", left)
	case 1:
		return fmt.Sprintf("model %s was just loaded and is worth no less: it is kept for another %v", g.Models[0], left)
	}
	return fmt.Sprintf("models %s were just loaded and are worth no less: they are kept for another %v", strings.Join(g.Models, ", "), left)
}

// brief is how long one who does not queue waits for a guard, as he waits for a release.
const brief = 250 * time.Millisecond

// Brief reports whether even one who does not queue waits for it.
func (g *Guard) Brief(now Now) bool { return !g.Short && g.left(now) <= brief }

// left is for how long they are still kept.
func (g *Guard) left(now Now) time.Duration { return max(0, g.Until.Sub(now.Boot)) }

// Guarded is the optimizer's word that a request has to wait because of a guard. One that
// would not queue is refused, with when to come again, unless the guard is Brief; for any
// other room is looked for anew when the guard ends.
func (d *Device) Guarded(t Ticket, g Guard, now Now) {
	d.begin()
	r := d.waits(t)
	switch {
	case r == nil:
		return
	case !r.held && d.line.Head().Of != r && r.Patience > 0:
		r.wanted = 0 // it has fallen behind: it asks again at the head
		return
	}
	r.guard, r.reason = &g, g.Reason(now)
	if r.Patience > 0 || g.Brief(now) {
		d.at(timer{at: g.Until, kind: timerGuard, ticket: t})
		return
	}
	held := r.held
	d.unqueue(r)
	if held {
		d.refuse(r, d.guardedBy(r, d.quotaExceeded(r, r.need), now))
	} else {
		d.refuse(r, d.guardedBy(r, d.outOfMemory(r, max(r.need, r.Size)), now))
	}
	d.pump(now)
}

// guardEnds has a request look for room anew.
func (d *Device) guardEnds(t Ticket, now Now) {
	r := d.waits(t)
	if r == nil || r.guard == nil || r.guard.Until > now.Boot {
		return
	}
	r.guard, r.wanted = nil, 0
	if r.held {
		d.askOwn(r)
	}
}

// guardedBy adds to a refusal that there would have been room but for a guard, and what to do.
func (d *Device) guardedBy(r *Request, err *schemas.Error, now Now) *schemas.Error {
	if r.guard == nil || r.guard.Short || r.guard.Until <= now.Boot {
		return err
	}
	left := r.guard.left(now)
	err.Message += fmt.Sprintf("; %s. Ask again then, wait longer, or ask with a higher priority than theirs", r.guard.Reason(now))
	return err.With("guarded_models", r.guard.Models).With("retry_after_ms", max(1, left.Milliseconds()))
}
