package contract

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// event is one event as it arrived; an allocation event is taken apart into its items.
type event struct {
	subject, kind string
	sequence      int64
	data          obj
}

// collector is a plain subscriber of every event. It holds each to the contract as it
// comes: fields, sequences without gaps, Nats-Msg-Id, no claim.
type collector struct {
	t    testing.TB
	mu   sync.Mutex
	list []event
	last map[string]int64
	ids  map[string]bool
	boot string
	wake chan struct{}
}

func collect(t testing.TB, nc *nats.Conn) *collector {
	t.Helper()
	c := &collector{t: t, last: map[string]int64{}, ids: map[string]bool{}, wake: make(chan struct{}, 1)}
	sub, err := nc.Subscribe("memory.events.>", c.take)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What was sent before this is here after it.
		if err := nc.Flush(); err != nil && !nc.IsClosed() {
			t.Error(err)
		}
		_ = sub.Unsubscribe() // the connection ends with the test
	})
	return c
}

func (c *collector) take(m *nats.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := decodeJSON(m.Data)
	env, ok := v.(obj)
	if err != nil || !ok {
		c.t.Errorf("%s: %q: %v", m.Subject, m.Data, err)
		return
	}
	kind, seq, payload := text(env, "event"), num(env, "sequence"), env["data"]
	c.check(m, env, kind, seq)
	validEvent(c.t, m.Subject, env)
	parts := strings.Split(m.Subject, ".")
	if s := misfit("event/"+parts[2], m.Subject, payload); s != "" {
		c.t.Errorf("%s: %s", kind, s)
	}
	if parts[2] == "allocation" {
		items, _ := at(payload, "items").([]any)
		for _, i := range items {
			if k := text(i, "event"); kind != k && kind != "batch" {
				c.t.Errorf("%s: a batch of kind %s with an item of kind %s", m.Subject, kind, k)
			}
			c.list = append(c.list, event{m.Subject, text(i, "event"), seq, i.(obj)})
		}
	} else {
		d, _ := payload.(obj)
		c.list = append(c.list, event{m.Subject, kind, seq, d})
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *collector) check(m *nats.Msg, env obj, kind string, seq int64) {
	for _, f := range []string{"event", "event_id", "boot_id", "node"} {
		if text(env, f) == "" {
			c.t.Errorf("%s %s has no %s", m.Subject, kind, f)
		}
	}
	if s := misfitKind("t", "timestamp", env["timestamp"]); s != "" || len(env) != 7 {
		c.t.Errorf("%s %s: %s in %v", m.Subject, kind, s, env)
	}
	if bytes.Contains(m.Data, []byte(`"claim"`)) {
		c.t.Errorf("%s %s carries a claim", m.Subject, kind)
	}
	id := text(env, "event_id")
	if m.Header.Get("Nats-Msg-Id") != id || c.ids[id] {
		c.t.Errorf("%s %s: event_id %s, Nats-Msg-Id %s, seen before: %v", m.Subject, kind, id, m.Header.Get("Nats-Msg-Id"), c.ids[id])
	}
	c.ids[id] = true
	if c.boot == "" {
		c.boot = text(env, "boot_id")
	}
	if text(env, "boot_id") != c.boot {
		c.t.Errorf("%s %s: boot_id %s, before %s", m.Subject, kind, text(env, "boot_id"), c.boot)
	}
	if kind == "pressure_reminder" {
		if seq != c.last[m.Subject] {
			c.t.Errorf("a reminder has sequence %d; the last change had %d", seq, c.last[m.Subject])
		}
		return
	}
	if last, ok := c.last[m.Subject]; ok && seq != last+1 {
		c.t.Errorf("%s: sequence %d after %d", m.Subject, seq, last)
	}
	c.last[m.Subject] = seq
}

// await returns the first event of a kind, on a subject that contains part, that satisfies
// want (nil: any), however long ago it came.
func (c *caller) await(kind, part string, want func(obj) bool) event {
	c.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for seen := 0; ; {
		c.seen.mu.Lock()
		for ; seen < len(c.seen.list); seen++ {
			e := c.seen.list[seen]
			if e.kind == kind && strings.Contains(e.subject, part) && (want == nil || want(e.data)) {
				c.seen.mu.Unlock()
				return e
			}
		}
		c.seen.mu.Unlock()
		select {
		case <-c.seen.wake:
		case <-limit.C:
			c.t.Fatalf("no event %s on %s", kind, part)
		}
	}
}

// of matches events about one grant or request.
func of(field, value string) func(obj) bool {
	return func(d obj) bool { return text(d, field) == value }
}
