package ledger

import (
	"errors"
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
	quotas   []*quota
	ballast  store.RecID
}

// ImageError is a region whose records contradict each other, or say what no core writes.
// The store's own errors (store.CorruptError and others) are of its bytes.
type ImageError struct {
	Record store.RecID // 0: no single one
	Reason string
}

func (e *ImageError) Error() string {
	if e.Record == 0 {
		return "ledger: impossible image: " + e.Reason
	}
	return fmt.Sprintf("ledger: impossible image: record %d: %s", e.Record, e.Reason)
}

// RecordedSegment is a segment that the ledger knows; its memory is in the vault under its id.
type RecordedSegment struct {
	ID      heap.SegmentID
	Bytes   int64
	Weights bool
	Sealed  bool
}

// Observe has f called after every store to the region; see store.Region.SetObserver.
func (im *Image) Observe(f func()) { im.region.SetObserver(func(int) { f() }) }

// ReadImage opens a region that a predecessor wrote. Nothing is changed in it but the
// remains of a transaction that was never committed. The errors are *ImageError and
// those of package store.
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
			if im.limits.rec != 0 {
				err = errors.New("limits are recorded twice")
				break
			}
			im.limits, err = decodeLimits(payload)
			im.limits.rec = rec
		case kindQuota:
			var q *quota
			if q, err = decodeQuota(payload); err == nil {
				q.rec = rec
				im.quotas = append(im.quotas, q)
			}
		case kindBallast:
			if im.ballast != 0 {
				err = errors.New("ballast is recorded twice")
			}
			im.ballast = rec
		default:
			err = fmt.Errorf("unknown kind %d", kind)
		}
		if err != nil {
			return &ImageError{rec, err.Error()}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	im.region = region
	if err := im.check(); err != nil {
		return nil, err
	}
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

// Grants lists the recorded grants, in no order. They belong to the image.
func (im *Image) Grants() []*Grant { return im.grants }

// Answers lists the recorded outcomes.
func (im *Image) Answers() []AnswerRecord { return im.answers }

// Report says what a take-over kept and what it could not keep.
type Report struct {
	Grants, Segments int
	Bytes            int64
	// Lost grants had segments that are no longer in the vault.
	Lost []uuid.UUID
	// Undone grants were weights whose load had not finished, or targets of a transfer.
	Undone []uuid.UUID
	// Origins are moved grants the release of whose origin may not have begun: the shell has it
	// released and calls Settled.
	Origins []Origin
	// Answers are the outcomes that retried commands will get.
	Answers []AnswerRecord
	// Models are the sealed weights grants. A name can have several: other tenants'
	// models, older versions that somebody still reads.
	Models []uuid.UUID
	// Sessions map something or own something.
	Sessions map[SessionID]bool
}

// Restore rebuilds a device from its region. missing are recorded segments whose memory
// could not be imported. The effects begin the destruction of what nobody has a right
// to, and tell the pool who maps its models. An image that contradicts the settings or
// itself is an *ImageError.
func Restore(cfg DeviceConfig, im *Image, missing map[heap.SegmentID]bool, now Now) (*Device, Report, error) {
	d := newDevice(cfg, im.region, im)
	if im.limits.rec != 0 {
		d.limits = im.limits
	}
	for _, q := range im.quotas {
		d.quotas[q.Tenant] = q
	}
	d.books.limit = d.limit()
	rep := Report{Sessions: map[SessionID]bool{}, Answers: im.answers}
	tx := d.region.Begin()
	grants := make([]*Grant, 0, len(im.grants))
	for _, g := range im.grants {
		if salvage(g, missing) {
			if g.Status == StatusActive {
				rep.Lost = append(rep.Lost, g.ID)
				g.Status, g.Claims, g.lost = StatusRevoking, nil, true
			}
			if len(g.Blocks) == 0 {
				tx.Delete(g.rec)
				continue
			}
			tx.Update(g.rec, d.encodeGrant(g))
		}
		grants = append(grants, g)
	}
	if err := d.adoptSegments(im, owners(grants), missing, tx, &rep); err != nil {
		tx.Discard()
		return nil, rep, err
	}
	sort.Slice(grants, func(i, j int) bool {
		a, b := grants[i], grants[j]
		return a.Created.Before(b.Created) || a.Created.Equal(b.Created) && a.rec < b.rec
	})
	for _, g := range grants {
		if err := d.adopt(g, now); err != nil {
			tx.Discard()
			return nil, rep, err
		}
		rep.add(g)
	}
	if err := tx.Commit(); err != nil {
		return nil, rep, fmt.Errorf("ledger: %w", err)
	}
	for i, a := range im.answers {
		d.answers[a.Key] = &answerAt{at: a.At, rec: im.recs[i]}
		if g := d.grants[a.Grant]; g != nil {
			g.answer = a.Key
		}
	}
	d.sweep(&rep, now)
	d.changed("", nil)
	d.tend(now)
	return d, rep, nil
}

func (rep *Report) add(g *Grant) {
	rep.Grants++
	if g.Bound {
		rep.Sessions[g.Owner.Session] = true
	}
	for _, m := range g.Mappers {
		rep.Sessions[m.Session] = true
	}
	if g.Class == ClassWeights && g.Sealed && g.Status == StatusActive {
		rep.Models = append(rep.Models, g.ID)
	}
}

// salvage takes the blocks off a grant whose memory is missing, and reports whether any
// was. What is left of it is released as any other grant: somebody may hold it.
func salvage(g *Grant, missing map[heap.SegmentID]bool) bool {
	kept := make([]heap.Block, 0, len(g.Blocks))
	g.Granted = cond(g.Class == ClassReservation, g.Granted, 0)
	for _, b := range g.Blocks {
		if !missing[b.Segment] {
			kept = append(kept, b)
			g.Granted += b.Bytes
		}
	}
	some := len(kept) < len(g.Blocks)
	g.Blocks = kept
	return some
}

func cond(c bool, a, b int64) int64 {
	if c {
		return a
	}
	return b
}

// owners says whose each segment with a grant is.
func owners(grants []*Grant) map[heap.SegmentID]string {
	m := map[heap.SegmentID]string{}
	for _, g := range grants {
		for _, b := range g.Blocks {
			m[b.Segment] = domainKey(g.Owner)
		}
	}
	return m
}

// adoptSegments puts the recorded segments that are there into the heap.
func (d *Device) adoptSegments(im *Image, owners map[heap.SegmentID]string, missing map[heap.SegmentID]bool, tx *store.Tx, rep *Report) error {
	units := d.heap.Config().UnitBytes
	sort.Slice(im.segments, func(i, j int) bool { return im.segments[i].id < im.segments[j].id })
	for _, s := range im.segments {
		d.nextSeg = max(d.nextSeg, s.id+1)
		if missing[s.id] {
			tx.Delete(s.rec)
			continue
		}
		if s.bytes%d.granule != 0 || s.bytes/units > 1<<31 {
			return &ImageError{s.rec, fmt.Sprintf("a segment of %d bytes on a device of granularity %d", s.bytes, d.granule)}
		}
		d.segments[s.id] = s
		owner := owners[s.id]
		if owner == "" && s.last != "" && !s.weights {
			// An idle segment: it comes into the pool by its last owner's hand, so that the
			// heap remembers whose bytes are in it.
			d.heap.Add(s.id, s.bytes, s.last, true)
			d.heap.Pool(s.id)
		} else {
			s.raw = owner != "" && s.last == anybody
			d.heap.Add(s.id, s.bytes, owner, !s.raw)
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
	return nil
}

// adopt puts a recorded grant back into the heap and the books.
func (d *Device) adopt(g *Grant, now Now) error {
	g.Type = d.cfg.Type
	d.domain(g.Owner) // known from now on
	for _, b := range g.Blocks {
		if err := d.heap.Restore(b); err != nil {
			return &ImageError{g.rec, err.Error()}
		}
		if g.Class == ClassWeights && b.Bytes != d.segments[b.Segment].bytes {
			return &ImageError{g.rec, "weights that do not fill their segment"}
		}
		d.books.slack -= b.Bytes
	}
	d.seq++
	g.seq = d.seq
	d.grants[g.ID] = g
	d.index(g)
	g.note("restored", now.Wall, "")
	g.Shared = len(g.Blocks) > 0
	if g.Class == ClassReservation {
		d.reserve(g, g.Counted())
	} else {
		d.count(g, g.Granted)
	}
	if g.Class == ClassWeights {
		d.books.models += g.Granted
	}
	if g.Bound {
		d.tie(g.Owner.Session, g)
	}
	for i := range g.Mappers {
		m := &g.Mappers[i]
		m.sent = true
		d.tie(m.Session, g)
		if g.Model != "" {
			d.out.Readers = append(d.out.Readers, Reader{Model: g.Model, Grant: g.ID, Session: m.Session, PID: m.PID, Tenant: m.Tenant})
		}
	}
	if g.leased() {
		d.at(timer{at: g.LeaseEnds, kind: timerLease, grant: g.ID})
	}
	if g.Status != StatusActive {
		g.release = &release{why: WhyRestored, since: now.Boot, deadline: now.Boot.Add(d.cfg.RevokeWait), retry: d.cfg.ProofMin, timed: true}
		if g.lost {
			g.release.why = WhyLost
		}
		d.goes(g)
		d.at(timer{at: g.release.deadline, kind: timerRevoke, grant: g.ID})
	}
	return nil
}

// WhyRestored is the reason of a release that a predecessor began.
const WhyRestored = "its release began before the node restarted"

// sweep goes on with what the predecessor left half done: unfinished loads are undone,
// releases continue, segments without a grant that cannot be pooled are destroyed.
func (d *Device) sweep(rep *Report, now Now) {
	for _, g := range d.all() {
		switch {
		case g.release != nil:
			d.revoke(g)
			d.tryFree(g, now)
			if g.Status == StatusZombie {
				d.out.Jobs = append(d.out.Jobs, Job{Kind: JobHolders, Grant: g.ID, Ranges: d.ranges(g)})
			}
		case g.Class == ClassWeights && !g.Sealed:
			rep.Undone = append(rep.Undone, g.ID)
			d.beginRelease(g, WhyLoadFailed, 0, nil, now)
		case g.Filling:
			rep.Undone = append(rep.Undone, g.ID)
			d.beginRelease(g, WhyTransferFailed, 0, nil, now)
		case g.Origin != (uuid.UUID{}):
			rep.Origins = append(rep.Origins, Origin{Grant: g.ID, From: g.Origin, Tenant: g.Owner.Tenant})
		}
	}
	for _, id := range d.heap.Idle(d.books.pooled) {
		if s := d.segments[id]; s.weights {
			d.doom(s)
		}
	}
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
// all releases the rest as well (--ephemeral). Nothing is granted any more.
func (d *Device) Drain(all bool, now Now) (stay int, bytes int64) {
	d.begin()
	d.draining = true
	d.StopDefragment()
	for _, r := range d.waiters() {
		d.unqueue(r)
		d.refuse(r, draining())
	}
	for _, r := range d.preparing() {
		d.giveUp(r, draining())
	}
	for _, g := range d.all() {
		switch {
		case g.release != nil:
		case !all && !g.Filling && d.stays(g, now):
			stay++
			bytes += g.Granted
		default:
			d.beginRelease(g, WhyDrain, 0, nil, now)
		}
	}
	d.cfg.Warm, d.cfg.PoolBytes = nil, 0
	d.tend(now)
	return stay, bytes
}

// stays reports whether a grant outlives a clean stop.
func (d *Device) stays(g *Grant, now Now) bool {
	return g.Persistent || g.Live() || g.Follows.PID != 0 || g.Class == ClassWeights || g.LeaseEnds > now.Boot || g.Bound && !d.ended[g.Owner.Session]
}

// Idle reports whether nothing is under way: no request being prepared, no release that
// is still to be proved or given up as a zombie, no segment being made, cleared or
// destroyed.
func (d *Device) Idle() bool {
	b := &d.books
	return len(d.pending) == 0 && d.vacant == nil && b.revoking == 0 && b.doomed == 0 && b.warming == 0 && b.aside == 0
}
