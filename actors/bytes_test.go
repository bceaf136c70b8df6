package actors_test

import (
	"bytes"
	"sync/atomic"
	"testing"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/schemas"
)

// gated is a device whose copies wait at a gate where a test has closed it.
type gated struct {
	*sim.Driver
	closed atomic.Bool
	at     chan struct{} // one for each call that waits
	pass   chan struct{} // one lets one call through
}

func newGated(t *testing.T, id string) *gated {
	t.Helper()
	return &gated{Driver: gpu(t, id, 1<<30), at: make(chan struct{}, 100), pass: make(chan struct{}, 100)}
}

func (g *gated) wait() {
	if g.closed.Load() {
		g.at <- struct{}{}
		<-g.pass
	}
}

func (g *gated) open() {
	g.closed.Store(false)
	g.pass <- struct{}{}
}

// Write implements device.Driver.
func (g *gated) Write(s device.Segment, off int64, b []byte) error {
	g.wait()
	return g.Driver.Write(s, off, b)
}

// Copy implements device.Driver.
func (g *gated) Copy(dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	g.wait()
	return g.Driver.Copy(dst, dstOff, src, srcOff, n)
}

// Clear implements device.Driver.
func (g *gated) Clear(s device.Segment, off, n int64, value byte) error {
	g.wait()
	return g.Driver.Clear(s, off, n, value)
}

// two opens a house with the devices gpu-0 and gpu-1, whose copies can be stopped.
func two(t *testing.T, before *timed, change ...func(*actors.Config)) (*timed, *gated, *gated) {
	t.Helper()
	a, b := newGated(t, "gpu-0"), newGated(t, "gpu-1")
	h := openTimed(t, before, append([]func(*actors.Config){func(c *actors.Config) {
		c.Devices = []actors.DeviceConfig{{Driver: a}, {Driver: b}}
	}}, change...)...)
	return h, a, b
}

// content is what a grant holds, as one who maps it sees it.
func (h *timed) content(id string, size int64) []byte {
	h.t.Helper()
	w, err := h.hello(dataplane.Hello{Client: "test"})
	if err != nil {
		h.t.Fatal(err)
	}
	handle := call[*schemas.GetHandleReply](h.t, h.house, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: id}).Handle
	got := make(chan *dataplane.Mapping, 1)
	h.DataDesk(func() string { return "" }).Map(w.SessionID, handle.Claim, dataplane.ReadOnly, func(m *dataplane.Mapping, err error) {
		if err != nil {
			h.t.Error(err)
		}
		got <- m
	})
	m := <-got
	if m == nil {
		h.t.FailNow()
	}
	var out []byte
	for _, s := range m.Segments {
		b := make([]byte, s.SizeBytes)
		if _, err := s.File.ReadAt(b, s.Offset); err != nil {
			h.t.Error(err)
		}
		s.File.Close()
		out = append(out, b...)
	}
	h.unmap(w.SessionID, id)
	if int64(len(out)) != size {
		h.t.Errorf("grant %s has %d bytes, not %d", id, len(out), size)
	}
	return out
}

func (h *timed) paint(id string, value int) {
	h.t.Helper()
	call[*schemas.ClearReply](h.t, h.house, schemas.ActionClear, &schemas.ClearRequest{AllocationID: id, FillValue: value})
}

// fails gives a command that must fail with a code.
func (h *timed) fails(code schemas.Code, action schemas.Action, data any) *schemas.Error {
	h.t.Helper()
	a := <-h.send(&actors.Command{Action: action, Data: data, RequestID: "r"})
	if a.err == nil || a.err.Code != code {
		h.t.Errorf("%s %+v answered %+v, %v, not %s", action, data, a.data, a.err, code)
		return &schemas.Error{}
	}
	return a.err
}

func (h *timed) used(device string) int64 {
	h.t.Helper()
	return call[*schemas.GetStatusReply](h.t, h.house, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: device}).MemoryInfo.UsedMemory
}

func scratch(device string, bytes int64) schemas.AllocateRequest {
	return schemas.AllocateRequest{DeviceID: device, SizeBytes: bytes, Class: schemas.ClassScratch}
}

func TestClearAndCopyAreExact(t *testing.T) {
	h, _, _ := two(t, nil)
	a, b := h.allocate(scratch("gpu-0", 40*mib+17)), h.allocate(scratch("gpu-0", 300_000))
	h.paint(a.AllocationID, 7)
	r := call[*schemas.ClearReply](t, h.house, schemas.ActionClear, &schemas.ClearRequest{AllocationID: a.AllocationID, Offset: 20*mib - 5, SizeBytes: ptr[int64](11), FillValue: 255})
	if r.ClearedBytes != 11 || r.Status != schemas.StatusCompleted {
		t.Errorf("clear answered %+v", r)
	}
	want := bytes.Repeat([]byte{7}, 40*mib+17)
	copy(want[20*mib-5:], bytes.Repeat([]byte{255}, 11))
	if !bytes.Equal(h.content(a.AllocationID, 40*mib+17), want) {
		t.Error("the clear is not exact")
	}
	h.paint(b.AllocationID, 1)
	c := call[*schemas.CopyReply](t, h.house, schemas.ActionCopy, &schemas.CopyRequest{SourceAllocationID: a.AllocationID, TargetAllocationID: b.AllocationID,
		SourceOffset: 20*mib - 100, TargetOffset: 1000, SizeBytes: ptr[int64](200)})
	if c.CopiedBytes != 200 {
		t.Errorf("copy answered %+v", c)
	}
	small := bytes.Repeat([]byte{1}, 300_000)
	copy(small[1000:1200], want[20*mib-100:])
	if !bytes.Equal(h.content(b.AllocationID, 300_000), small) {
		t.Error("the copy is not exact")
	}
	// Inside one grant, ranges that only touch.
	call[*schemas.CopyReply](t, h.house, schemas.ActionCopy, &schemas.CopyRequest{SourceAllocationID: b.AllocationID, TargetAllocationID: b.AllocationID,
		SourceOffset: 1000, TargetOffset: 1200, SizeBytes: ptr[int64](200)})
	copy(small[1200:1400], small[1000:1200])
	if !bytes.Equal(h.content(b.AllocationID, 300_000), small) {
		t.Error("the copy inside a grant is not exact")
	}
}

func TestCopyAndClearAreRefused(t *testing.T) {
	h, _, _ := two(t, nil)
	a, b, far := h.allocate(scratch("gpu-0", 4*mib)).AllocationID, h.allocate(scratch("gpu-0", 2*mib)).AllocationID, h.allocate(scratch("gpu-1", 4*mib)).AllocationID
	kept := h.allocate(schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib, Class: schemas.ClassReservation}).AllocationID
	pair := func(s, t string, from, to int64, n *int64) *schemas.CopyRequest {
		return &schemas.CopyRequest{SourceAllocationID: s, TargetAllocationID: t, SourceOffset: from, TargetOffset: to, SizeBytes: n}
	}
	none := "00000000-0000-8000-8000-000000000000"
	for _, c := range []struct {
		code schemas.Code
		in   *schemas.CopyRequest
	}{
		{schemas.CodeInvalidTransferParams, pair(a, b, 0, 0, nil)},                   // does not fit
		{schemas.CodeInvalidTransferParams, pair(a, b, 4*mib, 0, nil)},               // nothing is left
		{schemas.CodeInvalidTransferParams, pair(b, a, 0, 3*mib, nil)},               // ends beyond
		{schemas.CodeInvalidTransferParams, pair(a, a, 0, mib-1, ptr[int64](mib))},   // overlaps
		{schemas.CodeInvalidTransferParams, pair(a, far, 0, 0, nil)},                 // another device
		{schemas.CodeAllocationNotFound, pair(a, none, 0, 0, nil)},                   //
		{schemas.CodeAllocationNotFound, pair(none, a, 0, 0, nil)},                   //
		{schemas.CodeAllocationNotFound, pair(a, far[:6]+none[6:], 0, 0, nil)},       // of another device
		{schemas.CodeInvalidRequest, pair(kept, a, 0, 0, nil)},                       // no memory
		{schemas.CodeInvalidTransferParams, pair(a, b, 1<<60, 0, ptr[int64](1<<60))}, // no overflow
	} {
		h.fails(c.code, schemas.ActionCopy, c.in)
	}
	h.fails(schemas.CodeInvalidRequest, schemas.ActionClear, &schemas.ClearRequest{AllocationID: a, Offset: 4 * mib})
	h.fails(schemas.CodeInvalidRequest, schemas.ActionClear, &schemas.ClearRequest{AllocationID: a, Offset: 1, SizeBytes: ptr[int64](4 * mib)})
	h.fails(schemas.CodeInvalidRequest, schemas.ActionClear, &schemas.ClearRequest{AllocationID: kept})
	// Another tenant's ids do not exist.
	for action, data := range map[schemas.Action]any{
		schemas.ActionClear:    &schemas.ClearRequest{AllocationID: a},
		schemas.ActionCopy:     pair(a, b, 0, 0, ptr[int64](1)),
		schemas.ActionTransfer: &schemas.TransferRequest{AllocationID: a, TargetDeviceID: "gpu-1"},
	} {
		if got := <-h.send(&actors.Command{Action: action, Data: data, RequestID: "r", Tenant: "other"}); got.err == nil || got.err.Code != schemas.CodeAllocationNotFound {
			t.Errorf("%s of another tenant's grant: %+v", action, got)
		}
	}
}

// A release that begins while bytes are being cleared stops that, and waits for it.
func TestReleaseWaitsForAClear(t *testing.T) {
	h, dev, _ := two(t, nil)
	g := h.allocate(scratch("gpu-0", 64*mib)).AllocationID
	dev.closed.Store(true)
	clearing := h.send(&actors.Command{Action: schemas.ActionClear, Data: &schemas.ClearRequest{AllocationID: g, FillValue: 1}, RequestID: "c"})
	<-dev.at
	freed := h.send(&actors.Command{Action: schemas.ActionDeallocate, Data: &schemas.DeallocateRequest{AllocationID: g}, RequestID: "d"})
	h.pass(0)
	if !h.there(g) || h.used("gpu-0") != 64*mib {
		t.Fatal("the memory was given up while a worker writes to it")
	}
	dev.open()
	if a := <-clearing; a.err == nil || a.err.Code != schemas.CodeStaleHandle {
		t.Errorf("the clear ended with %+v", a)
	}
	if a := <-freed; a.err != nil || !a.data.(*schemas.DeallocateReply).Confirmed {
		t.Errorf("the release ended with %+v", a)
	}
	if h.used("gpu-0") != 0 {
		t.Error("the memory is still used")
	}
}

func TestClearOfADevice(t *testing.T) {
	h, _, _ := two(t, nil)
	for range 3 {
		h.allocate(scratch("gpu-0", 4*mib))
	}
	state := h.allocate(schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 4 * mib, Class: schemas.ClassState, Persistent: true})
	other := <-h.send(&actors.Command{Action: schemas.ActionAllocate, Data: ptr(scratch("gpu-0", 4*mib)), RequestID: "o", Tenant: "other"})
	elsewhere := h.allocate(scratch("gpu-1", 4*mib))
	p := <-h.send(&actors.Command{Action: schemas.ActionClear, Data: &schemas.ClearRequest{DeviceID: "gpu-0", Confirm: true}, RequestID: "r", DryRun: true})
	if p.err != nil || p.data.(*schemas.DryRunReply).Plan.Outcome != schemas.PlanGranted || !h.there(state.AllocationID) {
		t.Errorf("the dry run answered %+v", p)
	}
	r := call[*schemas.ClearReply](t, h.house, schemas.ActionClear, &schemas.ClearRequest{DeviceID: "gpu-0", Confirm: true})
	if r.ClearedBytes != 16*mib || h.there(state.AllocationID) || !h.there(elsewhere.AllocationID) || h.used("gpu-0") != 4*mib || other.err != nil {
		t.Errorf("clear answered %+v, with %d bytes used", r, h.used("gpu-0"))
	}
}

func (h *timed) transferEvents() (kinds []schemas.EventKind) {
	h.events.mu.Lock()
	defer h.events.mu.Unlock()
	for _, e := range h.events.list {
		if e.Subject == schemas.TransferSubject("test") {
			if e.Tenant == "" {
				h.t.Errorf("a transfer of nobody: %+v", e)
			}
			kinds = append(kinds, e.Event)
		}
	}
	return kinds
}

func TestTransferCopiesAndMoves(t *testing.T) {
	h, _, _ := two(t, nil)
	src := h.allocate(schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 9*mib + 5, Class: schemas.ClassState, Persistent: true, Purpose: "cache", Priority: 3})
	h.paint(src.AllocationID, 9)
	call[*schemas.ClearReply](t, h.house, schemas.ActionClear, &schemas.ClearRequest{AllocationID: src.AllocationID, Offset: 5 * mib, FillValue: 8})
	want := append(bytes.Repeat([]byte{9}, 5*mib), bytes.Repeat([]byte{8}, 4*mib+5)...)

	r := call[*schemas.TransferReply](t, h.house, schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: src.AllocationID, TargetDeviceID: "gpu-1"})
	if r.TransferID != r.Operation.OperationID || r.Operation.Status != schemas.StatusCompleted || r.Operation.BytesDone != 9*mib+5 || r.AllocationID == src.AllocationID {
		t.Errorf("transfer answered %+v", r)
	}
	if !bytes.Equal(h.content(r.AllocationID, 9*mib+5), want) || !bytes.Equal(h.content(src.AllocationID, 9*mib+5), want) {
		t.Error("source and target are not alike")
	}
	got := call[*schemas.GetAllocationReply](t, h.house, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: r.AllocationID}).Allocation
	if got.DeviceID != "gpu-1" || got.Class != schemas.ClassState || got.Purpose != "cache" || got.Priority != 3 || !got.Persistent {
		t.Errorf("the target is %+v", got)
	}
	op := call[*schemas.GetTransferReply](t, h.house, schemas.ActionGetTransfer, &schemas.GetTransferRequest{TransferID: r.TransferID}).Operation
	if op.Status != schemas.StatusCompleted || op.Result.(*schemas.TransferReply).AllocationID != r.AllocationID || op.BytesTotal != 9*mib+5 {
		t.Errorf("get_transfer answered %+v", op)
	}

	part := call[*schemas.TransferReply](t, h.house, schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: src.AllocationID, TargetDeviceID: "gpu-1", SourceDeviceID: "gpu-0", SizeBytes: ptr[int64](6 * mib)})
	if !bytes.Equal(h.content(part.AllocationID, 6*mib), want[:6*mib]) {
		t.Error("a part is not alike")
	}

	m := call[*schemas.TransferReply](t, h.house, schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: src.AllocationID, TargetDeviceID: "gpu-1", Move: true})
	if i := h.item(schemas.EventDeallocated, src.AllocationID); i.Reason == "" {
		t.Errorf("deallocated: %+v", i)
	}
	if h.there(src.AllocationID) || h.used("gpu-0") != 0 || !bytes.Equal(h.content(m.AllocationID, 9*mib+5), want) {
		t.Error("the move left the source, or did not arrive whole")
	}
	if i := h.item(schemas.EventMoved, m.AllocationID); i.DeviceID != "gpu-1" {
		t.Errorf("moved: %+v", i)
	}
	h.fails(schemas.CodeTransferNotFound, schemas.ActionGetTransfer, &schemas.GetTransferRequest{TransferID: "none"})
	h.fails(schemas.CodeTransferNotFound, schemas.ActionCancelTransfer, &schemas.CancelTransferRequest{TransferID: "none"})
}

func TestTransferIsRefused(t *testing.T) {
	h, _, _ := two(t, nil)
	g := h.allocate(scratch("gpu-0", 4*mib))
	id := g.AllocationID
	kept := h.allocate(schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib, Class: schemas.ClassReservation}).AllocationID
	for _, c := range []struct {
		code schemas.Code
		in   schemas.TransferRequest
	}{
		{schemas.CodeInvalidTransferParams, schemas.TransferRequest{AllocationID: id, TargetDeviceID: "gpu-0"}},
		{schemas.CodeInvalidTransferParams, schemas.TransferRequest{AllocationID: id, TargetDeviceID: "gpu-1", SourceDeviceID: "gpu-1"}},
		{schemas.CodeInvalidTransferParams, schemas.TransferRequest{AllocationID: id, TargetDeviceID: "gpu-1", SizeBytes: ptr[int64](4*mib + 1)}},
		{schemas.CodeInvalidTransferParams, schemas.TransferRequest{AllocationID: id, TargetDeviceID: "gpu-1", SizeBytes: ptr[int64](mib), Move: true}},
		{schemas.CodeInvalidDevice, schemas.TransferRequest{AllocationID: id, TargetDeviceID: "gpu-7"}},
		{schemas.CodeInvalidDevice, schemas.TransferRequest{AllocationID: id, TargetDeviceID: "gpu-1", SourceDeviceID: "gpu-7"}},
		{schemas.CodeAllocationNotFound, schemas.TransferRequest{AllocationID: "none", TargetDeviceID: "gpu-1"}},
		{schemas.CodeInvalidRequest, schemas.TransferRequest{AllocationID: kept, TargetDeviceID: "gpu-1"}},
	} {
		h.fails(c.code, schemas.ActionTransfer, &c.in)
	}
	// Whoever maps a grant may write to it: it can be copied, not moved.
	w, err := h.hello(dataplane.Hello{Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	f := h.mapped(w.SessionID, g.Handle.Claim)
	defer f.Close()
	move := &schemas.TransferRequest{AllocationID: id, TargetDeviceID: "gpu-1", Move: true}
	if err := h.fails(schemas.CodeAllocationInUse, schemas.ActionTransfer, move); err.Details["mapped_by"] == nil {
		t.Errorf("details %v", err.Details)
	}
	p := <-h.send(&actors.Command{Action: schemas.ActionTransfer, Data: move, RequestID: "r", DryRun: true})
	if p.err != nil || p.data.(*schemas.DryRunReply).Plan.Outcome != schemas.PlanRefused {
		t.Errorf("the dry run says %+v", p)
	}
	call[*schemas.TransferReply](t, h.house, schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: id, TargetDeviceID: "gpu-1"})
	// No room there, ever: refused as an allocate is; nothing is left.
	big := h.allocate(scratch("gpu-0", 8*mib)).AllocationID
	call[*schemas.SetLimitsReply](t, h.house, schemas.ActionSetLimits, &schemas.SetLimitsRequest{DeviceID: "gpu-1", LimitBytes: ptr[int64](6 * mib)})
	p = <-h.send(&actors.Command{Action: schemas.ActionTransfer, Data: &schemas.TransferRequest{AllocationID: big, TargetDeviceID: "gpu-1"}, RequestID: "r", DryRun: true})
	if p.err != nil || p.data.(*schemas.DryRunReply).Plan.Outcome != schemas.PlanRefused {
		t.Errorf("the dry run says %+v", p)
	}
	h.fails(schemas.CodeOutOfMemory, schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: big, TargetDeviceID: "gpu-1"})
	if h.used("gpu-1") != 4*mib || !h.there(big) {
		t.Error("a refused transfer left something behind, or took something away")
	}
}
