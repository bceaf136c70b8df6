package node

import (
	"sync"

	"github.com/isobar-project/isobar/actors"
)

// reach tells the house whether clients can reach the node. The bus knows before there is a
// house. Its zero value is ready; it may be used from any goroutine.
type reach struct {
	mu    sync.Mutex
	lost  bool
	house *actors.House
}

func (r *reach) set(reachable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = !reachable
	if r.house != nil {
		r.house.Reach(reachable)
	}
}

// tell begins to tell the house.
func (r *reach) tell(h *actors.House) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.house = h
	if r.lost {
		h.Reach(false)
	}
}
