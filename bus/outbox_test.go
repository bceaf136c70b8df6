package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// received is an event as a plain subscriber reads it.
type received struct {
	schemas.Event
	Data json.RawMessage `json:"data"`
}

func read(t testing.TB, sub *nats.Subscription) received {
	t.Helper()
	m, err := sub.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	var e received
	if err := json.Unmarshal(m.Data, &e); err != nil {
		t.Fatalf("%v: %s", err, m.Data)
	}
	if e.EventID == "" || m.Header.Get("Nats-Msg-Id") != e.EventID {
		t.Errorf("event_id %q, Nats-Msg-Id %q", e.EventID, m.Header.Get("Nats-Msg-Id"))
	}
	e.Subject = m.Subject
	return e
}

func listen(t testing.TB, url, subject string) *nats.Subscription {
	t.Helper()
	nc := plain(t, url)
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return sub
}

func startOutbox(t testing.TB, s *bus.Server, change func(*bus.OutboxConfig)) *bus.Outbox {
	t.Helper()
	c := bus.OutboxConfig{History: bus.LinkOf(dial(t, conn.Config{InProcess: s})), Pressure: localLink(t, s), Node: "here", BootID: "boot"}
	if change != nil {
		change(&c)
	}
	o := bus.NewOutbox(c)
	t.Cleanup(func() { o.Close(time.Second) })
	return o
}

func modelEvent(n int) schemas.Event {
	return schemas.Event{Event: schemas.EventModelLoadProgress, Subject: schemas.ModelSubject("here", "ram-0"),
		Data: &schemas.ModelEvent{Name: fmt.Sprint("m", n)}}
}

func pressureEvent(device string, n int) schemas.Event {
	return schemas.Event{Event: schemas.EventPressureChanged, Subject: schemas.PressureSubject("here", device),
		Data: &schemas.Pressure{DeviceID: device, Sequence: uint64(n)}}
}

func item(kind schemas.EventKind, id string) schemas.Event {
	return schemas.Event{Event: kind, Subject: schemas.AllocationSubject("here", "ram-0"),
		Data: schemas.AllocationBatch{Items: []schemas.AllocationItem{{Event: kind, AllocationID: id}}}}
}

func TestEventsAreNumberedPerSubject(t *testing.T) {
	s := startServer(t, bus.ServerConfig{})
	sub := listen(t, s.URL(), "memory.events.>")
	o := startOutbox(t, s, nil)
	for i := range 100 {
		o.Publish(modelEvent(i))
		o.Publish(schemas.Event{Event: schemas.EventDrift, Subject: schemas.NodeSubject("here"), Data: schemas.NodeEvent{}})
	}
	last := map[string]uint64{}
	for range 200 {
		e := read(t, sub)
		if e.Sequence != last[e.Subject]+1 || e.Node != "here" || e.BootID != "boot" || e.Timestamp.IsZero() {
			t.Fatalf("after %d came %+v", last[e.Subject], e.Event)
		}
		last[e.Subject] = e.Sequence
	}
}

func TestAllocationEventsTravelTogether(t *testing.T) {
	s := startServer(t, bus.ServerConfig{})
	sub := listen(t, s.URL(), "memory.events.allocation.>")
	c := clock.NewManual(0, time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	o := startOutbox(t, s, func(oc *bus.OutboxConfig) { oc.Clock, oc.BatchItems = c, 3 })
	items := func() (schemas.EventKind, []string) {
		t.Helper()
		e := read(t, sub)
		var b schemas.AllocationBatch
		if err := json.Unmarshal(e.Data, &b); err != nil {
			t.Fatal(err)
		}
		ids := []string{fmt.Sprint(e.Sequence)}
		for _, i := range b.Items {
			ids = append(ids, i.AllocationID)
		}
		return e.Event.Event, ids
	}
	// A full batch does not wait.
	for _, id := range []string{"a", "b", "c", "d"} {
		o.Publish(item(schemas.EventAllocated, id))
	}
	if kind, ids := items(); kind != schemas.EventAllocated || strings.Join(ids, " ") != "1 a b c" {
		t.Errorf("%s %v", kind, ids)
	}
	// The rest waits for the window, with whatever joins it.
	o.Publish(item(schemas.EventDeallocated, "a"))
	c.Advance(bus.DefaultBatchWindow)
	if kind, ids := items(); kind != schemas.EventBatch || strings.Join(ids, " ") != "2 d a" {
		t.Errorf("%s %v", kind, ids)
	}
	// More than fits one message becomes several.
	big := schemas.AllocationBatch{}
	for i := range 600 {
		big.Items = append(big.Items, schemas.AllocationItem{Event: schemas.EventExpired, AllocationID: fmt.Sprint(i), Reason: strings.Repeat("r", 400)})
	}
	o.Publish(schemas.Event{Subject: schemas.AllocationSubject("here", "ram-0"), Data: &big})
	total := 0
	for range 3 {
		_, ids := items()
		total += len(ids) - 1
	}
	if total != 600 {
		t.Errorf("%d items arrived", total)
	}
}

func TestPressureTakesTheMonitorsSequence(t *testing.T) {
	s := startServer(t, bus.ServerConfig{})
	sub := listen(t, s.URL(), "memory.events.pressure.>")
	o := startOutbox(t, s, nil)
	o.Publish(pressureEvent("ram-0", 7))
	reminder := pressureEvent("ram-0", 7)
	reminder.Event = schemas.EventPressureReminder
	o.Publish(reminder)
	o.Publish(pressureEvent("ram-0", 8))
	for _, want := range []uint64{7, 7, 8} {
		if e := read(t, sub); e.Sequence != want {
			t.Errorf("sequence %d, want %d", e.Sequence, want)
		}
	}
}

func TestAnEventThatCannotBeSentBecomesAGap(t *testing.T) {
	s := startServer(t, bus.ServerConfig{})
	sub := listen(t, s.URL(), "memory.events.model.>")
	o := startOutbox(t, s, nil)
	o.Publish(modelEvent(1))
	big := modelEvent(2)
	big.Data = &schemas.ModelEvent{Name: strings.Repeat("x", 400<<10)}
	o.Publish(big)
	o.Publish(modelEvent(3))
	var got []string
	for range 3 {
		e := read(t, sub)
		got = append(got, fmt.Sprintf("%d %s", e.Sequence, e.Event.Event))
	}
	if strings.Join(got, ", ") != "1 load_progress, 2 gap, 3 load_progress" {
		t.Errorf("%v", got)
	}
}

// An external server is stopped and started again on its port. What was published
// meanwhile arrives, without a hole that no gap event tells of, and with the newest
// pressure of every device. The stream is the witness: it is there whenever the
// server is.
func TestEventsSurviveADisconnect(t *testing.T) {
	c := bus.ServerConfig{Listen: fmt.Sprint("127.0.0.1:", freePort(t)), StoreDir: t.TempDir()}
	first := startServer(t, c)
	url := "nats://" + c.Listen
	changes := make(chan conn.Event, 64)
	notify := func(e conn.Event) { changes <- e }
	history, pressure := dial(t, conn.Config{URL: url, Notify: notify}), dial(t, conn.Config{URL: url, Notify: notify})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := bus.KeepHistory(ctx, history, bus.HistoryConfig{}); err != nil {
		t.Fatal(err)
	}
	o := bus.NewOutbox(bus.OutboxConfig{History: bus.LinkOf(history), Pressure: bus.LinkOf(pressure), Confirm: true, Node: "here", BootID: "boot", Backlog: 50})
	defer o.Close(time.Second)

	sub := listen(t, url, "memory.events.>")
	for i := range 10 {
		o.Publish(modelEvent(i))
	}
	for range 10 {
		read(t, sub)
	}
	stored(t, ctx, url, 10)
	first.Close()
	await(t, changes, conn.Lost)
	await(t, changes, conn.Lost)
	for i := range 200 {
		o.Publish(modelEvent(i))
		if i < 70 {
			o.Publish(pressureEvent("ram-0", 0))
		}
		if i == 0 {
			o.Publish(pressureEvent("ram-1", 0))
		}
	}
	if st := o.Stats(); st.Waiting != 100 || st.Dropped != 150+21 {
		t.Errorf("while away: %+v", st)
	}

	second := startServer(t, c)
	js, err := jetstream.New(plain(t, second.URL()))
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.OrderedConsumer(ctx, schemas.EventStream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	model, ram0, ram1 := schemas.ModelSubject("here", "ram-0"), schemas.PressureSubject("here", "ram-0"), schemas.PressureSubject("here", "ram-1")
	want := map[string]uint64{model: 210, ram0: 70, ram1: 1}
	last, gaps := map[string]uint64{}, map[string]schemas.Gap{}
	for done := 0; done < len(want); {
		m, err := consumer.Next(jetstream.FetchMaxWait(patience))
		if err != nil {
			t.Fatalf("after %v: %v", last, err)
		}
		var e received
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			t.Fatal(err)
		}
		from := e.Sequence
		if e.Event.Event == schemas.EventGap {
			var g schemas.Gap
			if err := json.Unmarshal(e.Data, &g); err != nil || g.To != e.Sequence {
				t.Errorf("gap %s with sequence %d (%v)", e.Data, e.Sequence, err)
			}
			gaps[m.Subject()] = g
			from = g.From
		}
		if from != last[m.Subject()]+1 {
			t.Fatalf("%s: after %d came %s of %d", m.Subject(), last[m.Subject()], e.Event.Event, from)
		}
		if last[m.Subject()] = e.Sequence; e.Sequence == want[m.Subject()] {
			done++
		}
	}
	if gaps[model] != (schemas.Gap{From: 11, To: 160}) || gaps[ram0] != (schemas.Gap{From: 1, To: 21}) || gaps[ram1] != (schemas.Gap{}) {
		t.Errorf("gaps %v", gaps)
	}
}

// stored waits until the stream has n events: the server hands an event to its
// subscribers before it stores it.
func stored(t *testing.T, ctx context.Context, url string, n uint64) {
	t.Helper()
	js, err := jetstream.New(plain(t, url))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, schemas.EventStream)
	if err != nil {
		t.Fatal(err)
	}
	for {
		info, err := stream.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Msgs >= n {
			return
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func await(t *testing.T, events <-chan conn.Event, kind conn.Kind) conn.Event {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e := <-events:
			if e.Kind == kind {
				return e
			}
		case <-deadline:
			t.Fatalf("no event %s", kind)
		}
	}
}

func TestHeartbeats(t *testing.T) {
	s := startServer(t, bus.ServerConfig{})
	sub := listen(t, s.URL(), "memory.heartbeat.>")
	c := clock.NewManual(0, time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	startOutbox(t, s, func(oc *bus.OutboxConfig) {
		oc.Clock = c
		oc.Heartbeat = func() schemas.Heartbeat {
			return schemas.Heartbeat{Devices: []schemas.DeviceBeat{{DeviceID: "ram-0", Sequence: 3}}}
		}
	})
	for range 2 {
		c.Advance(bus.HeartbeatPeriod)
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(m.Data), `"boot_id":"boot"`) || !strings.Contains(string(m.Data), `"sequence":3`) {
			t.Errorf("%s", m.Data)
		}
	}
}

func TestHistoryIsKeptOnceEach(t *testing.T) {
	s := startServer(t, bus.ServerConfig{StoreDir: t.TempDir()})
	nc := dial(t, conn.Config{InProcess: s})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 2 { // creating and finding it
		if err := bus.KeepHistory(ctx, nc, bus.HistoryConfig{MaxAge: time.Hour, MaxBytes: 1 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	o := startOutbox(t, s, nil)
	for i := range 5 {
		o.Publish(modelEvent(i))
	}
	o.Close(patience)
	stored(t, ctx, s.URL(), 5)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, schemas.EventStream)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for want := uint64(1); want <= 5; want++ {
		m, err := consumer.Next(jetstream.FetchMaxWait(patience))
		if err != nil {
			t.Fatal(err)
		}
		var e received
		if err := json.Unmarshal(m.Data(), &e); err != nil || e.Sequence != want {
			t.Errorf("%v: %s", err, m.Data())
		}
	}
	if i := stream.CachedInfo().Config; i.MaxAge != time.Hour || i.Discard != jetstream.DiscardOld || i.Duplicates == 0 {
		t.Errorf("configuration %+v", i)
	}
}

func TestWithoutJetStreamHistoryIsATypedError(t *testing.T) {
	s := startServer(t, bus.ServerConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := bus.KeepHistory(ctx, dial(t, conn.Config{InProcess: s}), bus.HistoryConfig{})
	h, ok := err.(*bus.HistoryError)
	if !ok || !strings.Contains(h.Fix, "enable JetStream") {
		t.Errorf("%v", err)
	}
}

// An outbox whose server is gone gives up when its time has passed, by its own clock.
func TestCloseGivesUpByTheClock(t *testing.T) {
	s := startServer(t, bus.ServerConfig{})
	lost := make(chan conn.Event, 64)
	nc := dial(t, conn.Config{URL: s.URL(), Notify: func(e conn.Event) { lost <- e }})
	c := clock.NewManual(0, time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	o := bus.NewOutbox(bus.OutboxConfig{History: bus.LinkOf(nc), Pressure: bus.LinkOf(nc), Confirm: true, Node: "here", BootID: "boot", Clock: c})
	s.Close()
	await(t, lost, conn.Lost)
	o.Publish(modelEvent(1))
	o.Publish(pressureEvent("ram-0", 1))
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		o.Close(time.Hour)
	}()
	for {
		select {
		case <-closed:
			if c.Now() < clock.Instant(time.Hour) {
				t.Errorf("gave up after %v", time.Duration(c.Now()))
			}
			return
		default:
			c.Advance(time.Minute)
		}
	}
}
