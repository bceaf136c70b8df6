package actors

import (
	"fmt"
	"math"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// tidyCall is a defragmentation in the core's hands that is a stage of an errand. It
// belongs to the device's goroutine.
type tidyCall struct {
	done func(ledger.Defragmented)
	over bool
}

// outcome implements asker.
func (t *tidyCall) outcome(_ *deviceActor, o *ledger.Outcome) {
	t.over = true
	t.done(o.Defragmented)
}

// tidyRequest is what an errand asks of the core: everything that can be gained.
func (d *deviceActor) tidyRequest(e *errand) ledger.DefragmentRequest {
	return ledger.DefragmentRequest{MaxBytes: math.MaxInt64, Keep: e.choice.grants, RequestID: e.requestID}
}

// foreseenTidy says what a defragmentation would do.
func foreseenTidy(t ledger.Defragmented) string {
	return fmt.Sprintf("%d bytes would be moved, and %d bytes of %d segments released", t.Moved, t.Released, t.Segments)
}

// tidyUp is the stage that empties segments by moving what lies in them. It comes last:
// what goes need not be moved.
func (o *optimizerActor) tidyUp(p *plan) {
	e, d := p.errand, o.device
	e.tidied = true
	if e.toTidy.Segments > 0 {
		o.tellStarted(e)
	}
	t := &tidyCall{done: func(did ledger.Defragmented) { o.tell(seam.SystemLane, func() { o.tidy(p, did, nil) }) }}
	e.stop = func() {
		d.tell(seam.SystemLane, func() {
			if !t.over {
				d.core.StopDefragment()
				d.flush()
			}
		})
	}
	r := d.tidyRequest(e)
	r.Ref = t
	d.tell(seam.SystemLane, func() {
		err := d.core.Defragment(r, d.house.now())
		t.over = err != nil
		d.flush()
		if err != nil {
			o.tell(seam.SystemLane, func() { o.tidy(p, ledger.Defragmented{}, err) })
		}
	})
}

// tidy takes what came of that stage. An errand that was for nothing else fails where it
// could not be begun.
func (o *optimizerActor) tidy(p *plan, did ledger.Defragmented, fail *schemas.Error) {
	e := p.errand
	e.stop = nil
	step := schemas.OptimizationStep{Kind: "defragment", Subject: o.device.id, FreedBytes: did.Released, MovedBytes: did.Moved,
		DurationMs: millis(o.house.cfg.Clock.Now().Sub(p.begun))}
	switch {
	case e.over: // it was answered, and its steps are the client's
	case fail != nil && !e.models:
		e.cancelled = fail
	case fail != nil:
		step.Reason = "not done: " + fail.Message
		e.steps = append(e.steps, step)
	case did.Moved > 0 || did.Segments > 0:
		o.tellStarted(e)
		e.freed, e.moved = e.freed+did.Released, e.moved+did.Moved
		step.Reason = fmt.Sprintf("%d bytes lie elsewhere now, and %d segments are given back", did.Moved, did.Segments)
		e.steps = append(e.steps, step)
	}
	o.ended(p)
}
