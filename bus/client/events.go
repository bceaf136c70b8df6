package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/schemas"
)

// DefaultEventBuffer is how many events a subscription holds that its reader has
// not taken.
const DefaultEventBuffer = 8192

// Event is one event as received.
type Event struct {
	schemas.Event
	// Raw is the data as JSON; Decode reads it.
	Raw json.RawMessage
	// Missed is what of this subject did not arrive before this event; To is 0 where
	// nothing is missing. The node's own gap events count as told, and are not
	// Missed.
	Missed schemas.Gap
}

// Decode reads the event's data, for example into a *schemas.Pressure.
func (e *Event) Decode(into any) error { return json.Unmarshal(e.Raw, into) }

// Events is a subscription. Next may be called from one goroutine at a time.
type Events struct {
	subs     []*nats.Subscription
	messages chan *nats.Msg
	closed   chan struct{}
	once     sync.Once
	sequence Sequences
}

// ErrEventsClosed is returned by Next after Close.
var ErrEventsClosed = errors.New("the event subscription is closed")

// Events subscribes to event subjects, which may have wildcards; none means every
// event. It returns when the server has taken the subscription, so that what
// happens afterwards is received.
func (c *Client) Events(ctx context.Context, subjects ...string) (*Events, error) {
	if len(subjects) == 0 {
		subjects = []string{schemas.EventSubjects()}
	}
	e := &Events{messages: make(chan *nats.Msg, DefaultEventBuffer), closed: make(chan struct{})}
	for _, subject := range subjects {
		sub, err := c.nc.ChanSubscribe(subject, e.messages)
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("subscribing to %s: %w", subject, err)
		}
		e.subs = append(e.subs, sub)
	}
	ctx, stop := context.WithTimeout(ctx, answerSlack)
	defer stop()
	if err := c.nc.FlushWithContext(ctx); err != nil {
		e.Close()
		return nil, fmt.Errorf("subscribing to events: %w", err)
	}
	return e, nil
}

// Next waits for the next event. Duplicates, which a node sends when its
// connection broke in between, are left out. A reader that is too slow loses
// events and sees it in Missed.
func (e *Events) Next(ctx context.Context) (*Event, error) {
	for {
		select {
		case m := <-e.messages:
			event, err := decodeEvent(m)
			if err != nil {
				return nil, err
			}
			missed, duplicate := e.sequence.Observe(event)
			if duplicate {
				continue
			}
			event.Missed = missed
			return event, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-e.closed:
			return nil, ErrEventsClosed
		}
	}
}

// Close ends the subscription. It may be called from any goroutine, more than once.
func (e *Events) Close() {
	e.once.Do(func() {
		for _, s := range e.subs {
			_ = s.Unsubscribe() // fails only where the connection is gone, and the subscription with it
		}
		close(e.closed)
	})
}

func decodeEvent(m *nats.Msg) (*Event, error) {
	var e Event
	e.Event.Data = &e.Raw
	if err := json.Unmarshal(m.Data, &e.Event); err != nil {
		return nil, fmt.Errorf("event on %s: %w", m.Subject, err)
	}
	e.Event.Data = nil
	e.Event.Subject = m.Subject
	return &e, nil
}

// Sequences finds what is missing in a stream of events. The zero value is ready;
// it belongs to one goroutine. Use it where events come from elsewhere than
// Client.Events, from a JetStream consumer for example.
type Sequences struct {
	last map[string]position
}

type position struct {
	boot string
	seq  uint64
}

// Observe takes the next event. It returns the range that is missing before it (To
// is 0 for none) and whether the event was already seen. The first event of a
// subject or of a boot misses nothing.
func (s *Sequences) Observe(e *Event) (missed schemas.Gap, duplicate bool) {
	if e.Event.Event == schemas.EventHeartbeat {
		return schemas.Gap{}, false
	}
	if s.last == nil {
		s.last = make(map[string]position)
	}
	p, known := s.last[e.Subject]
	known = known && p.boot == e.BootID
	if e.Event.Event == schemas.EventPressureReminder {
		// It repeats the sequence of the change that it reminds of.
		if known && e.Sequence > p.seq {
			missed = schemas.Gap{From: p.seq + 1, To: e.Sequence}
		}
		s.last[e.Subject] = position{e.BootID, max(p.seqIf(known), e.Sequence)}
		return missed, false
	}
	if known && e.Sequence <= p.seq {
		return schemas.Gap{}, true
	}
	from := e.Sequence // the first sequence that this event speaks for
	if e.Event.Event == schemas.EventGap {
		var g schemas.Gap
		if e.Decode(&g) == nil && g.From > 0 && g.From <= e.Sequence {
			from = g.From
		}
	}
	if known && from > p.seq+1 {
		missed = schemas.Gap{From: p.seq + 1, To: from - 1}
	}
	s.last[e.Subject] = position{e.BootID, e.Sequence}
	return missed, false
}

func (p position) seqIf(known bool) uint64 {
	if known {
		return p.seq
	}
	return 0
}
