package ledger

import (
	"fmt"
	"slices"
	"time"

	"github.com/isobar-project/isobar/heap"
)

// A request that lacks new memory may yet fit into a segment that its owner has: where the
// bytes are free there, but not in one piece, blocks that nobody maps are moved out of the
// way. Nothing is released for that, and nobody else's memory is touched.

const (
	// regroupBytes is the most that is copied for one request: some milliseconds.
	regroupBytes = 64 << 20
	// regroupPause is how long a request is not looked at again for that.
	regroupPause = time.Second
	// regroupSegments and regroupBlocks bound where is looked: planning takes time in proportion.
	regroupSegments = 64
	regroupBlocks   = 4096
)

// regroup has blocks of a request's owner moved so that it fits between them, where it lacks
// memory otherwise. It reports whether that is under way: then the request waits for it.
func (d *Device) regroup(r *Request, p *heap.Placement, need, grow int64, now Now) bool {
	if d.vacant != nil {
		return d.vacant.room == r.ticket && r.ticket != 0
	}
	if now.Boot < r.regrouped || !d.crowded(r, p, need, grow) {
		return false
	}
	r.regrouped = now.Boot.Add(regroupPause)
	id, plan, ok := d.planRegroup(r)
	if !ok {
		return false
	}
	d.vacant = &defragment{room: r.ticket, skip: map[heap.SegmentID]bool{}, doomed: map[heap.SegmentID]bool{},
		DefragmentRequest: DefragmentRequest{RequestID: r.RequestID}, did: Defragmented{Before: d.heap.Stats()}}
	d.carry(&vacancy{Vacancy: heap.Vacancy{Segment: id, Bytes: d.segments[id].bytes, Moved: plan.Moved, Moves: plan.Moves}})
	r.reason = fmt.Sprintf("%d bytes of its owner's blocks are moved to make room between them", plan.Moved)
	return true
}

// crowded reports whether a request that would share its segment with others lacks the memory
// for a new one, on the device or in its tenant's quota, and none that would do is on its way.
func (d *Device) crowded(r *Request, p *heap.Placement, need, grow int64) bool {
	if r.Class == ClassWeights || r.Class == ClassReservation || p.Kind != heap.Create || p.Whole || d.draining || d.lost {
		return false
	}
	if q := d.quotas[r.Owner.Tenant]; q != nil && q.Hard > 0 && d.bound(q.Tenant)-d.leaving(q.Tenant)+grow > q.Hard {
		return true
	}
	return d.shortage(r, need, grow).lasts > d.books.revoking
}

// planRegroup finds the segment of a request's owner where the fewest bytes have to be moved
// for it.
func (d *Device) planRegroup(r *Request) (best heap.SegmentID, room heap.Room, found bool) {
	var ids []heap.SegmentID
	for id, s := range d.segments {
		if s.weights || s.promised > 0 {
			continue // where a request is being prepared, nothing says yet whose it will be
		}
		if i, ok := d.heap.Segment(id); ok && i.Owner == r.domain && i.Bytes-i.UsedBytes >= r.Size && i.Blocks <= regroupBlocks {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return 0, heap.Room{}, false
	}
	slices.Sort(ids)
	limits := d.vacancies(regroupBytes, nil, nil)
	limits.Apart = true // a copy that is interrupted leaves every grant whole
	for _, id := range ids[:min(len(ids), regroupSegments)] {
		if plan, ok := d.heap.PlanRoom(id, r.Size, r.Align, limits); ok && len(plan.Moves) > 0 && (!found || plan.Moved < room.Moved) {
			best, room, found = id, plan, true
		}
	}
	return best, room, found
}
