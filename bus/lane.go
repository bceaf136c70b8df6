package bus

import (
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

// lane is one queue of events with the goroutine that sends them. The outbox has
// two: a long queue of one never delays the other.
type lane struct {
	o    *Outbox
	link Link
	// keepNewest: of each subject the last event is not dropped.
	keepNewest bool
	// here: who adds an event sends it, and all that waits, if nobody is sending.
	here bool

	mu       sync.Mutex
	subjects map[string]*topic
	queue    []entry
	head     int // queue[head:] waits
	weight   int // items in queue[head:]
	open     []*topic
	timer    clock.Timer
	gapped   []*topic
	sent     uint64
	dropped  uint64
	closing  bool
	// sending is true while somebody sends, whose group and buf are.
	sending bool
	group   []entry
	buf     []byte
	// spare is the items of a batch that was sent, to be used again.
	spare []schemas.AllocationItem

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

// topic is what is known of one subject.
type topic struct {
	subject string
	seq     uint64 // of its last event
	// batch is an allocation event that still takes items.
	batch []schemas.AllocationItem
	// usual is how many items the last batch had, which the next is likely to have.
	usual int
	// lost is the range of sequences dropped and not yet told; To is 0 for none.
	lost schemas.Gap
}

type entry struct {
	topic  *topic
	event  schemas.Event
	weight int
	// counted entries have a sequence of their own; reminders have not.
	counted bool
	// batch is what the event's data is, where it is one that the lane has put together.
	batch *schemas.AllocationBatch
}

func newLane(o *Outbox, link Link, keepNewest, here bool) *lane {
	return &lane{o: o, link: link, keepNewest: keepNewest, here: here, subjects: make(map[string]*topic),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

func (l *lane) stats() OutboxStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return OutboxStats{Published: l.sent, Dropped: l.dropped, Waiting: uint64(l.weight)}
}

// add takes one event. With drain it is all of the lane that callers of Publish run.
func (l *lane) add(e schemas.Event) {
	if !l.put(e) {
		return
	}
	if !l.drain() || l.over() {
		l.signal() // the lane's own goroutine waits: for the connection, or for the end
	}
}

// put queues one event, and tells whether its caller is now the one that sends.
func (l *lane) put(e schemas.Event) (sends bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	s := l.subjects[e.Subject]
	if s == nil {
		s = &topic{subject: e.Subject}
		l.subjects[e.Subject] = s
	}
	if items, ok := batchItems(e.Data); ok {
		l.join(s, items)
		return false
	}
	counted := e.Event != schemas.EventPressureReminder
	if counted {
		s.seq++
		if own := pressureSequence(e.Data); own > s.seq {
			s.seq = own
		}
	}
	e.Sequence = s.seq
	l.push(entry{topic: s, event: e, weight: 1, counted: counted})
	if l.here {
		return l.begin()
	}
	l.signal()
	return false
}

// begin makes the caller the one that sends, unless somebody is. The lock is held.
func (l *lane) begin() bool {
	if l.sending {
		return false
	}
	l.sending = true
	return true
}

// join adds items to the subject's open batch, and closes the batch when it is
// full; else the window's timer does.
func (l *lane) join(s *topic, items []schemas.AllocationItem) {
	if len(items) == 0 {
		return
	}
	if len(s.batch) == 0 {
		l.open = append(l.open, s)
		s.batch, l.spare = l.spare, nil
		if s.batch == nil {
			s.batch = make([]schemas.AllocationItem, 0, s.usual)
		}
	}
	s.batch = append(s.batch, items...)
	if len(s.batch) >= l.o.cfg.BatchItems {
		for i := range l.open {
			if l.open[i] == s {
				l.open = append(l.open[:i], l.open[i+1:]...)
				break
			}
		}
		l.seal(s)
		l.signal()
		return
	}
	if l.timer == nil {
		l.timer = l.o.cfg.Clock.AfterFunc(l.o.cfg.BatchWindow, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.timer = nil
			l.sealAll()
			l.signal()
		})
	}
}

func (l *lane) sealAll() {
	for _, s := range l.open {
		l.seal(s)
	}
	clear(l.open)
	l.open = l.open[:0]
}

func (l *lane) seal(s *topic) {
	s.usual = len(s.batch)
	// One caller may hand in more than fits a message.
	for len(s.batch) > maxBatchItems {
		l.sealItems(s, s.batch[:maxBatchItems:maxBatchItems])
		s.batch = s.batch[maxBatchItems:]
	}
	l.sealItems(s, s.batch)
	s.batch = nil
}

func (l *lane) sealItems(s *topic, items []schemas.AllocationItem) {
	s.seq++
	b := &schemas.AllocationBatch{Items: items}
	l.push(entry{topic: s, weight: len(items), counted: true, batch: b, event: schemas.Event{
		Event: batchKind(items), Subject: s.subject, Sequence: s.seq, Node: l.o.cfg.Node, BootID: l.o.cfg.BootID,
		Timestamp: l.o.cfg.Clock.Wall(), Data: b,
	}})
}

func (l *lane) push(e entry) {
	e.event.EventID = l.o.nextID()
	l.queue = append(l.queue, e)
	l.weight += e.weight
	l.shed()
}

// shed drops the oldest entries beyond the backlog.
func (l *lane) shed() {
	for i := l.head; l.weight > l.o.cfg.Backlog && i < len(l.queue); {
		e := &l.queue[i]
		if l.keepNewest && e.counted && e.event.Event != schemas.EventGap && e.event.Sequence == e.topic.seq {
			i++
			continue
		}
		l.lose(e)
		l.weight -= e.weight
		copy(l.queue[l.head+1:i+1], l.queue[l.head:i])
		l.queue[l.head] = entry{}
		l.head++
		i = max(i, l.head)
	}
}

// lose notes that an entry will never be sent. Of one subject the oldest goes
// first, so that what is lost is one range.
func (l *lane) lose(e *entry) {
	l.dropped += uint64(e.weight)
	if !e.counted {
		return
	}
	from, to := e.event.Sequence, e.event.Sequence
	if g, ok := e.event.Data.(schemas.Gap); ok {
		from, to = g.From, g.To
	}
	s := e.topic
	if s.lost.To == 0 {
		s.lost = schemas.Gap{From: from, To: to}
		l.gapped = append(l.gapped, s)
		return
	}
	s.lost.From, s.lost.To = min(s.lost.From, from), max(s.lost.To, to)
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take moves up to drainChunk entries to the group, gaps first: what is lost is older than
// what waits. If there are none it ends the caller's sending.
func (l *lane) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.empty() {
		l.sending = false
		return false
	}
	into := l.group[:0]
	for _, s := range l.gapped {
		into = append(into, entry{topic: s, counted: true, event: schemas.Event{
			Event: schemas.EventGap, Subject: s.subject, EventID: l.o.nextID(), Sequence: s.lost.To, Node: l.o.cfg.Node,
			BootID: l.o.cfg.BootID, Timestamp: l.o.cfg.Clock.Wall(), Data: s.lost,
		}})
		s.lost = schemas.Gap{}
	}
	l.gapped = l.gapped[:0]
	n := min(len(l.queue)-l.head, drainChunk)
	into = append(into, l.queue[l.head:l.head+n]...)
	for i := l.head; i < l.head+n; i++ {
		l.weight -= l.queue[i].weight
		l.queue[i] = entry{}
	}
	l.head += n
	switch {
	case l.head == len(l.queue):
		l.queue, l.head = l.queue[:0], 0
		if cap(l.queue) > 4*drainChunk {
			l.queue = nil // a backlog's memory is not kept
		}
	case l.head > len(l.queue)/2:
		rest := copy(l.queue, l.queue[l.head:])
		clear(l.queue[rest:])
		l.queue, l.head = l.queue[:rest], 0
	}
	l.group = into
	return true
}

// putBack returns entries that the server may not have got to the front.
func (l *lane) putBack(entries []entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := make([]entry, 0, len(entries)+len(l.queue)-l.head)
	queue = append(queue, entries...)
	l.queue, l.head = append(queue, l.queue[l.head:]...), 0
	for i := range entries {
		l.weight += entries[i].weight
	}
	l.shed()
}

// run sends until the lane is finished and empty, or abandoned.
func (l *lane) run() {
	defer close(l.done)
	status, unwatch := l.link.Watch()
	defer unwatch()
	for {
		l.mu.Lock()
		sends := l.begin()
		l.mu.Unlock()
		if sends {
			l.drain()
		}
		if l.over() {
			return
		}
		select {
		case <-l.wake:
		case <-status:
		case <-l.stop:
			return
		}
	}
}

// drain sends until nothing waits; false: the connection went away before. Only who began
// to send may call it, and has ended when it returns.
func (l *lane) drain() bool {
	for l.link.Connected() {
		if !l.take() {
			return true
		}
		if !l.send() {
			break
		}
		clear(l.group)
	}
	l.mu.Lock()
	l.sending = false
	l.mu.Unlock()
	return false
}

// empty tells whether nothing waits. The lock is held.
func (l *lane) empty() bool { return len(l.queue) == l.head && len(l.gapped) == 0 }

// send publishes the group. It reports false, with everything put back, when the
// connection went away before the server confirmed.
func (l *lane) send() bool {
	group := l.group
	weight := 0
	for i := range group {
		e := &group[i]
		err := l.publish(&e.event)
		if unpublishable(err) {
			l.o.cfg.Log.Error("an event that cannot be published is replaced by a gap", "subject", e.event.Subject, "event", e.event.Event, "error", err)
			l.mu.Lock()
			l.dropped += uint64(e.weight)
			l.mu.Unlock()
			e.event.Event, e.event.Data, e.weight = schemas.EventGap, schemas.Gap{From: e.event.Sequence, To: e.event.Sequence}, 0
			err = l.publish(&e.event)
		}
		if err != nil {
			l.putBack(group)
			return false
		}
		weight += e.weight
	}
	if l.o.cfg.Confirm {
		if err := l.link.Flush(flushTimeout); err != nil {
			l.putBack(group)
			// Without this a server that is there but silent would be asked in a loop.
			over := make(chan struct{})
			pause := l.o.cfg.Clock.AfterFunc(resendPause, func() { close(over) })
			select {
			case <-over:
			case <-l.stop:
				pause.Stop()
			}
			l.signal()
			return false
		}
	}
	l.mu.Lock()
	l.sent += uint64(weight)
	l.mu.Unlock()
	if l.o.cfg.Left != nil {
		now := l.o.cfg.Clock.Wall()
		for i := range group {
			l.o.cfg.Left(now.Sub(happened(&group[i].event)))
		}
	}
	if cap(l.buf) > 1<<16 {
		l.buf = nil
	}
	l.reuse(group)
	return true
}

// reuse keeps the largest batch of a group that was sent for its memory: most of what events
// would leave to be collected.
func (l *lane) reuse(group []entry) {
	var largest []schemas.AllocationItem
	for i := range group {
		if b := group[i].batch; b != nil && cap(b.Items) > cap(largest) && cap(b.Items) <= maxBatchItems {
			largest = b.Items
		}
	}
	clear(largest)
	l.mu.Lock()
	defer l.mu.Unlock()
	if cap(largest) > cap(l.spare) {
		l.spare = largest[:0]
	}
}

// happened is when the first of what an event tells of took place.
func happened(e *schemas.Event) time.Time {
	if items, ok := batchItems(e.Data); ok && len(items) > 0 && !items[0].Timestamp.IsZero() {
		return items[0].Timestamp
	}
	return e.Timestamp
}

func (l *lane) publish(e *schemas.Event) error {
	l.buf = codec.EncodeEvent(l.buf[:0], e)
	return l.link.Publish(e.Subject, "", nats.Header{nats.MsgIdHdr: []string{e.EventID}}, l.buf)
}

// unpublishable errors are the event's fault: trying again does not help.
func unpublishable(err error) bool {
	return errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject)
}

// finish makes run return once everything is sent.
func (l *lane) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.sealAll()
	l.closing = true
	l.signal()
}

// abandon makes run return at once.
func (l *lane) abandon() { close(l.stop) }

func (l *lane) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing && !l.sending && (l.empty() || l.link.Closed())
}
