package bus

import (
	"time"

	"github.com/nats-io/nats.go"
)

// Link is a connection to NATS, as far as the service and the outbox need one: *local.Client
// to a server in this process, LinkOf a *nats.Conn to any other. Its methods may be called
// from any goroutine.
type Link interface {
	// Publish never waits. Errors of the message itself are nats.ErrMaxPayload and
	// nats.ErrBadSubject; reply and header may be empty.
	Publish(subject, reply string, header nats.Header, payload []byte) error
	// Subscribe runs f for each message, which is f's until it returns. The function that
	// is returned ends the subscription.
	Subscribe(subject, queue string, f func(*nats.Msg)) (func(), error)
	// Idle tells a handler whether its goroutine has nothing to do after it. For handlers only.
	Idle() bool
	// Flush returns when the server has everything that was published before.
	Flush(timeout time.Duration) error
	// Connected tells whether the connection stands, Closed that it never will again.
	Connected() bool
	Closed() bool
	// Watch tells of each return of the connection and of its end, until stop is called.
	Watch() (changes <-chan nats.Status, stop func())
}

// LinkOf makes a Link of a connection, which stays the caller's.
func LinkOf(nc *nats.Conn) Link { return natsLink{nc} }

type natsLink struct{ nc *nats.Conn }

// Publish implements Link.
func (l natsLink) Publish(subject, reply string, header nats.Header, payload []byte) error {
	switch {
	case len(header) > 0:
		return l.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Header: header, Data: payload})
	case reply != "":
		return l.nc.PublishRequest(subject, reply, payload)
	}
	return l.nc.Publish(subject, payload)
}

// Subscribe implements Link.
func (l natsLink) Subscribe(subject, queue string, f func(*nats.Msg)) (func(), error) {
	var sub *nats.Subscription
	var err error
	if queue == "" {
		sub, err = l.nc.Subscribe(subject, f)
	} else {
		sub, err = l.nc.QueueSubscribe(subject, queue, f)
	}
	if err == nil {
		err = sub.SetPendingLimits(endpointPendingMsgs, endpointPendingBytes)
	}
	if err != nil {
		return nil, err
	}
	// Drain, unlike Unsubscribe, lets go of nothing that has arrived. Both fail only on a
	// closed connection, where there is nothing to end.
	return func() { _ = sub.Drain() }, nil
}

// Idle implements Link: each subscription has a goroutine of its own.
func (l natsLink) Idle() bool { return true }

// Flush implements Link.
func (l natsLink) Flush(timeout time.Duration) error { return l.nc.FlushTimeout(timeout) }

// Connected implements Link.
func (l natsLink) Connected() bool { return l.nc.IsConnected() }

// Closed implements Link.
func (l natsLink) Closed() bool { return l.nc.IsClosed() }

// Watch implements Link.
func (l natsLink) Watch() (<-chan nats.Status, func()) {
	c := l.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	return c, func() { l.nc.RemoveStatusListener(c) }
}
