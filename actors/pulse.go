package actors

import (
	"context"
	"sync"

	"github.com/isobar-project/isobar/actors/seam"
)

// pulse asks actors whether they live. An actor that has not answered yet is not asked
// again, so that a stuck one does not gather questions.
type pulse struct {
	mu     sync.Mutex
	actors []beater
	asked  map[string]chan struct{}
}

type beater struct {
	name string
	box  *inbox
}

func (p *pulse) add(name string, box *inbox) { p.actors = append(p.actors, beater{name, box}) }

// Silent names the actors that do not answer before ctx ends, none of which is a good
// sign. The question goes by the lane that is never refused and blocks nobody. It waits
// and may be called from any goroutine but an actor's.
func (h *House) Silent(ctx context.Context) []string {
	p := &h.pulse
	p.mu.Lock()
	waits := make([]chan struct{}, len(p.actors))
	for i, a := range p.actors {
		done, ok := p.asked[a.name]
		if !ok {
			done = make(chan struct{})
			p.asked[a.name] = done
			// A stopped actor never answers, and its question stays.
			_ = a.box.tell(seam.SystemLane, func() {
				p.mu.Lock()
				delete(p.asked, a.name)
				p.mu.Unlock()
				close(done)
			})
		}
		waits[i] = done
	}
	p.mu.Unlock()
	var silent []string
	for i, done := range waits {
		select {
		case <-done:
			continue
		default:
		}
		select {
		case <-done:
		case <-ctx.Done():
			silent = append(silent, p.actors[i].name)
		}
	}
	return silent
}
