package bus

import (
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

// Defaults of the outbox.
const (
	// DefaultBatchWindow is how long an allocation event waits for others to join it.
	DefaultBatchWindow = 4 * time.Millisecond
	// DefaultBatchItems is how many make a batch that does not wait.
	DefaultBatchItems = 128
	// DefaultBacklog is how many events (items of batches count each) are kept while
	// NATS is away, and as many again of pressure: about 10 MB at most.
	DefaultBacklog = 16384
	// HeartbeatPeriod is the time between two heartbeats.
	HeartbeatPeriod = 5 * time.Second

	// maxBatchItems keeps the largest batch well below the server's payload.
	maxBatchItems = 256
	drainChunk    = 256
	flushTimeout  = 2 * time.Second
	resendPause   = 250 * time.Millisecond
)

// OutboxConfig describes an outbox.
type OutboxConfig struct {
	// History carries every event but pressure; Pressure carries pressure, so that it
	// is never behind a batch. They may be the same connection.
	History, Pressure Link
	// Confirm waits for the server's word after each group of events, so that what
	// a broken connection swallowed is sent again. Not needed in process, where who
	// publishes pressure sends it too, which saves a hand-over.
	Confirm bool
	// Tenants, each with an account of its own, hear of what concerns them on subjects of
	// their own, beside the subject that all events go to.
	Tenants []string
	// Node and BootID are written into every event.
	Node, BootID string
	// Heartbeat supplies the data of each heartbeat; nil sends none. It is called
	// from a timer's goroutine and must not block.
	Heartbeat func() schemas.Heartbeat
	// Left, if set, is told of every event that was given to NATS how long it had waited
	// since it happened, from the outbox's own goroutines; it must not block.
	Left func(waited time.Duration)
	// BatchWindow, BatchItems and Backlog: 0 is the default.
	BatchWindow         time.Duration
	BatchItems, Backlog int
	// Clock is nil for the machine's.
	Clock clock.Clock
	Log   *slog.Logger
}

// Outbox publishes events. It implements actors.Publisher: Publish never blocks,
// gives each event the next sequence of its subject, and may be called from any
// goroutine; events of one subject leave in the order of the calls.
//
// While NATS is away events wait. Beyond the backlog the oldest are dropped, and
// a gap event, whose own sequence is the last one dropped, says so; the newest
// pressure of each subject is never dropped.
type Outbox struct {
	cfg      OutboxConfig
	history  *lane
	pressure *lane
	ids      atomic.Uint64
	idPrefix string

	mu     sync.Mutex
	beat   clock.Timer
	closed bool
}

// OutboxStats counts events since the start.
type OutboxStats struct {
	// Published left, Dropped were given up, Waiting are still here.
	Published, Dropped, Waiting uint64
}

// NewOutbox starts an outbox. Close ends it.
func NewOutbox(c OutboxConfig) *Outbox {
	if c.BatchWindow == 0 {
		c.BatchWindow = DefaultBatchWindow
	}
	if c.BatchItems == 0 {
		c.BatchItems = DefaultBatchItems
	}
	if c.Backlog == 0 {
		c.Backlog = DefaultBacklog
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	o := &Outbox{cfg: c, idPrefix: c.BootID + "-"}
	o.history = newLane(o, c.History, false, false)
	o.pressure = newLane(o, c.Pressure, true, !c.Confirm)
	go o.history.run()
	go o.pressure.run()
	o.scheduleBeat()
	return o
}

// Publish implements actors.Publisher. Of a pressure_changed whose data carries a
// sequence, that is the event's: the monitor counts them, so that get_pressure and
// the event agree. A pressure_reminder takes no sequence of its own.
func (o *Outbox) Publish(e schemas.Event) {
	if e.Timestamp.IsZero() {
		e.Timestamp = o.cfg.Clock.Wall()
	}
	e.Node, e.BootID = o.cfg.Node, o.cfg.BootID
	o.add(e)
	for _, t := range o.cfg.Tenants {
		if v, theirs := view(e, t); theirs {
			o.add(v)
		}
	}
}

func (o *Outbox) add(e schemas.Event) {
	switch e.Event {
	case schemas.EventPressureChanged, schemas.EventPressureReminder:
		o.pressure.add(e)
	default:
		o.history.add(e)
	}
}

// Stats may be called from any goroutine.
func (o *Outbox) Stats() OutboxStats {
	h, p := o.history.stats(), o.pressure.stats()
	return OutboxStats{Published: h.Published + p.Published, Dropped: h.Dropped + p.Dropped, Waiting: h.Waiting + p.Waiting}
}

// Close sends what is waiting, as long as NATS is there, for at most timeout,
// and ends the outbox. Publish does nothing afterwards. The connections are the
// caller's.
func (o *Outbox) Close(timeout time.Duration) {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	o.closed = true
	if o.beat != nil {
		o.beat.Stop()
	}
	o.mu.Unlock()
	late := make(chan struct{})
	deadline := o.cfg.Clock.AfterFunc(timeout, func() { close(late) })
	defer deadline.Stop()
	for _, l := range []*lane{o.pressure, o.history} {
		l.finish()
		select {
		case <-l.done:
		case <-late:
			l.abandon()
			<-l.done
		}
	}
}

func (o *Outbox) scheduleBeat() {
	if o.cfg.Heartbeat == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.beat = o.cfg.Clock.AfterFunc(HeartbeatPeriod, o.sendBeat)
	}
}

// sendBeat is not kept and not counted: a heartbeat that is late is worth nothing.
func (o *Outbox) sendBeat() {
	o.scheduleBeat()
	if !o.cfg.History.Connected() {
		return
	}
	e := schemas.Event{Event: schemas.EventHeartbeat, Subject: schemas.HeartbeatSubject(o.cfg.Node), EventID: o.nextID(),
		Node: o.cfg.Node, BootID: o.cfg.BootID, Timestamp: o.cfg.Clock.Wall(), Data: o.cfg.Heartbeat()}
	payload := codec.EncodeEvent(nil, &e)
	subjects := []string{e.Subject}
	for _, t := range o.cfg.Tenants {
		subjects = append(subjects, schemas.TenantSubject(t, e.Subject))
	}
	for _, s := range subjects {
		if err := o.cfg.History.Publish(s, "", nil, payload); err != nil {
			o.cfg.Log.Warn("heartbeat not sent", "error", err)
		}
	}
}

func (o *Outbox) nextID() string {
	b := make([]byte, 0, len(o.idPrefix)+13)
	return string(strconv.AppendUint(append(b, o.idPrefix...), o.ids.Add(1), 36))
}

// pressureSequence takes the monitor's own count out of a pressure event.
func pressureSequence(data any) uint64 {
	switch p := data.(type) {
	case *schemas.Pressure:
		return p.Sequence
	case schemas.Pressure:
		return p.Sequence
	}
	return 0
}

// batchItems takes the items out of an allocation event.
func batchItems(data any) ([]schemas.AllocationItem, bool) {
	switch b := data.(type) {
	case *schemas.AllocationBatch:
		return b.Items, true
	case schemas.AllocationBatch:
		return b.Items, true
	}
	return nil, false
}

// batchKind is the kind of all items where they agree.
func batchKind(items []schemas.AllocationItem) schemas.EventKind {
	kind := items[0].Event
	for i := range items {
		if items[i].Event != kind {
			return schemas.EventBatch
		}
	}
	return kind
}
