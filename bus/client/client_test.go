package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

type desk func(c *actors.Command)

func (d desk) Submit(c *actors.Command) { d(c) }

func open(t testing.TB, d desk, sc bus.ServerConfig) *bus.Bus {
	t.Helper()
	sc.Listen = "127.0.0.1:0"
	b, err := bus.Open(bus.Config{Server: &sc, Node: "here", Version: "1.0.0", BootID: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close(time.Second) })
	if d != nil {
		if err := b.Serve(d); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func connect(t testing.TB, o client.Options) *client.Client {
	t.Helper()
	if o.Backoff == 0 {
		o.Backoff = time.Millisecond
	}
	c, err := client.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestCallInBothFormats(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	b := open(t, func(c *actors.Command) {
		r := c.Data.(*schemas.AllocateRequest)
		c.Reply.Done(&schemas.AllocateReply{Finished: schemas.Done(), Success: true, AllocationID: c.RequestID, DeviceID: r.DeviceID,
			AvailableMemoryBytes: 1<<62 + 1, AllocatedAt: at, Handle: &schemas.Handle{Claim: "c"}}, nil)
	}, bus.ServerConfig{})
	for _, f := range []codec.Format{codec.JSON, codec.MsgPack} {
		for _, node := range []string{"", "here"} {
			c := connect(t, client.Options{URL: b.URL(), Format: f, Node: node})
			var got schemas.AllocateReply
			err := c.Call(t.Context(), schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 5}, &got, client.WithRequestID("mine"))
			if err != nil || got.AllocationID != "mine" || got.DeviceID != "ram-0" || got.AvailableMemoryBytes != 1<<62+1 || !got.AllocatedAt.Equal(at) || got.Handle == nil {
				t.Errorf("%s, node %q: %v, %+v", f, node, err, got)
			}
		}
	}
}

func TestErrorsHaveTheContractsCodes(t *testing.T) {
	b := open(t, func(c *actors.Command) {
		c.Reply.Fail(schemas.Errorf(schemas.CodeOutOfMemory, "no room").With("shortfall_bytes", int64(7)))
	}, bus.ServerConfig{})
	for _, f := range []codec.Format{codec.JSON, codec.MsgPack} {
		c := connect(t, client.Options{URL: b.URL(), Format: f})
		var e *schemas.Error
		err := c.Call(t.Context(), schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 5}, nil)
		if !errors.As(err, &e) || e.Code != schemas.CodeOutOfMemory || e.Status != 503 || e.Message != "no room" || e.Details["shortfall_bytes"] == nil {
			t.Errorf("%s: %v", f, err)
		}
		if err := c.Call(t.Context(), schemas.ActionAllocate, nil, nil); !errors.Is(err, schemas.Errorf(schemas.CodeInvalidRequest, "")) {
			t.Errorf("%s: %v", f, err)
		}
		if err := c.Call(t.Context(), schemas.ActionAllocate, nil, nil, client.WithNode("elsewhere")); !errors.Is(err, schemas.Errorf(schemas.CodeNoNode, "")) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// A busy node is asked again, with the same request_id.
func TestRetriesKeepTheRequestID(t *testing.T) {
	var mu sync.Mutex
	var ids []string
	b := open(t, func(c *actors.Command) {
		mu.Lock()
		ids = append(ids, c.RequestID)
		n := len(ids)
		mu.Unlock()
		if n < 3 {
			c.Reply.Fail(schemas.Errorf(schemas.CodeBusy, "later").With("retry_after_ms", 1))
			return
		}
		c.Reply.Done(&schemas.DeallocateReply{Finished: schemas.Done(), Success: true}, nil)
	}, bus.ServerConfig{})
	c := connect(t, client.Options{URL: b.URL()})
	if err := c.Call(t.Context(), schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: "x"}, nil); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) != 3 || ids[0] == "" || ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("request ids %v", ids)
	}
}

// The server says a denied publish on the side only; the call must not wait for
// its deadline.
func TestADeniedPublishFailsAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nats.conf")
	text := `accounts { a { users [
		{user: node, password: p}
		{user: reader, password: p, permissions: {publish: ["memory.get_pressure"], subscribe: ["_INBOX.>"]}}
		{user: deaf, password: p, permissions: {publish: ">", subscribe: ["nothing"]}}
	] } }`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bus.StartServer(bus.ServerConfig{Listen: "127.0.0.1:0", ConfigFile: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for _, user := range []string{"reader", "deaf"} {
		c := connect(t, client.Options{URL: s.URL(), Username: user, Password: "p"})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		start := time.Now()
		err = c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 1}, nil)
		cancel()
		if !errors.Is(err, schemas.Errorf(schemas.CodeForbidden, "")) || time.Since(start) > patience/4 {
			// deaf: nobody answers either, and which of the two words comes first is the server's choice.
			if user != "deaf" || !errors.Is(err, schemas.Errorf(schemas.CodeNoNode, "")) {
				t.Errorf("%s: %v after %s", user, err, time.Since(start))
			}
		}
	}
	c := connect(t, client.Options{URL: s.URL(), Username: "reader", Password: "p"})
	if err := c.Call(t.Context(), schemas.ActionGetPressure, nil, nil); !errors.Is(err, schemas.Errorf(schemas.CodeNoNode, "")) {
		t.Errorf("allowed, and nobody there: %v", err)
	}
}

func TestPendingIsFollowed(t *testing.T) {
	var asked atomic.Int64
	b := open(t, func(c *actors.Command) {
		switch c.Action {
		case schemas.ActionAllocate:
			if c.DryRun {
				c.Reply.Done(&schemas.DryRunReply{Plan: schemas.Plan{Outcome: schemas.PlanQueued}}, nil)
				return
			}
			c.Reply.Done(&schemas.Pending{Status: schemas.StatusQueued, OperationID: "op", Position: 2, Reason: "no room"}, nil)
		case schemas.ActionGetOperation:
			op := schemas.Operation{OperationID: "op", Status: schemas.StatusRunning}
			turn := asked.Add(1)
			if turn == 2 {
				op.Status = schemas.StatusCompleted
				op.Result = &schemas.AllocateReply{Finished: schemas.Done(), AllocationID: "x", AvailableMemoryBytes: 1<<62 + 1}
			}
			if turn > 2 {
				op.Status, op.Error = schemas.StatusFailed, &schemas.OperationError{ErrorCode: schemas.CodeOutOfMemory, StatusCode: 503, ErrorMessage: "never"}
			}
			c.Reply.Done(&schemas.GetOperationReply{Operation: op}, nil)
		}
	}, bus.ServerConfig{})
	c := connect(t, client.Options{URL: b.URL(), Format: codec.MsgPack})
	request := &schemas.AllocateRequest{SizeBytes: 1}
	var pending *client.PendingError
	if err := c.Call(t.Context(), schemas.ActionAllocate, request, nil); !errors.As(err, &pending) || pending.OperationID != "op" || pending.Position != 2 {
		t.Fatalf("%v", err)
	}
	var got schemas.AllocateReply
	var seen []schemas.OperationStatus
	if err := c.Do(t.Context(), schemas.ActionAllocate, request, &got, func(o schemas.Operation) { seen = append(seen, o.Status) }); err != nil {
		t.Fatal(err)
	}
	if got.AllocationID != "x" || got.AvailableMemoryBytes != 1<<62+1 || len(seen) != 3 || seen[0] != schemas.StatusQueued || seen[2] != schemas.StatusCompleted {
		t.Errorf("%+v after %v", got, seen)
	}
	if err := c.Await(t.Context(), "op", nil, nil); !errors.Is(err, schemas.Errorf(schemas.CodeOutOfMemory, "")) {
		t.Errorf("%v", err)
	}
	var plan schemas.DryRunReply
	if err := c.Call(t.Context(), schemas.ActionAllocate, request, &plan, client.WithDryRun()); err != nil || plan.Plan.Outcome != schemas.PlanQueued {
		t.Errorf("%v, %+v", err, plan)
	}
}

// What waits does not outlive its node. The next one does not know the operation: the command
// is given again, with the same request_id, as often as any is tried.
func TestWhatWaitedIsGivenAgain(t *testing.T) {
	for _, lost := range []int{1, 10} {
		var mu sync.Mutex
		var ids []string
		b := open(t, func(c *actors.Command) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case c.Action == schemas.ActionGetOperation:
				c.Reply.Fail(schemas.Errorf(schemas.CodeOperationNotFound, "no such operation"))
				return
			case len(ids) < lost:
				c.Reply.Done(&schemas.Pending{Status: schemas.StatusQueued, OperationID: "op"}, nil)
			default:
				c.Reply.Done(&schemas.AllocateReply{Finished: schemas.Done(), AllocationID: "x"}, nil)
			}
			ids = append(ids, c.RequestID)
		}, bus.ServerConfig{})
		c := connect(t, client.Options{URL: b.URL(), Attempts: 3})
		var got schemas.AllocateReply
		err := c.Do(t.Context(), schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 1}, &got, nil)
		mu.Lock()
		if want := min(3, lost+1); len(ids) != want || ids[0] == "" || slices.ContainsFunc(ids, func(id string) bool { return id != ids[0] }) {
			t.Errorf("given as %v", ids)
		}
		mu.Unlock()
		if lost == 1 && (err != nil || got.AllocationID != "x") || lost > 1 && !errors.Is(err, schemas.Errorf(schemas.CodeOperationNotFound, "")) {
			t.Errorf("%d nodes lost it: %v %+v", lost, err, got)
		}
	}
}

// TestWaitOfAllCalls: Options.Wait is for what changes something, and WithWait goes before it.
func TestWaitOfAllCalls(t *testing.T) {
	waits := make(chan time.Duration, 1)
	b := open(t, func(c *actors.Command) {
		waits <- c.Wait
		c.Reply.Fail(schemas.Errorf(schemas.CodeOutOfMemory, "no"))
	}, bus.ServerConfig{})
	c := connect(t, client.Options{URL: b.URL(), Wait: 7 * time.Second})
	for _, step := range []struct {
		action  schemas.Action
		request any
		options []client.CallOption
		want    time.Duration
	}{
		{schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 1}, nil, 7 * time.Second},
		{schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 1}, []client.CallOption{client.WithWait(time.Second)}, time.Second},
		{schemas.ActionListDevices, nil, nil, 0},
	} {
		if err := c.Call(t.Context(), step.action, step.request, nil, step.options...); !errors.Is(err, schemas.Errorf(schemas.CodeOutOfMemory, "")) {
			t.Fatalf("%s: %v", step.action, err)
		}
		if got := <-waits; got != step.want {
			t.Errorf("%s waits %v, not %v", step.action, got, step.want)
		}
	}
}

func TestEventsArriveInOrderWithTheirData(t *testing.T) {
	b := open(t, nil, bus.ServerConfig{})
	c := connect(t, client.Options{URL: b.URL()})
	events, err := c.Events(t.Context(), "memory.events.pressure.>")
	if err != nil {
		t.Fatal(err)
	}
	for i, seq := range []uint64{1, 2, 5} {
		b.Publisher().Publish(schemas.Event{Event: schemas.EventPressureChanged, Subject: schemas.PressureSubject("here", "ram-0"),
			Data: &schemas.Pressure{DeviceID: "ram-0", Sequence: seq}})
		e, err := events.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var p schemas.Pressure
		if err := e.Decode(&p); err != nil || p.Sequence != seq || e.Sequence != seq {
			t.Errorf("%d: %v, %+v", i, err, e)
		}
		if want := map[uint64]schemas.Gap{5: {From: 3, To: 4}}[seq]; e.Missed != want {
			t.Errorf("%d: missed %+v", i, e.Missed)
		}
	}
	events.Close()
	if _, err := events.Next(t.Context()); !errors.Is(err, client.ErrEventsClosed) {
		t.Errorf("%v", err)
	}
}

func TestSequences(t *testing.T) {
	event := func(kind schemas.EventKind, boot string, seq, gapFrom uint64) *client.Event {
		e := &client.Event{Event: schemas.Event{Event: kind, Subject: "s", BootID: boot, Sequence: seq}}
		e.Raw, _ = json.Marshal(schemas.Gap{From: gapFrom, To: seq})
		return e
	}
	const change, gap, reminder = schemas.EventPressureChanged, schemas.EventGap, schemas.EventPressureReminder
	var s client.Sequences
	for i, c := range []struct {
		e         *client.Event
		missed    schemas.Gap
		duplicate bool
	}{
		{event(change, "a", 4, 0), schemas.Gap{}, false}, // the first one misses nothing
		{event(change, "a", 5, 0), schemas.Gap{}, false},
		{event(change, "a", 5, 0), schemas.Gap{}, true},
		{event(reminder, "a", 5, 0), schemas.Gap{}, false},
		{event(gap, "a", 9, 6), schemas.Gap{}, false}, // told of
		{event(change, "a", 12, 0), schemas.Gap{From: 10, To: 11}, false},
		{event(gap, "a", 20, 15), schemas.Gap{From: 13, To: 14}, false},
		{event(reminder, "a", 22, 0), schemas.Gap{From: 21, To: 22}, false},
		{event(change, "b", 1, 0), schemas.Gap{}, false}, // another run of the node
		{event(change, "b", 2, 0), schemas.Gap{}, false},
	} {
		if missed, duplicate := s.Observe(c.e); missed != c.missed || duplicate != c.duplicate {
			t.Errorf("%d: missed %+v, duplicate %t", i, missed, duplicate)
		}
	}
}

func TestConnectSaysWhatIsMissing(t *testing.T) {
	if _, err := client.Connect(client.Options{URL: "nats://127.0.0.1:1"}); err == nil || !errors.Is(err, nats.ErrNoServers) {
		t.Errorf("%v", err)
	}
}
