package ledger

import (
	"slices"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/heap"
)

// toProve lists the segments that the release would empty and that others may still
// hold. A block beside others of the same trust domain needs no proof: its bytes stay
// with that domain until the segment is empty.
func (d *Device) toProve(g *Grant) []Range {
	if d.cfg.BySessions {
		return nil
	}
	var out []Range
	for _, b := range g.Blocks {
		if d.shared[b.Segment] && d.alone(b) {
			out = append(out, Range{Segment: b.Segment, Bytes: d.segments[b.Segment].bytes})
		}
	}
	return out
}

// unshare notes that nobody else has the segments that the release of a grant empties, since
// no session maps it any more and there is no other proof.
func (d *Device) unshare(g *Grant) {
	for _, b := range g.Blocks {
		if d.cfg.BySessions && d.alone(b) {
			delete(d.shared, b.Segment)
		}
	}
}

// alone reports whether a grant's block is the only one of its segment. Blocks that are
// still being prepared don't count: they are on no record, and may be given back unused.
func (d *Device) alone(b heap.Block) bool {
	info, _ := d.heap.Segment(b.Segment)
	return info.Blocks-d.segments[b.Segment].promised == 1
}

// Proved is the outcome of JobProve: whether nobody else has the segments open or mapped.
func (d *Device) Proved(id uuid.UUID, clear bool, now Now) {
	d.begin()
	g, ok := d.grants[id]
	if !ok || g.release == nil {
		return
	}
	rel := g.release
	if !rel.proving || rel.doomed != nil {
		return
	}
	rel.proving = false
	for id, exports := range rel.proof {
		if clear && d.segments[id].exports != exports {
			// Another grant in it has been mapped since: the proof says nothing of that.
			clear, rel.again = false, true
		}
	}
	if clear {
		for id := range rel.proof {
			delete(d.shared, id)
		}
		for len(g.Mappers) > 0 {
			d.removeMapper(g, g.Mappers[0].Session)
		}
		d.free(g, now)
		d.pump(now)
		return
	}
	if rel.again {
		rel.again = false
		rel.retry = d.cfg.ProofMin
		d.tryFree(g, now)
		return
	}
	if now.Boot >= rel.deadline {
		d.toZombie(g, now)
	}
	d.at(timer{at: now.Boot.Add(rel.retry), kind: timerProof, grant: g.ID})
	// By a quarter: a kernel that takes some ten milliseconds to tear a dead process down is
	// overslept by a quarter of that, and some ninety attempts fill a minute.
	rel.retry = min(rel.retry+rel.retry/4, d.cfg.ProofMax)
}

// toZombie counts bytes that someone pins after release, and tells those who waited.
func (d *Device) toZombie(g *Grant, now Now) {
	if g.Status == StatusZombie {
		return
	}
	d.setStatus(g, StatusZombie)
	d.rewrite(g)
	if !g.release.owes {
		g.release.pids = mapperPIDs(g)
	}
	g.note("zombie", now.Wall, g.release.why)
	d.event(zombieEvent(g))
	d.changed("release", nil)
	for _, ref := range g.release.waiters {
		d.answerRelease(g, ref, g.release.freed, false)
	}
	if g.Class != ClassWeights {
		g.release.waiters = nil
	}
	if g.release.owes {
		return // who has it is known, and maps it by no session of ours
	}
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobHolders, Grant: g.ID, Ranges: d.ranges(g)})
	d.tooLate(g, now)
}

// Holder is a process found to hold segments of a grant.
type Holder struct {
	PID   int32
	Bytes int64
}

// HoldersFound is the outcome of JobHolders, where all could be found. Mappers whose session
// has ended and whose process holds nothing any more are let go; not where sessions alone
// count (DeviceConfig.BySessions): there they are holders, whoever was found beside them.
func (d *Device) HoldersFound(id uuid.UUID, holders []Holder, now Now) {
	d.begin()
	g, ok := d.grants[id]
	if !ok {
		return
	}
	g.look = 0
	found := map[int32]bool{}
	var pids []int32
	if d.cfg.BySessions {
		for _, pid := range mapperPIDs(g) {
			holders = append(holders, Holder{PID: pid})
		}
	}
	for _, h := range holders {
		if !found[h.PID] {
			found[h.PID] = true
			pids = append(pids, h.PID)
		}
	}
	slices.Sort(pids)
	if g.release != nil {
		news := len(pids) > 0 && !slices.Equal(g.release.pids, pids)
		g.release.pids = pids
		if g.Status == StatusZombie && news {
			// Now it is known who pins the bytes: it need not be who was granted them.
			d.event(zombieEvent(g))
		}
	}
	mappers := len(g.Mappers)
	for i := 0; i < len(g.Mappers); {
		m := g.Mappers[i]
		if d.ended[m.Session] && !m.Exporting && !found[m.PID] {
			d.removeMapper(g, m.Session)
			continue
		}
		i++
	}
	if g.release != nil {
		d.tryFree(g, now)
		d.pump(now)
	} else if len(g.Mappers) != mappers {
		d.rewrite(g)
	}
}

// HoldersUnknown is the outcome of JobHolders where holders could not be found, or not all of
// them: anybody may be one. Nothing is let go, and they are looked for again after a pause.
func (d *Device) HoldersUnknown(id uuid.UUID, now Now) {
	d.begin()
	g, ok := d.grants[id]
	if !ok || g.looking {
		return
	}
	if g.look == 0 {
		g.look = d.cfg.LookMin
		g.note("holders unknown", now.Wall, "the processes that hold its memory could not be found: it is kept, and looked again")
	}
	g.looking = true
	d.at(timer{at: now.Boot.Add(g.look), kind: timerHolders, grant: g.ID})
	g.look = min(2*g.look, d.cfg.LookMax)
}

// lookAgain looks for holders once more, where it still matters who they are.
func (d *Device) lookAgain(g *Grant) {
	g.looking = false
	matters := g.Status == StatusZombie && g.release.doomed == nil
	for _, m := range g.Mappers {
		matters = matters || d.ended[m.Session]
	}
	if matters {
		d.out.Jobs = append(d.out.Jobs, Job{Kind: JobHolders, Grant: g.ID, Ranges: d.ranges(g)})
	}
}

// Pins are the processes that were found to hold the grant's memory after its release
// began.
func (g *Grant) Pins() []int32 {
	if g.release == nil {
		return nil
	}
	return g.release.pids
}
