package ledger

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger/store"
)

// maxSegmentID bounds what a core ever counts to: the shell keeps a segment's id in 40 bits.
const maxSegmentID = 1<<40 - 1

// check says what in an image contradicts what a core writes. What depends on the
// device's settings is checked by Restore.
func (im *Image) check() error {
	segments := make(map[heap.SegmentID]*segment, len(im.segments))
	total := int64(0)
	for _, s := range im.segments {
		switch {
		case s.id < FirstSegment || s.id > maxSegmentID || segments[s.id] != nil:
			return &ImageError{s.rec, fmt.Sprintf("segment id %d is impossible or there twice", s.id)}
		case s.bytes < 1 || s.bytes > maxBytes || total > maxBytes:
			return &ImageError{s.rec, fmt.Sprintf("a segment of %d bytes", s.bytes)}
		}
		total += s.bytes
		segments[s.id] = s
	}
	domains := map[heap.SegmentID]string{}
	ids := make(map[uuid.UUID]bool, len(im.grants))
	claims := map[[32]byte]bool{}
	for _, g := range im.grants {
		reason := g.impossible(segments)
		if reason == "" && ids[g.ID] {
			reason = "allocation id " + g.ID.String() + " is there twice"
		}
		ids[g.ID] = true
		for _, b := range g.Blocks {
			o := domainKey(g.Owner)
			if at, ok := domains[b.Segment]; ok && at != o {
				reason = fmt.Sprintf("segment %d belongs to two owners", b.Segment)
			}
			domains[b.Segment] = o
		}
		for _, c := range g.Claims {
			if claims[c.Digest] {
				reason = "a claim is there twice"
			}
			claims[c.Digest] = true
		}
		if total += cond(g.Class == ClassReservation, g.Granted, 0); total > maxBytes {
			reason = "reservations of more bytes than any device has"
		}
		if reason != "" {
			return &ImageError{g.rec, reason}
		}
	}
	if l := im.limits; l.set < 0 || l.reserve < 0 || l.models < 0 {
		return &ImageError{l.rec, "negative limits"}
	}
	if err := checkQuotas(im.quotas); err != nil {
		return err
	}
	return checkAnswers(im.answers, im.recs)
}

func checkAnswers(answers []AnswerRecord, recs []store.RecID) error {
	keys := make(map[string]bool, len(answers))
	for i, a := range answers {
		if keys[a.Key] {
			return &ImageError{recs[i], "two answers to one request"}
		}
		keys[a.Key] = true
	}
	return nil
}

// impossible says what is wrong with a grant's record, or nothing.
func (g *Grant) impossible(segments map[heap.SegmentID]*segment) string {
	reservation := g.Class == ClassReservation
	switch {
	case !g.Class.known():
		return fmt.Sprintf("class %q", g.Class)
	case g.Status != StatusActive && (reservation || g.Status != StatusRevoking && g.Status != StatusZombie):
		return fmt.Sprintf("a %s in status %q", g.Class, g.Status)
	case g.Size < 1 || g.Granted < 1 || g.Size > maxBytes || g.Granted > maxBytes:
		return fmt.Sprintf("%d bytes granted of %d", g.Granted, g.Size)
	case reservation != (len(g.Blocks) == 0):
		return fmt.Sprintf("a %s of %d blocks", g.Class, len(g.Blocks))
	case g.Follows.PID < 0 || g.Follows.PID != 0 && !reservation:
		return fmt.Sprintf("a %s that follows process %d", g.Class, g.Follows.PID)
	case g.Lease < 0 || g.LeaseEnds < 0:
		return "a negative lease"
	case g.Filling && (reservation || g.Class == ClassWeights || g.Origin != (uuid.UUID{}) || len(g.Mappers) > 0):
		return "being filled, and something that this cannot be"
	case g.Bound && g.Owner.Session == "":
		return "bound to no session"
	}
	sum := int64(0)
	for _, b := range g.Blocks {
		s := segments[b.Segment]
		switch {
		case s == nil:
			return fmt.Sprintf("it lies in segment %d, which has no record", b.Segment)
		case s.weights != (g.Class == ClassWeights):
			return fmt.Sprintf("a %s in segment %d, which is not for that", g.Class, b.Segment)
		case b.Bytes < 1 || b.Bytes > s.bytes:
			return fmt.Sprintf("a block of %d bytes in segment %d", b.Bytes, b.Segment)
		case b.Bytes > maxBytes-sum:
			return "its blocks are larger than any device"
		}
		sum += b.Bytes
	}
	if !reservation && sum != g.Granted {
		return fmt.Sprintf("its blocks have %d bytes, not %d", sum, g.Granted)
	}
	for i, m := range g.Mappers {
		if m.Mode != ReadOnly && m.Mode != ReadWrite || m.Session == "" || g.mapper(m.Session) != &g.Mappers[i] {
			return fmt.Sprintf("session %q maps it as %q", m.Session, m.Mode)
		}
	}
	return ""
}
