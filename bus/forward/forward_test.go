package forward_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/bus/forward"
	"github.com/isobar-project/isobar/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// desk is a fake of the actors: it hands every command to a function.
type desk func(c *actors.Command)

func (d desk) Submit(c *actors.Command) { d(c) }

// answer is what a command was answered.
type answer struct {
	data any
	undo func()
	err  *schemas.Error
}

type answers chan answer

func (a answers) Done(data any, undo func()) { a <- answer{data: data, undo: undo} }
func (a answers) Fail(e *schemas.Error)      { a <- answer{err: e} }

func (a answers) next(t *testing.T) answer {
	t.Helper()
	select {
	case got := <-a:
		return got
	case <-time.After(patience):
		t.Fatal("the command was not answered")
		panic("unreachable")
	}
}

// start serves a fake desk, if any, and returns a desk that forwards to it.
func start(t *testing.T, ctx context.Context, far desk, opts ...client.CallOption) *forward.Desk {
	t.Helper()
	traced := func(header string) *actors.Trace {
		return &actors.Trace{ID: [16]byte([]byte((header + "----------------")[:16]))}
	}
	b, err := bus.Open(bus.Config{Server: &bus.ServerConfig{Listen: "127.0.0.1:0"}, Node: "here", Version: "1.0.0", Trace: traced})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close(time.Second) })
	if far != nil {
		if err := b.Serve(far); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.Connect(client.Options{URL: b.URL(), Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return forward.New(ctx, c, opts...)
}

func TestACommandArrivesAsItWas(t *testing.T) {
	seen := make(chan *actors.Command, 1)
	d := start(t, t.Context(), func(c *actors.Command) {
		seen <- c
		c.Reply.Done(&schemas.AllocateReply{Finished: schemas.Done(), Success: true, AllocationID: "a-1"}, nil)
	}, client.WithTraceparent("00-trace"))
	got := make(answers, 1)
	d.Submit(&actors.Command{Action: schemas.ActionAllocate, RequestID: "mine", Wait: 1500 * time.Millisecond, DryRun: true,
		Data: &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 5}, Reply: got})
	a := got.next(t)
	far := <-seen
	if r := far.Data.(*schemas.AllocateRequest); far.RequestID != "mine" || !far.DryRun || r.DeviceID != "ram-0" || r.SizeBytes != 5 ||
		far.Wait <= 0 || string(far.Trace.ID[:8]) != "00-trace" || far.Wait > 1500*time.Millisecond {
		t.Errorf("%+v of %+v", r, far)
	}
	var reply schemas.AllocateReply
	raw, ok := a.data.(json.RawMessage)
	if !ok || json.Unmarshal(raw, &reply) != nil || reply.AllocationID != "a-1" {
		t.Errorf("%+v", a)
	}
	if a.undo != nil {
		t.Error("a dry run has nothing to undo")
	}
}

func TestRefusalsAreHandedOn(t *testing.T) {
	d := start(t, t.Context(), func(c *actors.Command) {
		c.Reply.Fail(schemas.Errorf(schemas.CodeOutOfMemory, "no room").With("shortfall_bytes", int64(7)))
	})
	got := make(answers, 1)
	d.Submit(&actors.Command{Action: schemas.ActionAllocate, RequestID: "r", Data: &schemas.AllocateRequest{SizeBytes: 5}, Reply: got})
	if a := got.next(t); a.err == nil || a.err.Code != schemas.CodeOutOfMemory || a.err.Details["shortfall_bytes"] == nil {
		t.Errorf("%+v", a)
	}
}

func TestNoAnswerIsNoNode(t *testing.T) {
	d := start(t, t.Context(), nil)
	got := make(answers, 1)
	d.Submit(&actors.Command{Action: schemas.ActionListDevices, RequestID: "r", Data: &schemas.ListDevicesRequest{}, Reply: got})
	if a := got.next(t); a.err == nil || a.err.Code != schemas.CodeNoNode {
		t.Errorf("nobody there: %+v", a)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d = start(t, ctx, func(c *actors.Command) { c.Reply.Done(&schemas.ListDevicesReply{}, nil) })
	d.Submit(&actors.Command{Action: schemas.ActionListDevices, RequestID: "r", Data: &schemas.ListDevicesRequest{}, Reply: got})
	if a := got.next(t); a.err == nil || a.err.Code != schemas.CodeNoNode {
		t.Errorf("given up: %+v", a)
	}
}

// A grant that nobody was told of is given back, even when the desk's time is over.
func TestAnUnheardGrantIsGivenBack(t *testing.T) {
	back := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d := start(t, ctx, func(c *actors.Command) {
		switch r := c.Data.(type) {
		case *schemas.AllocateRequest:
			c.Reply.Done(&schemas.AllocateReply{Finished: schemas.Done(), Success: true, AllocationID: "0192f0c1-7b1e-7c3a-9d2e-2f8f4c1d5a77"}, nil)
		case *schemas.DeallocateRequest:
			back <- r.AllocationID
			c.Reply.Done(&schemas.DeallocateReply{}, nil)
		}
	})
	got := make(answers, 1)
	d.Submit(&actors.Command{Action: schemas.ActionAllocate, RequestID: "r", Data: &schemas.AllocateRequest{SizeBytes: 5}, Reply: got})
	a := got.next(t)
	if a.undo == nil {
		t.Fatalf("%+v", a)
	}
	cancel()
	a.undo()
	d.Wait()
	select {
	case id := <-back:
		if id != "0192f0c1-7b1e-7c3a-9d2e-2f8f4c1d5a77" {
			t.Error(id)
		}
	default:
		t.Error("not given back")
	}
}
