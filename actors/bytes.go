package actors

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// The commands clear and copy: bytes of grants of one device, changed by its driver on its
// copy workers. A grant is held while they are at it.

// extent is how many bytes of a grant can be named by an offset.
func extent(g *ledger.Grant) int64 {
	if g.Class == ledger.ClassWeights {
		return g.Granted // whole segments, as they are mapped
	}
	return g.Size
}

// within checks a range of a grant; size nil means all that follows the offset. On error ok
// is false.
func within(g *ledger.Grant, offset int64, size *int64) (n int64, ok bool) {
	all := extent(g)
	if offset >= all {
		return 0, false
	}
	if size == nil {
		return all - offset, true
	}
	return *size, *size <= all-offset
}

// deny refuses a command whose subject is not in the state for it; a dry run foresees that.
func (c *call) deny(err *schemas.Error) {
	switch err.Code {
	case schemas.CodeStaleHandle, schemas.CodeAllocationInUse, schemas.CodeBusy, schemas.CodeDraining:
		if c.DryRun {
			c.done(planned("refused", err.Message), nil)
			return
		}
	}
	c.fail(err)
}

// clearGrant fills a grant, or a part of it, with one byte.
func (d *deviceActor) clearGrant(c *call, id uuid.UUID) {
	d.take(seam.GrantLane, c, func() {
		in := c.Data.(*schemas.ClearRequest)
		g, err := d.core.Holdable(id, c.Tenant, ledger.HoldWrite)
		if err != nil {
			c.deny(err)
			return
		}
		n, ok := within(g, in.Offset, in.SizeBytes)
		if !ok {
			field := "offset"
			if in.Offset < g.Size {
				field = "size_bytes"
			}
			c.fail(schemas.Errorf(schemas.CodeInvalidRequest, "the range ends beyond the %d bytes of allocation %s", g.Size, id).With("field", field))
			return
		}
		if c.DryRun {
			c.done(planned("granted", fmt.Sprintf("%d bytes would be set to %d", n, in.FillValue)), nil)
			return
		}
		if g, err = d.core.Hold(id, c.Tenant, ledger.HoldWrite); err != nil {
			c.fail(err)
			return
		}
		t := newTask(d, clearChunks(d.driver, pieces(g.Blocks, d.handles(g.Blocks), in.Offset, n), byte(in.FillValue)), id)
		t.lost = schemas.CodeStaleHandle
		t.end = func(done int64, took time.Duration, err error) {
			d.tell(seam.SystemLane, func() {
				d.core.Unhold(id, ledger.HoldWrite, d.house.now())
				d.flush()
				d.changed(c, outcomeOf(err, schemas.CodeInternalError), &schemas.ClearReply{Finished: schemas.Done(), ClearedBytes: done,
					ThroughputBytesPerSecond: rate(done, took), DurationMs: millis(took)})
			})
		}
		d.run(c, t, n, "memory is being cleared")
	})
}

// outcomeOf is copyError for an end that may have been good.
func outcomeOf(err error, other schemas.Code) *schemas.Error {
	if err == nil {
		return nil
	}
	return copyError(err, other)
}

// run begins a command's task and makes an operation of the command.
func (d *deviceActor) run(c *call, t *task, total int64, reason string) {
	c.follow(schemas.StatusRunning, 0, reason, t.canceller)
	operation := c.operation
	t.progress = func(done int64) { d.house.sessions.copied(operation, done, total, reason) }
	d.house.transfer.begin(t)
	d.flush()
}

// changed answers a command that has changed bytes, or failed to, and records its outcome.
func (d *deviceActor) changed(c *call, err *schemas.Error, reply any) {
	if err != nil {
		c.fail(err)
		return
	}
	if c.key != "" {
		rec := ledger.AnswerRecord{Key: c.key, Digest: c.Digest, Action: string(c.Action), Body: codec.Append(nil, codec.JSON, reply)}
		if err := d.core.Remember(rec, d.house.now()); err != nil {
			d.house.log.Warn("an outcome is not remembered", "action", string(c.Action), "request_id", c.RequestID, "error", err)
		} else {
			c.home, c.record = "device/"+d.id, rec
		}
		d.flush()
	}
	c.done(reply, nil)
}

// copyBytes answers copy: both grants are of this device, or the command is refused.
func (h *House) copyBytes(c *call, in *schemas.CopyRequest) {
	from, source, err := h.deviceOfID(in.SourceAllocationID)
	if err != nil {
		c.fail(err)
		return
	}
	to, target, err := h.deviceOfID(in.TargetAllocationID)
	if err != nil {
		c.fail(err)
		return
	}
	from.take(seam.GrantLane, c, func() {
		if _, err := from.core.FindGrant(source, c.Tenant); err != nil {
			c.fail(err)
			return
		}
		if from == to {
			from.copyBetween(c, in, source, target)
			return
		}
		to.tell(seam.SystemLane, func() {
			if _, err := to.core.FindGrant(target, c.Tenant); err != nil {
				c.fail(err)
				return
			}
			c.fail(schemas.Errorf(schemas.CodeInvalidTransferParams, "the allocations are on %s and %s: use transfer", from.id, to.id).With("field", "target_allocation_id"))
		})
	})
}

// copyBetween copies between two grants of this device, or inside one.
func (d *deviceActor) copyBetween(c *call, in *schemas.CopyRequest, source, target uuid.UUID) {
	if _, err := d.core.FindGrant(target, c.Tenant); err != nil {
		c.fail(err)
		return
	}
	s, err := d.core.Holdable(source, c.Tenant, ledger.HoldRead)
	if err != nil {
		c.deny(err)
		return
	}
	t, err := d.core.Holdable(target, c.Tenant, ledger.HoldWrite)
	if err != nil {
		c.deny(err)
		return
	}
	n, err := copyRange(in, s, t)
	if err != nil {
		c.fail(err)
		return
	}
	if c.DryRun {
		c.done(planned("granted", fmt.Sprintf("%d bytes would be copied", n)), nil)
		return
	}
	// Neither can fail: nothing has happened since it was foreseen.
	d.core.Hold(source, c.Tenant, ledger.HoldRead)
	d.core.Hold(target, c.Tenant, ledger.HoldWrite)
	to, from := pieces(t.Blocks, d.handles(t.Blocks), in.TargetOffset, n), pieces(s.Blocks, d.handles(s.Blocks), in.SourceOffset, n)
	job := newTask(d, copyChunks(d.driver, to, from), source, target)
	job.end = func(done int64, took time.Duration, err error) {
		d.tell(seam.SystemLane, func() {
			d.core.Unhold(source, ledger.HoldRead, d.house.now())
			d.flush()
			d.core.Unhold(target, ledger.HoldWrite, d.house.now())
			d.flush()
			d.changed(c, outcomeOf(err, schemas.CodeTransferFailed), &schemas.CopyReply{Finished: schemas.Done(), CopiedBytes: done,
				DurationMs: millis(took), ThroughputBytesPerSecond: rate(done, took)})
		})
	}
	d.run(c, job, n, "bytes are being copied")
}

// copyRange checks the ranges of a copy and returns their size.
func copyRange(in *schemas.CopyRequest, source, target *ledger.Grant) (int64, *schemas.Error) {
	bad := func(field, format string, args ...any) (int64, *schemas.Error) {
		return 0, schemas.Errorf(schemas.CodeInvalidTransferParams, format, args...).With("field", field)
	}
	n, ok := within(source, in.SourceOffset, in.SizeBytes)
	if !ok {
		return bad("source_offset", "the range ends beyond the %d bytes of the source", extent(source))
	}
	if _, ok := within(target, in.TargetOffset, &n); !ok {
		return bad("target_offset", "%d bytes from offset %d on end beyond the %d bytes of the target", n, in.TargetOffset, extent(target))
	}
	if source.ID == target.ID && in.SourceOffset < in.TargetOffset+n && in.TargetOffset < in.SourceOffset+n {
		return bad("target_offset", "the ranges overlap")
	}
	return n, nil
}

// clear answers clear: of one grant, or of all that a tenant has on a device.
func (h *House) clear(c *call, in *schemas.ClearRequest) {
	if in.DeviceID != "" {
		if d, err := h.device(in.DeviceID); err != nil {
			c.fail(err)
		} else {
			d.clearDevice(c)
		}
		return
	}
	if d, id, err := h.deviceOfID(in.AllocationID); err != nil {
		c.fail(err)
	} else {
		d.clearGrant(c, id)
	}
}
