package ledgertest

import (
	"fmt"
	"maps"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
)

// Cut is what a crash leaves: the ledger as it was after one store, and the machine.
type Cut struct {
	Mem      []byte
	Segments map[heap.SegmentID]*Segment
}

// Cut takes what a crash at this moment would leave.
func (m *Machine) Cut() Cut {
	c := Cut{Mem: append([]byte(nil), m.Mem...), Segments: make(map[heap.SegmentID]*Segment, len(m.Segments))}
	for id, s := range m.Segments {
		k := *s
		k.Open = maps.Clone(s.Open)
		c.Segments[id] = &k
	}
	return c
}

// TakeOver starts a successor on what a crash left. Sessions are as they were; what
// workers had under way is gone, and so are segments that no record names.
func (m *Machine) TakeOver(c Cut) (*Machine, ledger.Report, error) {
	next := &Machine{Mem: c.Mem, Config: m.Config, Now: m.Now, Segments: c.Segments, Owed: map[heap.SegmentID]*Segment{}, Dead: maps.Clone(m.Dead),
		Live: map[uuid.UUID]*Live{}, Final: map[any]ledger.Outcome{}, random: m.random ^ 0x5bd1e995}
	next.Config.Rand, next.Config.NewID = next.fill, next.newID
	im, err := ledger.ReadImage(c.Mem)
	if err != nil {
		return nil, ledger.Report{}, err
	}
	missing := map[heap.SegmentID]bool{}
	known := map[heap.SegmentID]bool{}
	for _, s := range im.Segments() {
		known[s.ID] = true
		if next.Segments[s.ID] == nil {
			missing[s.ID] = true
		}
	}
	for id := range next.Segments {
		if !known[id] {
			delete(next.Segments, id)
		}
	}
	var rep ledger.Report
	next.Core, rep, err = ledger.Restore(next.Config, im, missing, next.Now)
	if err != nil {
		return nil, rep, err
	}
	next.Core.Grants(func(g *ledger.Grant) {
		l := &Live{ID: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Domain: fmt.Sprintf("%s/%d", g.Owner.Tenant, g.Owner.UID)}
		for _, b := range g.Blocks {
			l.Segments = append(l.Segments, b.Segment)
			if s := next.Segments[b.Segment]; s != nil && s.Content == "" {
				s.Content = l.Domain // on record: whoever asks for a claim may write
			}
		}
		next.Live[g.ID] = l
	})
	return next, rep, next.After(true)
}

// Recorded is what an image says, for comparison with what was answered.
type Recorded struct {
	Grants  map[uuid.UUID]ledger.Status
	Answers map[string]ledger.AnswerRecord
}

// Read opens a copy of an image.
func Read(mem []byte) (Recorded, error) {
	r := Recorded{Grants: map[uuid.UUID]ledger.Status{}, Answers: map[string]ledger.AnswerRecord{}}
	im, err := ledger.ReadImage(append([]byte(nil), mem...))
	if err != nil {
		return r, err
	}
	for _, g := range im.Grants() {
		r.Grants[g.ID] = g.Status
	}
	for _, a := range im.Answers() {
		r.Answers[a.Key] = a
	}
	return r, nil
}
