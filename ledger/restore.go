package ledger

import (
	"fmt"
	"sort"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger/store"
)

// Image is what a predecessor left in a device's region.
type Image struct {
	region   *store.Region
	segments []*segment
	grants   []*Grant
	answers  []AnswerRecord
	recs     []store.RecID // of answers
	limits   limits
}

// RecordedSegment is a segment that the ledger knows; its memory is in the vault under its id.
type RecordedSegment struct {
	ID      heap.SegmentID
	Bytes   int64
	Weights bool
	Sealed  bool
}

// ReadImage opens a region that a predecessor wrote. Nothing is changed in it but the
// remains of a transaction that was never committed.
func ReadImage(mem []byte) (*Image, error) {
	im := &Image{}
	region, err := store.Open(mem, func(rec store.RecID, kind store.Kind, payload []byte) error {
		var err error
		switch kind {
		case kindSegment:
			var s *segment
			if s, err = decodeSegment(payload); err == nil {
				s.rec = rec
				im.segments = append(im.segments, s)
			}
		case kindGrant:
			var g *Grant
			if g, err = decodeGrant(payload); err == nil {
				g.rec = rec
				im.grants = append(im.grants, g)
			}
		case kindAnswer:
			var a AnswerRecord
			if a, err = DecodeAnswer(payload); err == nil {
				im.answers = append(im.answers, a)
				im.recs = append(im.recs, rec)
			}
		case kindLimits:
			im.limits, err = decodeLimits(payload)
			im.limits.rec = rec
		default:
			err = fmt.Errorf("unknown kind %d", kind)
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", rec, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	im.region = region
	return im, nil
}

// Segments lists the recorded segments, for the shell to import from the vault.
func (im *Image) Segments() []RecordedSegment {
	sealed := map[heap.SegmentID]bool{}
	for _, g := range im.grants {
		for _, b := range g.Blocks {
			sealed[b.Segment] = g.Sealed
		}
	}
	out := make([]RecordedSegment, len(im.segments))
	for i, s := range im.segments {
		out[i] = RecordedSegment{ID: s.id, Bytes: s.bytes, Weights: s.weights, Sealed: sealed[s.id]}
	}
	return out
}

// Report says what a take-over kept and what it could not keep.
type Report struct {
	Grants, Segments int
	Bytes            int64
	// Lost grants had segments that are no longer in the vault.
	Lost []uuid.UUID
	// Undone grants were weights whose load had not finished.
	Undone []uuid.UUID
	// Answers are the outcomes that retried commands will get.
	Answers []AnswerRecord
	// Models are the sealed weights grants, by the catalog's key.
	Models map[string]uuid.UUID
	// Sessions map something or own something.
	Sessions map[SessionID]bool
}

// Restore rebuilds a device from its region. missing are recorded segments whose memory
// could not be imported. The effects begin the destruction of what nobody has a right to.
func Restore(cfg DeviceConfig, im *Image, missing map[heap.SegmentID]bool, now Now) (*Device, Report, error) {
	d := NewDevice(cfg, im.region)
	if im.limits.rec != 0 {
		d.limits = im.limits
	}
	d.books.limit = d.limit()
	rep := Report{Models: map[string]uuid.UUID{}, Sessions: map[SessionID]bool{}, Answers: im.answers}
	owners, err := segmentOwners(im)
	if err != nil {
		return nil, rep, err
	}
	tx := d.region.Begin()
	sort.Slice(im.segments, func(i, j int) bool { return im.segments[i].id < im.segments[j].id })
	for _, s := range im.segments {
		d.nextSeg = max(d.nextSeg, s.id+1)
		if missing[s.id] {
			tx.Delete(s.rec)
			continue
		}
		d.segments[s.id] = s
		owner := owners[s.id]
		if owner == "" && s.last != "" && !s.weights {
			// An idle segment: it comes into the pool by its last owner's hand, so that the
			// heap remembers whose bytes are in it.
			d.heap.Add(s.id, s.bytes, s.last, true)
			d.heap.Pool(s.id)
		} else {
			d.heap.Add(s.id, s.bytes, owner, owner == "")
		}
		if owner == "" {
			d.books.pooled += s.bytes
		} else {
			d.books.slack += s.bytes
			// Somebody may hold a description that we know nothing of: prove before use.
			d.shared[s.id] = true
		}
		rep.Segments++
		rep.Bytes += s.bytes
	}
	for _, g := range im.grants {
		if lost(g, missing) {
			tx.Delete(g.rec)
			rep.Lost = append(rep.Lost, g.ID)
			continue
		}
		if err := d.adopt(g, now); err != nil {
			return nil, rep, err
		}
		rep.Grants++
		if g.Owner.Session != "" && g.Bound {
			rep.Sessions[g.Owner.Session] = true
		}
		for _, m := range g.Mappers {
			rep.Sessions[m.Session] = true
		}
		if g.Class == ClassWeights && g.Sealed && g.Status == StatusActive {
			rep.Models[g.Model] = g.ID
		}
	}
	must(tx.Commit())
	for i, a := range im.answers {
		d.answers[a.Key] = &answerAt{at: a.At, rec: im.recs[i]}
	}
	d.sweep(&rep, now)
	d.changed("", "")
	d.tend(now)
	return d, rep, nil
}

// segmentOwners finds whose each segment is; a segment of two trust domains contradicts
// the first rule of the heap.
func segmentOwners(im *Image) (map[heap.SegmentID]string, error) {
	known := map[heap.SegmentID]bool{}
	for _, s := range im.segments {
		known[s.id] = true
	}
	owners := map[heap.SegmentID]string{}
	for _, g := range im.grants {
		for _, b := range g.Blocks {
			if !known[b.Segment] {
				return nil, fmt.Errorf("ledger: grant %s lies in segment %d, which has no record", g.ID, b.Segment)
			}
			if o, ok := owners[b.Segment]; ok && o != domainKey(g.Owner) {
				return nil, fmt.Errorf("ledger: segment %d belongs to two owners", b.Segment)
			}
			owners[b.Segment] = domainKey(g.Owner)
		}
	}
	return owners, nil
}

func lost(g *Grant, missing map[heap.SegmentID]bool) bool {
	for _, b := range g.Blocks {
		if missing[b.Segment] {
			return true
		}
	}
	return false
}

// adopt puts a recorded grant back into the heap and the books.
func (d *Device) adopt(g *Grant, now Now) error {
	g.Type = d.cfg.Type
	for _, b := range g.Blocks {
		if err := d.heap.Restore(b); err != nil {
			return fmt.Errorf("ledger: grant %s: %w", g.ID, err)
		}
		d.books.slack -= b.Bytes
	}
	d.grants[g.ID] = g
	d.index(g)
	g.note("restored", now.Wall, "")
	if g.Class == ClassReservation {
		d.books.reserved += g.Granted
	} else {
		*d.sum(g.Status) += g.Granted
	}
	if g.Class == ClassWeights {
		d.books.models += g.Granted
	}
	if g.LeaseEnds != 0 {
		d.timers.set(timer{at: g.LeaseEnds, kind: timerLease, grant: g.ID})
	}
	if g.Status == StatusRevoking || g.Status == StatusZombie {
		g.release = &release{why: WhyRestored, since: now.Boot, deadline: now.Boot.Add(d.cfg.RevokeWait), retry: d.cfg.ProofMin}
		d.timers.set(timer{at: g.release.deadline, kind: timerRevoke, grant: g.ID})
	}
	return nil
}

// WhyRestored is the reason of a release that a predecessor began.
const WhyRestored = "its release began before the node restarted"

// sweep goes on with what the predecessor left half done: unfinished loads are undone,
// releases continue, segments without a grant that cannot be pooled are destroyed.
func (d *Device) sweep(rep *Report, now Now) {
	for _, g := range d.grants {
		switch {
		case g.release != nil:
			d.tryFree(g, now)
		case g.Class == ClassWeights && !g.Sealed:
			rep.Undone = append(rep.Undone, g.ID)
			d.beginRelease(g, WhyLoadFailed, 0, nil, now)
		}
	}
	for _, s := range d.segments {
		if s.weights && !s.doomed && d.idle(s.id) {
			d.doom(s)
		}
	}
}

// idle reports whether a segment lies in the pool.
func (d *Device) idle(id heap.SegmentID) bool {
	info, ok := d.heap.Segment(id)
	return ok && info.Owner == ""
}

// ReleaseModel ends a sealed weights grant that no model claims after a take-over.
func (d *Device) ReleaseModel(id uuid.UUID, why string, now Now) {
	d.begin()
	if g, ok := d.grants[id]; ok {
		d.beginRelease(g, why, 0, nil, now)
	}
	d.pump(now)
}

// Drain begins the release of everything that has no living owner and is not
// persistent, as a clean stop does, and returns how many grants stay and their bytes.
// all releases the rest as well (--ephemeral).
func (d *Device) Drain(all bool, now Now) (stay int, bytes int64) {
	d.begin()
	for _, r := range append([]*Request(nil), d.queue...) {
		d.unqueue(r)
		d.refuse(r, draining())
	}
	for _, r := range d.pending {
		if !r.gone {
			d.refuse(r, draining())
		}
	}
	for _, g := range d.grants {
		switch {
		case g.release != nil:
		case all:
			d.beginRelease(g, WhyDrain, 0, nil, now)
		case g.Persistent || g.Live() || g.Class == ClassWeights || g.LeaseEnds > now.Boot || g.Bound && !d.ended[g.Owner.Session]:
			stay++
			bytes += g.Granted
		default:
			d.beginRelease(g, WhyDrain, 0, nil, now)
		}
	}
	d.cfg.Warm = nil
	for _, id := range d.heap.Idle(d.books.pooled) {
		d.doom(d.segments[id])
	}
	return stay, bytes
}

// Idle reports whether no release, proof or destruction is under way.
func (d *Device) Idle() bool {
	for _, g := range d.grants {
		if g.Status == StatusRevoking {
			return false
		}
	}
	return len(d.pending) == 0 && d.books.doomed == 0
}
