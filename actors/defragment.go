package actors

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// What an incremental defragmentation may take where the request does not say: little enough
// to be asked for while others work.
const (
	incrementalBytes    = 256 << 20
	incrementalDuration = time.Second
)

// tidying is a defragment command in the core's hands. It belongs to the device's goroutine.
type tidying struct {
	c        *call
	id       string
	begun    clock.Instant
	timer    clock.Timer
	stopped  *schemas.Error // cancelled by its client
	over     bool
	expected ledger.Defragmented
}

func (d *deviceActor) defragment(c *call) {
	d.take(seam.GrantLane, c, func() {
		in := c.Data.(*schemas.DefragmentRequest)
		bytes, most := int64(math.MaxInt64), time.Duration(0)
		if in.Strategy != schemas.DefragmentFull {
			bytes, most = incrementalBytes, incrementalDuration
		}
		if in.MaxBytesToMove != nil {
			bytes = *in.MaxBytesToMove
		}
		if in.MaxDurationMs != nil {
			most = time.Duration(*in.MaxDurationMs) * time.Millisecond
		}
		t := &tidying{c: c, id: uuid.NewString(), begun: d.house.cfg.Clock.Now()}
		r := ledger.DefragmentRequest{Ref: t, MaxBytes: bytes, RequestID: c.RequestID}
		t.expected = d.core.PlanDefragment(r)
		if c.DryRun {
			if d.core.Defragmenting() {
				c.done(planned("refused", d.id+" is being defragmented"), nil)
				return
			}
			c.done(planned("granted", foreseenTidy(t.expected)), nil)
			return
		}
		if err := d.core.Defragment(r, d.house.now()); err != nil {
			d.flush()
			c.fail(err)
			return
		}
		c.follow(schemas.StatusRunning, 0, "blocks are being moved", func(err *schemas.Error, seen func()) {
			d.tell(seam.SystemLane, func() {
				if !t.over {
					t.stopped = err
					d.core.StopDefragment()
					d.flush()
				}
				seen()
			})
		})
		d.tidied(t, schemas.EventStarted, ledger.Defragmented{})
		if most > 0 {
			t.timer = d.house.cfg.Clock.AfterFunc(most, func() {
				d.tell(seam.SystemLane, func() {
					if !t.over {
						d.core.StopDefragment()
						d.flush()
					}
				})
			})
		}
		d.flush()
	})
}

// outcome implements asker.
func (t *tidying) outcome(d *deviceActor, o *ledger.Outcome) {
	did := o.Defragmented
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
	d.tidied(t, schemas.EventCompleted, did)
	r := &schemas.DefragmentReply{Finished: schemas.Done(), Before: fragmented(did.Before), After: fragmented(did.After), MovedBytes: did.Moved,
		ReleasedBytes: did.Released, SegmentsReleased: did.Segments, DurationMs: millis(d.house.cfg.Clock.Now().Sub(t.begun))}
	if did.Moved > 0 {
		e := float64(did.Released) / float64(did.Moved)
		r.Efficiency = &e
	}
	// What is recorded is recorded after the flush that is going on.
	d.tell(seam.SystemLane, func() { d.changed(t.c, t.stopped, r) })
}

func fragmented(s heap.Stats) schemas.FragmentationState {
	return schemas.FragmentationState{FragmentationPercentage: s.FragmentationPercentage, LargestFreeBytes: s.LargestFree, Segments: s.Segments}
}

// tidied publishes an event of a defragmentation.
func (d *deviceActor) tidied(t *tidying, kind schemas.EventKind, did ledger.Defragmented) {
	e := &schemas.OptimizationEvent{OptimizationID: t.id, DeviceID: d.id, Cause: schemas.CauseOfCommand, Reason: "defragment, asked for by a client", RequestID: t.c.RequestID,
		TargetBytes: t.expected.Released, Evicted: []schemas.Eviction{}}
	if kind == schemas.EventCompleted {
		e.FreedBytes, e.ShortfallBytes = did.Released, max(0, t.expected.Released-did.Released)
		e.DurationMs = millis(d.house.cfg.Clock.Now().Sub(t.begun))
		for _, s := range did.Steps {
			e.Steps = append(e.Steps, schemas.OptimizationStep{Kind: "move", Subject: fmt.Sprintf("segment %d", s.Segment),
				Reason: fmt.Sprintf("%d blocks of %d bytes lie elsewhere now", s.Blocks, s.Moved), FreedBytes: s.Released})
		}
	}
	d.house.publish(schemas.Event{Event: kind, Subject: schemas.OptimizationSubject(d.house.cfg.Node, d.id), Data: e})
}

// vacate copies the blocks of a segment elsewhere, after a proof that nobody else can touch it.
func (d *deviceActor) vacate(job ledger.Job) {
	var to, from []piece
	for _, m := range job.Moves {
		from = append(from, piece{d.live[m.From.Segment], m.From.Offset, m.From.Bytes})
		to = append(to, piece{d.live[m.To.Segment], m.To.Offset, m.To.Bytes})
	}
	t := newTask(d, copyChunks(d.driver, to, from))
	t.end = func(_ int64, _ time.Duration, err error) { d.vacated(job, err) }
	d.vacating = t
	if !job.Prove {
		d.house.transfer.begin(t)
		return
	}
	segs := d.segments(job.Ranges)
	d.work.control.put(func() {
		released, err := d.driver.Released(segs[0])
		if err == nil && !released {
			err = errPinned
		}
		if err != nil {
			t.cancel(nil)
			d.vacated(job, err)
			return
		}
		d.house.transfer.begin(t)
	})
}

// errPinned: somebody else still has a segment open or mapped.
var errPinned = errors.New("somebody has it open")

// vacated tells the core of it.
func (d *deviceActor) vacated(job ledger.Job, err error) {
	if err != nil && !errors.Is(err, errPinned) && !errors.Is(err, errAbandoned) && !errors.Is(err, device.ErrNoProof) && !errors.Is(err, context.Canceled) {
		d.house.log.Error("a segment could not be emptied", "device", d.id, "segment", job.Ranges[0].Segment, "error", err)
	}
	d.tell(seam.SystemLane, func() {
		d.vacating = nil
		d.core.Vacated(err == nil, d.house.now())
		d.flush()
	})
}

// errAbandoned: one of the blocks is to stay where it is.
var errAbandoned = errors.New("one of its grants is in use")

// abandon ends the copies of the segment that is being emptied.
func (d *deviceActor) abandon() {
	if d.vacating != nil {
		d.vacating.cancel(errAbandoned)
	}
}
