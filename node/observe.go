package node

import (
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// observer implements actors.Observer: it passes on what the actors have to say.
type observer struct{ n *Node }

// Granted implements actors.Observer.
func (o *observer) Granted(device string, class schemas.Class, queued time.Duration) {
	o.n.figures.Granted(device, queued)
}

// Completed implements actors.Observer.
func (o *observer) Completed(c *actors.Command, data any, code schemas.Code) {
	o.n.figures.Completed(data)
	o.n.traceParts(c, data)
}

// DeviceWarnings implements actors.Observer.
func (o *observer) DeviceWarnings(device string, warnings []schemas.HealthWarning) {
	o.n.board.Say(device, warnings...)
}
