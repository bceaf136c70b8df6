package actors

import (
	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/ledger"
)

// owing is a destroyed segment whose bytes are not back.
type owing struct {
	r    ledger.Range
	owed *device.OwedError
}

func owings(list []owing) []ledger.Owing {
	out := make([]ledger.Owing, len(list))
	for i, o := range list {
		out[i] = ledger.Owing{Range: o.r, Why: o.owed.Why}
		for _, h := range o.owed.Holders {
			out[i].PIDs = append(out[i].PIDs, int32(h.PID))
		}
	}
	return out
}

// awaitAll has what is not back told when it is.
func (d *deviceActor) awaitAll(grant uuid.UUID, list []owing) {
	for _, o := range list {
		d.house.transfer.crew.join(func() { d.await(grant, o) })
	}
}

// await tells the core of a segment whose bytes come back late; until then they count, though
// nobody can use them any more.
func (d *deviceActor) await(grant uuid.UUID, o owing) {
	select {
	case <-o.owed.Back:
	case <-d.house.transfer.ctx.Done():
		return // the next process finds them gone, or not
	}
	d.house.log.Info("released memory is back", "device", d.id, "segment", o.r.Segment, "bytes", o.r.Bytes)
	d.tell(seam.SystemLane, func() {
		d.core.Destroyed(grant, []ledger.Range{o.r}, d.house.now())
		d.flush()
	})
}
