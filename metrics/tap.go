package metrics

import (
	"sync"

	"github.com/isobar-project/isobar/schemas"
)

// Publisher is where a Tap's events go on to; actors.Publisher is one.
type Publisher interface{ Publish(e schemas.Event) }

// Tap is a publisher that counts what passes: what the node tells the world and what it
// counts are the same. Publish is as quick as the next one's.
type Tap struct {
	Node *Node
	Next Publisher
}

// Publish passes an event on and counts it.
func (t *Tap) Publish(e schemas.Event) {
	t.Node.event(&e)
	t.Next.Publish(e)
}

// The reasons of evictions.
const (
	reasonRoom     = "room"     // a request waited for it
	reasonPressure = "pressure" // the level was high
	reasonCommand  = "command"  // somebody asked for it
)

// rare are counts of what happens seldom, by labels that are not all known beforehand.
type rare struct {
	mu      sync.Mutex
	evicted map[evictionKey]*evictionCount
	levels  map[levelKey]uint64
}

type evictionKey struct{ device, reason string }

type evictionCount struct {
	models uint64
	bytes  int64
}

type levelKey struct {
	device string
	level  schemas.PressureLevel
}

func newRare() rare {
	return rare{evicted: map[evictionKey]*evictionCount{}, levels: map[levelKey]uint64{}}
}

func (n *Node) event(e *schemas.Event) {
	switch d := e.Data.(type) {
	case *schemas.ModelEvent:
		if e.Event == schemas.EventModelLoaded || e.Event == schemas.EventModelPromoted {
			n.loaded(d)
		}
	case *schemas.OptimizationEvent:
		if e.Event == schemas.EventCompleted {
			n.evicted(d)
		}
	case *schemas.Pressure:
		if e.Event == schemas.EventPressureChanged && d.Tenant == "" {
			n.rare.mu.Lock()
			defer n.rare.mu.Unlock()
			n.rare.levels[levelKey{d.DeviceID, d.PressureLevel}]++
		}
	case *schemas.Operation:
		n.transferred(e, d)
	case schemas.Operation:
		n.transferred(e, &d)
	}
}

func (n *Node) loaded(m *schemas.ModelEvent) {
	d := n.devices[m.DeviceID]
	if d == nil {
		return
	}
	d.load.took(milliseconds(m.DurationMs))
	d.loaded.Add(m.SizeBytes)
	if m.DurationMs > 0 {
		d.rate.observe(int64(float64(m.SizeBytes) / m.DurationMs * 1000))
	}
}

func (n *Node) transferred(e *schemas.Event, o *schemas.Operation) {
	if e.Event == schemas.EventCompleted {
		n.copied(kindTransfer, o.BytesDone, o.ThroughputBytesPerSecond)
	}
}

func (n *Node) evicted(o *schemas.OptimizationEvent) {
	if len(o.Evicted) == 0 {
		return
	}
	reason := reasonRoom
	switch o.Cause {
	case schemas.CauseOfPressure:
		reason = reasonPressure
	case schemas.CauseOfCommand:
		reason = reasonCommand
	}
	n.rare.mu.Lock()
	defer n.rare.mu.Unlock()
	k := evictionKey{o.DeviceID, reason}
	c := n.rare.evicted[k]
	if c == nil {
		c = &evictionCount{}
		n.rare.evicted[k] = c
	}
	for _, v := range o.Evicted {
		c.models++
		c.bytes += v.FreedBytes
	}
}
