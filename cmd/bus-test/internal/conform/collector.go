package conform

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// event is one event as it arrived; an allocation event is taken apart into its items.
type event struct {
	subject, kind string
	sequence      int64
	data          object
}

// collector is a plain subscriber of every event. What of an event is not as the contract
// has it is kept by the group and the rule.
type collector struct {
	mu     sync.Mutex
	list   []event
	last   map[string]int64
	ids    map[string]bool
	boots  map[string]string // by node
	counts map[string]int    // events of a group
	faults map[string]string // the first fault, by group and rule
	shapes map[string]*schema
}

// rules are what every event is held to.
var rules = []string{"has-its-shape", "fits-its-published-schema", "sequence-without-gaps", "is-named-by-Nats-Msg-Id", "of-one-boot", "carries-no-claim"}

func collect(nc *nats.Conn) (*collector, error) {
	c := &collector{last: map[string]int64{}, boots: map[string]string{}, ids: map[string]bool{}, counts: map[string]int{}, faults: map[string]string{}, shapes: map[string]*schema{}}
	for _, subject := range []string{schemas.EventSubjects(), schemas.HeartbeatSubject("*")} {
		if _, err := nc.Subscribe(subject, c.take); err != nil {
			return nil, err
		}
	}
	return c, nc.Flush()
}

func (c *collector) take(m *nats.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, known := schemas.LookupEvent(m.Subject)
	if !known {
		c.fault("unknown", "has-its-shape", fmt.Sprintf("%s is no subject of events", m.Subject))
		return
	}
	c.counts[e.Name]++
	v, err := decodeJSON(m.Data)
	env, ok := v.(object)
	if err != nil || !ok {
		c.fault(e.Name, "has-its-shape", fmt.Sprintf("%.80q: %v", m.Data, err))
		return
	}
	kind, seq := text(env, "event"), num(env, "sequence")
	c.hold(e, m, env, kind, seq)
	payload, _ := env["data"].(object)
	if e.Name == "allocation" && kind != string(schemas.EventGap) {
		for _, item := range list(payload, "items") {
			o, _ := item.(object)
			c.list = append(c.list, event{m.Subject, text(o, "event"), seq, o})
		}
		return
	}
	c.list = append(c.list, event{m.Subject, kind, seq, payload})
}

func (c *collector) fault(group, rule, why string) {
	if _, known := c.faults[group+"/"+rule]; !known {
		c.faults[group+"/"+rule] = why
	}
}

// hold holds an event to the rules.
func (c *collector) hold(e *schemas.EventSpec, m *nats.Msg, env object, kind string, seq int64) {
	if s := misfitEvent(e, env, kind); s != "" {
		c.fault(e.Name, "has-its-shape", s)
	}
	if s := c.schema(e); s == nil {
		c.fault(e.Name, "fits-its-published-schema", "its schema cannot be read")
	} else if why := s.fault(e.Name, env); why != "" {
		c.fault(e.Name, "fits-its-published-schema", why)
	}
	if bytes.Contains(m.Data, []byte(`"claim"`)) {
		c.fault(e.Name, "carries-no-claim", kind)
	}
	node, boot := text(env, "node"), text(env, "boot_id")
	if before, known := c.boots[node]; known && boot != before {
		c.fault(e.Name, "of-one-boot", fmt.Sprintf("%s after %s", boot, before))
	}
	c.boots[node] = boot
	if !e.Kept {
		return
	}
	id := text(env, "event_id")
	if m.Header.Get("Nats-Msg-Id") != id || c.ids[id] {
		c.fault(e.Name, "is-named-by-Nats-Msg-Id", fmt.Sprintf("event_id %q, header %q, seen before: %v", id, m.Header.Get("Nats-Msg-Id"), c.ids[id]))
	}
	c.ids[id] = true
	last, before := c.last[m.Subject]
	reminder := kind == string(schemas.EventPressureReminder)
	if before && (reminder && seq != last || !reminder && seq != last+1) {
		c.fault(e.Name, "sequence-without-gaps", fmt.Sprintf("%s: %d after %d", m.Subject, seq, last))
	}
	c.last[m.Subject] = seq
}

// schema is the published schema of a group of events, nil if it is none.
func (c *collector) schema(e *schemas.EventSpec) *schema {
	if s, known := c.shapes[e.Name]; known {
		return s
	}
	s, err := parseSchema(jsonschema.Event(e, nil).Compact())
	if err != nil {
		s = nil
	}
	c.shapes[e.Name] = s
	return s
}

func misfitEvent(e *schemas.EventSpec, env object, kind string) string {
	known := kind == string(schemas.EventGap) && e.Kept
	for _, k := range e.Kinds {
		known = known || kind == string(k)
	}
	switch {
	case !known:
		return fmt.Sprintf("the event %q", kind)
	case len(env) != 7 || text(env, "event_id") == "" || text(env, "node") == "" || misfit(timeType, "timestamp", env["timestamp"]) != "":
		return fmt.Sprintf("the envelope %v", env)
	case kind == string(schemas.EventGap):
		return ""
	}
	return misfit(e.Data, kind, env["data"])
}

// await returns the first event of a kind, on a subject that contains part, that satisfies
// want (nil: any), however long ago it came.
func (w *world) await(kind schemas.EventKind, part string, want func(object) bool) event {
	var found event
	from := 0
	w.eventually(func() string {
		w.seen.mu.Lock()
		defer w.seen.mu.Unlock()
		for ; from < len(w.seen.list); from++ {
			e := w.seen.list[from]
			if e.kind == string(kind) && strings.Contains(e.subject, part) && (want == nil || want(e.data)) {
				found = e
				return ""
			}
		}
		return fmt.Sprintf("no event %s on %s", kind, part)
	})
	return found
}

// of matches events about one thing.
func of(field, value string) func(object) bool {
	return func(d object) bool { return text(d, field) == value }
}

// events are what the collector found, as checks: by the time that they run everything else
// has, and its events have come.
func (w *world) events() []check {
	var out []check
	for _, e := range schemas.Events() {
		for _, rule := range rules {
			if !e.Kept && (rule == "sequence-without-gaps" || rule == "is-named-by-Nats-Msg-Id") {
				continue
			}
			out = append(out, check{"events/" + e.Name + "/" + rule, func() {
				for _, x := range w.worlds() {
					x.sound(e.Name + "/" + rule)
				}
			}})
		}
	}
	return append(out, check{"events/all/on-a-subject-of-the-contract", func() {
		for _, x := range w.worlds() {
			x.sound("unknown/has-its-shape")
		}
	}})
}

// sound wants no event to have broken a rule, as this user heard them.
func (w *world) sound(rule string) {
	if err := w.nc.Flush(); err != nil {
		fail("%v", err)
	}
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	if why := w.seen.faults[rule]; why != "" {
		fail("%s%s", map[bool]string{true: "as " + w.user + ": "}[w.user != ""], why)
	}
}
