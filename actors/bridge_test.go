package actors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
)

// bridged is a GPU whose driver copies from and to the other device's segments by itself.
type bridged struct {
	*gated
	other *gated

	mu    sync.Mutex
	calls []string
	fail  error         // of the next call
	held  chan struct{} // not nil: calls wait for their context, and close it when they do
}

func (b *bridged) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, fmt.Sprintf(format, args...))
}

func (b *bridged) took() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.calls
	b.calls = nil
	return out
}

func (b *bridged) begin(ctx context.Context, call string, n int64) error {
	b.note("%s %d", call, n)
	b.mu.Lock()
	fail, held := b.fail, b.held
	b.fail = nil
	b.mu.Unlock()
	if held != nil {
		close(held)
		<-ctx.Done()
		return ctx.Err()
	}
	return fail
}

func (b *bridged) Bridges(s device.Segment) bool {
	_, err := b.other.Driver.Released(s)
	return !errors.Is(err, device.ErrForeign)
}

func (b *bridged) Pull(ctx context.Context, dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	if err := b.begin(ctx, "pull", n); err != nil {
		return err
	}
	buf := make([]byte, n)
	return errors.Join(b.other.Driver.Read(src, srcOff, buf), b.gated.Driver.Write(dst, dstOff, buf))
}

func (b *bridged) Push(ctx context.Context, dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	if err := b.begin(ctx, "push", n); err != nil {
		return err
	}
	buf := make([]byte, n)
	return errors.Join(b.gated.Driver.Read(src, srcOff, buf), b.other.Driver.Write(dst, dstOff, buf))
}

func (b *bridged) Expect(src device.Segment) { b.note("expect %d", src.Bytes()) }

// spanned opens a house with gpu-0, whose driver reaches ram-0's memory.
func spanned(t *testing.T) (*timed, *bridged) {
	t.Helper()
	b := &bridged{gated: newGated(t, "gpu-0"), other: newGated(t, "ram-0")}
	h := openTimed(t, nil, func(c *actors.Config) {
		c.Devices = []actors.DeviceConfig{{Driver: b}, {Driver: mainMemory{b.other}}}
	})
	return h, b
}

// A driver that reaches another's memory copies by itself: models down and up, and scratch
// both ways; what went down may come back. Where it cannot, after all, a buffer does it.
func TestBridges(t *testing.T) {
	h, b := spanned(t)
	size := h.load("m", "gpu-0").Model.Residency[0].SizeBytes
	want := h.weights(h.lies("m")["gpu-0"])
	b.took()
	if a := h.command("", "", schemas.ActionUnloadModel, demotion("m")); a.err != nil {
		t.Fatal(a.err)
	}
	if !bytes.Equal(h.weights(h.lies("m")["ram-0"]), want) {
		t.Error("the copy in main memory is not the model")
	}
	up := h.command("", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m"})
	is(t, "promoted", up.data.(*schemas.LoadModelReply).SourceTier, schemas.TierRAM)
	if !bytes.Equal(h.weights(h.lies("m")["gpu-0"]), want) {
		t.Error("the promoted copy is not the model")
	}
	calls := b.took()
	expected := slices.Index(calls, fmt.Sprintf("expect %d", size)) // in the background, sooner or later
	if expected >= 0 {
		calls = slices.Delete(calls, expected, expected+1)
	}
	if len(calls) != 2 || calls[0][:4] != "push" || calls[1][:4] != "pull" {
		t.Errorf("calls %q", calls)
	}

	for expected < 0 {
		runtime.Gosched()
		expected = slices.Index(b.took(), fmt.Sprintf("expect %d", size))
	}
	g := h.allocate(scratch("gpu-0", 8*mib))
	h.paint(g.AllocationID, 3)
	down := h.command("", "", schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: g.AllocationID, TargetDeviceID: "ram-0"}).data.(*schemas.TransferReply)
	b.fail = fmt.Errorf("not today: %w", device.ErrUnsupported)
	back := h.command("", "", schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: down.AllocationID, TargetDeviceID: "gpu-0"}).data.(*schemas.TransferReply)
	if !bytes.Equal(h.content(back.AllocationID, 8*mib), bytes.Repeat([]byte{3}, 8*mib)) {
		t.Error("what went down and up is not what it was")
	}
	if got := b.took(); !slices.Equal(got, []string{"push 8388608", "pull 8388608"}) {
		t.Errorf("calls %q", got)
	}
}

// A copy of a driver's own is cancelled in the midst, and fails as others do.
func TestBridgesAreCancelled(t *testing.T) {
	h, b := spanned(t)
	g := h.allocate(scratch("ram-0", 4*mib))
	held := make(chan struct{})
	b.held = held
	in := &schemas.TransferRequest{AllocationID: g.AllocationID, TargetDeviceID: "gpu-0"}
	r := h.send(&actors.Command{Action: schemas.ActionTransfer, Data: in, RequestID: "t", Wait: time.Second})
	<-held
	h.pass(0)
	h.pass(time.Second)
	id := (<-r).data.(*schemas.Pending).OperationID
	a := <-h.send(&actors.Command{Action: schemas.ActionCancelOperation, Data: &schemas.CancelOperationRequest{OperationID: id, WaitMs: 10000}, RequestID: "c"})
	op := a.data.(*schemas.CancelOperationReply).Operation
	if a.err != nil || op.Status != schemas.StatusCancelled || op.Error == nil || op.Error.ErrorCode != schemas.CodeCancelled {
		t.Errorf("cancelled: %+v, %+v", op, op.Error)
	}
	is(t, "left on the target", h.used("gpu-0"), int64(0))

	b.mu.Lock()
	b.held, b.fail = nil, errors.New("the bus is loose")
	b.mu.Unlock()
	if x := h.command("", "", schemas.ActionTransfer, in); x.err == nil || x.err.Code != schemas.CodeTransferFailed {
		t.Errorf("failed: %+v, %v", x.data, x.err)
	}
	is(t, "left on the target", h.used("gpu-0"), int64(0))
}

// swift is a device that has many ranges cleared and copied as one piece of work.
type swift struct {
	*gated
	calls []string
}

func (s *swift) ClearAll(ctx context.Context, ranges []device.Range, value byte, did func(n int64)) error {
	s.calls = append(s.calls, fmt.Sprintf("clear %d", len(ranges)))
	for _, r := range ranges {
		if err := errors.Join(ctx.Err(), s.gated.Driver.Clear(r.Segment, r.Off, r.Bytes, value)); err != nil {
			return err
		}
		did(r.Bytes)
	}
	return nil
}

func (s *swift) CopyAll(ctx context.Context, to, from []device.Range, did func(n int64)) error {
	s.calls = append(s.calls, fmt.Sprintf("copy %d", len(to)))
	for i, r := range to {
		if err := errors.Join(ctx.Err(), s.gated.Driver.Copy(r.Segment, r.Off, from[i].Segment, from[i].Off, r.Bytes)); err != nil {
			return err
		}
		did(r.Bytes)
	}
	return nil
}

// A device that can have a grant's segments cleared and copied as one piece of work is asked once
// for all of them; a failure is told as others are.
func TestASwiftDeviceIsAskedOnce(t *testing.T) {
	dev := &swift{gated: &gated{Driver: gpu(t, "gpu-0", 8<<30)}}
	h := openTimed(t, nil, func(c *actors.Config) {
		c.Devices = []actors.DeviceConfig{{Driver: dev}}
	})
	const n = 2<<30 + 4*mib
	a, b := h.allocate(scratch("gpu-0", n)), h.allocate(scratch("gpu-0", n))
	dev.calls = nil
	is(t, "cleared", call[*schemas.ClearReply](t, h.house, schemas.ActionClear, &schemas.ClearRequest{AllocationID: a.AllocationID}).ClearedBytes, int64(n))
	in := &schemas.CopyRequest{SourceAllocationID: a.AllocationID, TargetAllocationID: b.AllocationID}
	is(t, "copied", call[*schemas.CopyReply](t, h.house, schemas.ActionCopy, in).CopiedBytes, int64(n))
	is(t, "calls", dev.calls, []string{"clear 3", "copy 3"})

	dev.Faults().FailCopy(2, errors.New("the bus is loose"))
	if x := h.command("", "", schemas.ActionCopy, in); x.err == nil || x.err.Code != schemas.CodeTransferFailed {
		t.Errorf("failed: %+v, %v", x.data, x.err)
	}
}
