package soak

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// cell says how a page of a volume begins: with the pattern of a grant's page, or filled with
// the tenant's byte.
type cell struct {
	filled    bool
	seq, page uint64
}

// volume is a grant that nobody maps, and of which every page is known: the node's own
// copies, clears, transfers and defragmentations must leave it so.
type volume struct {
	t          *tenant
	id, device string
	cells      []cell
}

// fillByte is what a tenant has its memory filled with, so that it can be told whose it was.
func fillByte(tag uint64) byte { return 0xA0 | byte(tag&0x0f) }

// head is how a page must begin.
func (v *volume) head(i int) []byte {
	c := v.cells[i]
	if c.filled {
		return bytes.Repeat([]byte{fillByte(v.t.tag)}, 32)
	}
	b := make([]byte, 32)
	for k, w := range [4]uint64{magic, v.t.tag, c.seq, c.page} {
		binary.LittleEndian.PutUint64(b[8*k:], w)
	}
	return b
}

// compare looks at every page of the volume's memory.
func (v *volume) compare(m *data.Mapping) error {
	page := int64(os.Getpagesize())
	off := int64(0)
	for _, s := range m.Segments {
		for i := int64(0); i < int64(len(s.Bytes)); i += page {
			n := int((off + i) / page)
			if n >= len(v.cells) || (off+i)%page != 0 {
				return fmt.Errorf("%s has more than %d pages, or they do not begin at its segments", v.id, len(v.cells))
			}
			if got, want := s.Bytes[i:i+32], v.head(n); !bytes.Equal(got, want) {
				return fmt.Errorf("grant %s on %s, page %d of %d: %x instead of %x", v.id, v.device, n, len(v.cells), got, want)
			}
		}
		off += int64(len(s.Bytes))
	}
	if off != page*int64(len(v.cells)) {
		return fmt.Errorf("%s has %d bytes, not %d pages", v.id, off, len(v.cells))
	}
	return nil
}

// surely gives a command until its outcome is known, under one request_id, and judges it. It
// goes on after the load has ended.
func (s *soak) surely(t *tenant, a schemas.Action, in, out any, what, id string, may ...schemas.Code) error {
	begun := time.Now()
	for {
		ctx, stop := context.WithTimeout(context.Background(), callTime)
		err := t.bus.Do(ctx, a, in, out, nil, client.WithRequestID(id))
		stop()
		if !uncertain(err) || time.Since(begun) > persistTime {
			s.truth.judge(begun, what, err, may...)
			return err
		}
		s.truth.count(what+" asked again", "")
		pause(context.Background(), 50*time.Millisecond)
	}
}

// newVolume takes memory, writes its pattern and lets the mapping go.
func (s *soak) newVolume(r *rand.Rand, t *tenant, device string) *volume {
	pages := 1 + r.Int64N(8*mib/int64(os.Getpagesize()))
	if r.IntN(6) == 0 {
		pages = 1 + r.Int64N(40*mib/int64(os.Getpagesize()))
	}
	patience := int64(2)
	in := &schemas.AllocateRequest{DeviceID: device, SizeBytes: pages * int64(os.Getpagesize()), Purpose: "bytes", TimeoutSeconds: &patience}
	got, err := s.allocate(t, in, uuid.NewString())
	if err != nil {
		return nil
	}
	g, err := s.mapGrant(t, got, in)
	if err != nil {
		s.free(t, got.AllocationID, schemas.CodeAllocationNotFound)
		return nil
	}
	v := &volume{t: t, id: g.id, device: got.DeviceID}
	for i := range pages {
		v.cells = append(v.cells, cell{seq: g.seq, page: uint64(i)})
	}
	begun := time.Now()
	ctx, stop := context.WithTimeout(context.Background(), callTime)
	defer stop()
	s.truth.judge(begun, "unmap", t.data.Unmap(ctx, g.mapping))
	return v
}

// intact maps a volume and compares it.
func (s *soak) intact(v *volume, after string) bool {
	begun := time.Now()
	m, err := s.mapClaim(v.t, v.id, "", data.ReadOnly)
	if err != nil {
		return false
	}
	err = v.compare(m)
	if err != nil {
		s.truth.violate("bytes", "after %s: %v", after, err)
	} else {
		s.truth.count("bytes looked at after "+after, "")
	}
	ctx, stop := context.WithTimeout(context.Background(), callTime)
	defer stop()
	s.truth.judge(begun, "unmap", v.t.data.Unmap(ctx, m))
	return err == nil
}

// end gives a volume back.
func (s *soak) end(v *volume) {
	begun := time.Now()
	s.truth.release(v.id)
	may := []schemas.Code{}
	if s.truth.disturbed(begun) {
		may = append(may, schemas.CodeAllocationNotFound)
	}
	s.free(v.t, v.id, may...)
}

// carry is a client that has the node work on its bytes.
func (s *soak) carry(ctx context.Context, r *rand.Rand, t *tenant) {
	for ctx.Err() == nil {
		v := s.newVolume(r, t, s.devices[r.IntN(len(s.devices))])
		if v == nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		for range 1 + r.IntN(4) {
			after := ""
			switch r.IntN(6) {
			case 0:
				after = s.clearPages(r, v)
			case 1:
				after = s.copyPages(r, v)
			case 2:
				// Others may defragment its device meanwhile.
				pause(ctx, time.Duration(r.Int64N(int64(300*time.Millisecond))))
				after = "nothing"
			default:
				after = s.transfer(ctx, r, v)
			}
			if after == "" || !s.intact(v, after) {
				break
			}
		}
		s.end(v)
	}
}

// span is some pages of n.
func span(r *rand.Rand, n int) (from, count int) {
	from = r.IntN(n)
	return from, 1 + r.IntN(n-from)
}

// clearPages has some pages filled.
func (s *soak) clearPages(r *rand.Rand, v *volume) string {
	page := int64(os.Getpagesize())
	from, count := span(r, len(v.cells))
	bytes := int64(count) * page
	in := &schemas.ClearRequest{AllocationID: v.id, Offset: int64(from) * page, SizeBytes: &bytes, FillValue: int(fillByte(v.t.tag))}
	var got schemas.ClearReply
	if s.surely(v.t, schemas.ActionClear, in, &got, "clear", uuid.NewString()) != nil {
		return ""
	}
	if got.ClearedBytes != bytes {
		s.truth.violate("clear", "%d bytes were cleared of %d", got.ClearedBytes, bytes)
	}
	for i := range count {
		v.cells[from+i] = cell{filled: true}
	}
	return "clear"
}

// copyPages has some pages copied from another volume of the same device.
func (s *soak) copyPages(r *rand.Rand, v *volume) string {
	from := s.newVolume(r, v.t, v.device)
	if from == nil {
		return "nothing"
	}
	defer s.end(from)
	page := int64(os.Getpagesize())
	at, count := span(r, len(v.cells))
	src := r.IntN(len(from.cells))
	count = min(count, len(from.cells)-src)
	bytes := int64(count) * page
	in := &schemas.CopyRequest{SourceAllocationID: from.id, TargetAllocationID: v.id, SourceOffset: int64(src) * page, TargetOffset: int64(at) * page, SizeBytes: &bytes}
	var got schemas.CopyReply
	if s.surely(v.t, schemas.ActionCopy, in, &got, "copy", uuid.NewString()) != nil {
		return ""
	}
	if got.CopiedBytes != bytes {
		s.truth.violate("copy", "%d bytes were copied of %d", got.CopiedBytes, bytes)
	}
	copy(v.cells[at:at+count], from.cells[src:src+count])
	s.intact(from, "being copied from")
	return "copy"
}

// transfer has a volume copied or moved to another device; some are cancelled. It says after
// what the volume is to be looked at, "" if it is not there any more to look at.
func (s *soak) transfer(ctx context.Context, r *rand.Rand, v *volume) string {
	if len(s.devices) < 2 {
		return "nothing"
	}
	to := s.devices[(slices.Index(s.devices, v.device)+1+r.IntN(len(s.devices)-1))%len(s.devices)]
	in := &schemas.TransferRequest{AllocationID: v.id, TargetDeviceID: to, Move: r.IntN(2) == 0}
	what, id := "transfer", uuid.NewString()
	if in.Move {
		what = "move"
	}
	if r.IntN(3) == 0 && s.cancelTransfer(ctx, r, v, in, what, id) {
		return "a cancelled " + what
	}
	var got schemas.TransferReply
	if s.surely(v.t, schemas.ActionTransfer, in, &got, what, id, schemas.CodeOutOfMemory, schemas.CodeCancelled) != nil {
		return "a failed " + what
	}
	there := &volume{t: v.t, id: got.AllocationID, device: to, cells: slices.Clone(v.cells)}
	if in.Move {
		s.truth.release(v.id)
		s.gone(v.t, v.id, "moved grant")
		*v = *there
		return what
	}
	s.intact(there, what)
	if r.IntN(2) == 0 {
		*there, *v = *v, *there
	}
	s.end(there)
	return what
}

// cancelTransfer begins a transfer and cancels it; false if it may have been done all the same.
func (s *soak) cancelTransfer(ctx context.Context, r *rand.Rand, v *volume, in *schemas.TransferRequest, what, id string) bool {
	begun := time.Now()
	call, stop := context.WithTimeout(context.Background(), callTime)
	defer stop()
	err := v.t.bus.Call(call, schemas.ActionTransfer, in, nil, client.WithRequestID(id), client.WithWait(0))
	var pending *client.PendingError
	if !errors.As(err, &pending) {
		return false
	}
	pause(ctx, time.Duration(r.Int64N(int64(10*time.Millisecond))))
	var got schemas.CancelTransferReply
	err = v.t.bus.Call(call, schemas.ActionCancelTransfer, &schemas.CancelTransferRequest{TransferID: pending.OperationID}, &got, client.WithWait(callTime/2))
	if uncertain(err) && s.truth.disturbed(begun) {
		return false
	}
	s.truth.judge(begun, "cancel a "+what, err, schemas.CodeTransferNotFound)
	if err != nil {
		return false
	}
	s.truth.count("cancel a "+what, string(got.Operation.Status))
	return got.Operation.Status == schemas.StatusCancelled
}
