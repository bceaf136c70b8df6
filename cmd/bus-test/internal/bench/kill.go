package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/consumer"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
	"github.com/isobar-project/isobar/schemas"
)

// The device of killLine, and what its consumer holds: the device's other bytes are held by
// nobody who goes.
const (
	killDevice = 256 * mib
	killBytes  = 64 * mib
)

// killLine is how soon a dead consumer's bytes are another's: a consumer with 64 MiB mapped
// is killed while a request for exactly those bytes waits; from the firing of a pidfd of our
// own to the receipt of the event that grants them.
type killLine struct {
	w     *world
	n     *embedded.Node
	c     *client.Client
	run   string
	count int
	mu    sync.Mutex
	heard map[string]chan granted // by request_id
	took  measure.Durations
}

// granted is an event's receipt.
type granted struct {
	at         time.Time
	allocation string
}

func (l *killLine) open(ctx context.Context, w *world) (err error) {
	l.w, l.run, l.heard = w, uuid.NewString()[:13], map[string]chan granted{}
	if l.n, err = w.node(ctx, "kill", embedded.Spec{Settings: map[string][]string{"devices": {fmt.Sprintf("ram:ram-0=%dMiB", killDevice/mib)}}}); err != nil {
		return err
	}
	if l.c, err = w.client(l.n.URL, client.Options{}); err != nil {
		return err
	}
	third, err := w.dial(l.n.URL)
	if err != nil {
		return err
	}
	if _, err := third.Subscribe(schemas.AllocationSubject(l.n.Node, "ram-0"), func(m *nats.Msg) { l.receive(time.Now(), m.Data) }); err != nil {
		return err
	}
	if err := third.Flush(); err != nil {
		return err
	}
	return l.c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: killDevice - killBytes, Purpose: "the rest"}, nil)
}

func (l *killLine) receive(at time.Time, text []byte) {
	var e struct {
		Data schemas.AllocationBatch `json:"data"`
	}
	if json.Unmarshal(text, &e) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range e.Data.Items {
		if c := l.heard[i.RequestID]; c != nil && i.Event == schemas.EventAllocated {
			c <- granted{at, i.AllocationID}
			delete(l.heard, i.RequestID)
		}
	}
}

func (l *killLine) slice(ctx context.Context, _ int) error {
	for range l.w.count(11, 2) {
		if err := l.once(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (l *killLine) once(ctx context.Context) error {
	p, err := consumer.Start(l.w.opts.Program, l.n.DataSocket)
	if err != nil {
		return err
	}
	defer p.Reap()
	defer p.Kill()
	var held schemas.AllocateReply
	if err := l.c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: killBytes, Purpose: "to be killed"}, &held); err != nil {
		return err
	}
	if err := p.Map(held.Handle.Claim, 1); err != nil {
		return err
	}
	l.count++
	id := fmt.Sprintf("%s-%d", l.run, l.count)
	heard := make(chan granted, 1)
	l.mu.Lock()
	l.heard[id] = heard
	l.mu.Unlock()
	var pending *client.PendingError
	if err := l.c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: killBytes, Purpose: "waits"}, nil,
		client.WithRequestID(id), client.WithWait(0)); !errors.As(err, &pending) {
		return fmt.Errorf("the request did not wait: %w", errors.Join(err, errors.New("the device was not full")))
	}
	if err := p.Kill(); err != nil {
		return err
	}
	fired, err := p.Fired()
	if err != nil {
		return err
	}
	t := time.NewTimer(requestTimeout)
	defer t.Stop()
	select {
	case g := <-heard:
		// The node may learn of the death before we do: then it was no time at all.
		l.took = append(l.took, max(0, g.at.Sub(fired)))
		return l.c.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.allocation}, nil)
	case <-t.C:
		return fmt.Errorf("the request %s was not granted within %s", id, requestTimeout)
	}
}

func (l *killLine) report(r *Report) {
	r.Raw["consumer_kill"] = l.took.Summary(0)
	r.set(keyKill, float64(l.took.At(0.99).Nanoseconds())/1e6)
}

func (l *killLine) close() {}
