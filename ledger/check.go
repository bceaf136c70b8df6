package ledger

import (
	"bytes"
	"fmt"
	"sort"

	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger/store"
)

// Check recomputes everything the core keeps in two ways and says what contradicts what:
// the sums from the grants and segments, the blocks in the heap, the records in the
// region, the indexes. It is for tests and takes time in proportion to all there is.
func (d *Device) Check() error {
	if err := d.heap.Check(); err != nil {
		return err
	}
	for _, check := range []func() error{d.checkBooks, d.checkQuotas, d.checkBlocks, d.checkFigures, d.checkIndexes, d.checkQueue, d.checkRegion} {
		if err := check(); err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
	}
	return nil
}

func (d *Device) checkBooks() error {
	want := books{limit: d.limit(), foreign: d.books.foreign}
	absorbed := int64(0)
	for _, g := range d.grants {
		switch {
		case g.Class == ClassReservation:
			want.reserved += g.Counted()
			absorbed += g.Uses
		case g.Status == StatusActive:
			want.granted += g.Granted
		case g.Status == StatusRevoking:
			want.revoking += g.Granted
			if g.Class == ClassWeights {
				want.leaving += g.Granted
			}
		case g.Status == StatusZombie:
			want.zombie += g.Granted
		}
		if g.Class == ClassWeights {
			want.models += g.Granted
		}
	}
	for _, r := range d.pending {
		want.promised += r.promised
		sum := int64(0)
		for _, b := range r.blocks {
			sum += b.Bytes
		}
		for _, s := range r.segs {
			sum += s.bytes
		}
		if r.Estimated {
			if r.promised != d.least(r) || r.jobs != 0 || sum != 0 || r.gone {
				return fmt.Errorf("request %d has a reservation of %d bytes for %d", r.ticket, r.promised, d.least(r))
			}
			continue
		}
		if r.jobs < 1 || sum != r.promised {
			return fmt.Errorf("request %d was promised %d bytes, has %d, with %d jobs", r.ticket, r.promised, sum, r.jobs)
		}
	}
	for _, m := range d.moves() {
		want.promised += m.To.Bytes
	}
	for class, n := range d.warming {
		want.warming += class * int64(n)
	}
	total := int64(0)
	for id, s := range d.segments {
		total += s.bytes
		info, ok := d.heap.Segment(id)
		_, owed := d.owed[id]
		switch {
		case s.id != id || ok == s.doomed:
			return fmt.Errorf("segment %d: doomed %v, in the heap %v", id, s.doomed, ok)
		case s.doomed && owed:
			want.astray += s.bytes
			continue
		case s.doomed:
			want.pooled += s.bytes
			want.doomed += s.bytes
			continue
		case info.Bytes != s.bytes:
			return fmt.Errorf("segment %d has %d bytes, in the heap %d", id, s.bytes, info.Bytes)
		case info.Aside:
			want.aside += s.bytes
		}
		if info.Pooled {
			want.pooled += s.bytes
			if d.shared[id] {
				return fmt.Errorf("segment %d is in the pool, and nobody proved that it is free", id)
			}
			if s.weights {
				return fmt.Errorf("segment %d was made for weights and is in the pool", id)
			}
		} else {
			want.slack += s.bytes - info.UsedBytes
			if info.Blocks == 0 {
				return fmt.Errorf("segment %d of %s has no block", id, info.Owner)
			}
		}
	}
	if absorbed != d.absorbed {
		return fmt.Errorf("reservations absorb %d bytes, should be %d", d.absorbed, absorbed)
	}
	if want != d.books {
		return fmt.Errorf("the books are %+v, should be %+v", d.books, want)
	}
	if f := d.Figures(); f.Segments != total {
		return fmt.Errorf("the figures say %d bytes of segments, there are %d", f.Segments, total)
	}
	if h := d.heap.Stats(); h.SlackBytes != want.slack || h.PooledBytes != want.pooled-want.doomed {
		return fmt.Errorf("the heap has %d slack and %d pooled, the books %d and %d", h.SlackBytes, h.PooledBytes, want.slack, want.pooled-want.doomed)
	}
	return nil
}

// checkBlocks holds every block of a grant or of a request being prepared against the
// heap and against its neighbours.
func (d *Device) checkBlocks() error {
	type owned struct {
		heap.Block
		domain string
	}
	by := map[heap.SegmentID][]owned{}
	for _, g := range d.grants {
		for _, b := range g.Blocks {
			by[b.Segment] = append(by[b.Segment], owned{b, domainKey(g.Owner)})
		}
	}
	for _, r := range d.pending {
		for _, b := range r.blocks {
			by[b.Segment] = append(by[b.Segment], owned{b, r.domain})
		}
	}
	for _, m := range d.moves() {
		by[m.To.Segment] = append(by[m.To.Segment], owned{m.To, d.vacant.now.domain})
	}
	for id, blocks := range by {
		info, ok := d.heap.Segment(id)
		if !ok || info.Blocks != len(blocks) {
			return fmt.Errorf("segment %d has %d blocks in the heap, %d are known", id, info.Blocks, len(blocks))
		}
		sort.Slice(blocks, func(i, j int) bool { return blocks[i].Offset < blocks[j].Offset })
		end, used := int64(0), int64(0)
		for _, b := range blocks {
			if b.Offset < end || b.Offset+b.Bytes > info.Bytes || b.domain != info.Owner {
				return fmt.Errorf("block %+v of %s overlaps another in segment %d of %s", b.Block, b.domain, id, info.Owner)
			}
			end = b.Offset + b.Bytes
			used += b.Bytes
		}
		if used != info.UsedBytes {
			return fmt.Errorf("segment %d has %d bytes in blocks, the heap says %d", id, used, info.UsedBytes)
		}
	}
	return nil
}

func (d *Device) checkFigures() error {
	f := d.Figures()
	if f.Used != f.Granted+f.Reserved+f.Revoking+f.Zombie+f.Foreign || f.Used+f.Free+f.Pooled != f.Limit {
		return fmt.Errorf("the figures do not add up: %+v", f)
	}
	if b := &d.books; min(b.granted, b.models, b.leaving, b.reserved, b.promised, b.revoking, b.zombie, b.astray, b.foreign, b.pooled, b.slack, b.warming, b.aside, b.doomed) < 0 {
		return fmt.Errorf("a sum is negative: %+v", *b)
	}
	return nil
}

func (d *Device) checkIndexes() error {
	claims := 0
	ties := map[SessionID]map[*Grant]bool{}
	for _, g := range d.grants {
		for _, c := range g.Claims {
			claims++
			if d.claims[c.Digest] != g {
				return fmt.Errorf("a claim of grant %s is not listed", g.ID)
			}
		}
		if (g.release != nil) != (g.Status != StatusActive) {
			return fmt.Errorf("grant %s is %s with release %v", g.ID, g.Status, g.release)
		}
		if g.release != nil && len(g.Claims) > 0 {
			return fmt.Errorf("grant %s is being released and can still be claimed", g.ID)
		}
		sessions := []SessionID{}
		if g.Bound {
			sessions = append(sessions, g.Owner.Session)
		}
		for _, m := range g.Mappers {
			sessions = append(sessions, m.Session)
			if m.Exporting != (m.exports > 0) || m.Gone && !m.Exporting {
				return fmt.Errorf("grant %s: mapper %+v", g.ID, m)
			}
		}
		for _, s := range sessions {
			if ties[s] == nil {
				ties[s] = map[*Grant]bool{}
			}
			ties[s][g] = true
			if !d.sessions[s][g] {
				return fmt.Errorf("grant %s is not listed under session %s", g.ID, s)
			}
		}
	}
	if claims != len(d.claims) {
		return fmt.Errorf("%d claims are listed, %d exist", len(d.claims), claims)
	}
	for s, m := range d.sessions {
		if len(m) != len(ties[s]) || len(m) == 0 {
			return fmt.Errorf("session %s is listed with %d grants, has %d", s, len(m), len(ties[s]))
		}
	}
	for id := range d.shared {
		if d.segments[id] == nil {
			return fmt.Errorf("segment %d is shared and does not exist", id)
		}
	}
	for id, s := range d.segments {
		if r := d.pending[s.cleaner]; s.cleaner != 0 && r == nil || s.cleaner == 0 && len(s.followers) > 0 {
			return fmt.Errorf("segment %d is cleared by %d for %d more", id, s.cleaner, len(s.followers))
		}
	}
	return nil
}

func (d *Device) checkQueue() error {
	for i, g := range d.going {
		if g.release == nil || g.release.slot != i+1 || d.grants[g.ID] != g {
			return fmt.Errorf("grant %s is being released and is not", g.ID)
		}
	}
	for _, g := range d.grants {
		if (g.release != nil) != (g.Status == StatusRevoking || g.Status == StatusZombie) || g.release != nil && g.release.slot == 0 {
			return fmt.Errorf("grant %s is %s, and not among those that go", g.ID, g.Status)
		}
	}
	if err := d.line.Check(); err != nil {
		return err
	}
	for _, s := range d.line.All() {
		r := s.Of
		if r.spot != s || r.held || s.Tenant != r.Owner.Tenant || s.Age != uint64(r.ticket) {
			return fmt.Errorf("request %d stands in line and says otherwise", r.ticket)
		}
		if r.gone || d.pending[r.ticket] != nil || r.jobs != 0 || r.promised != 0 || len(r.blocks) != 0 {
			return fmt.Errorf("request %d waits and is something else too: %+v", r.ticket, r)
		}
	}
	return nil
}

// checkRegion compares the records with the state. A grant's record may be older where
// nothing that matters to a successor has changed.
func (d *Device) checkRegion() error {
	type key struct {
		kind store.Kind
		name string
	}
	want := map[store.RecID]key{}
	for _, s := range d.segments {
		if s.rec != 0 {
			want[s.rec] = key{kindSegment, fmt.Sprint(s.id)}
		}
	}
	for _, g := range d.grants {
		if g.rec == 0 {
			return fmt.Errorf("grant %s is not on record", g.ID)
		}
		want[g.rec] = key{kindGrant, g.ID.String()}
	}
	for k, a := range d.answers {
		want[a.rec] = key{kindAnswer, k}
	}
	if d.limits.rec != 0 {
		want[d.limits.rec] = key{kindLimits, ""}
	}
	for t, q := range d.quotas {
		want[q.rec] = key{kindQuota, t}
	}
	if d.ballast.rec != 0 {
		want[d.ballast.rec] = key{kindBallast, ""}
	}
	if n := d.region.Stats().Records; n != len(want) {
		return fmt.Errorf("%d records, %d are known", n, len(want))
	}
	for rec, k := range want {
		kind, payload, ok := d.region.Read(rec)
		if !ok || kind != k.kind {
			return fmt.Errorf("record %d of %v %q: kind %d, there %v", rec, k.kind, k.name, kind, ok)
		}
		if err := d.checkRecord(kind, payload, k.name); err != nil {
			return fmt.Errorf("record %d: %w", rec, err)
		}
	}
	return nil
}

func (d *Device) checkRecord(kind store.Kind, payload []byte, name string) error {
	switch kind {
	case kindSegment:
		s, err := decodeSegment(payload)
		if err != nil {
			return err
		}
		is := d.segments[s.id]
		if is == nil || is.bytes != s.bytes || is.weights != s.weights || is.last != s.last {
			return fmt.Errorf("segment %+v is %+v", s, is)
		}
	case kindGrant:
		g, err := decodeGrant(payload)
		if err != nil {
			return err
		}
		is := d.grants[g.ID]
		if is == nil || is.Owner != g.Owner || is.Class != g.Class || is.Status != g.Status || is.Granted != g.Granted || is.Follows != g.Follows ||
			is.Sealed != g.Sealed || is.Bound != g.Bound || is.LeaseEnds != g.LeaseEnds || is.Persistent != g.Persistent || is.Model != g.Model ||
			is.Filling != g.Filling || is.Origin != g.Origin {
			if is == nil || d.needsRecord(is) || is.Status == StatusActive {
				return fmt.Errorf("grant %+v is %+v", g, is)
			}
		}
		if fmt.Sprint(g.Blocks) != fmt.Sprint(is.Blocks) {
			return fmt.Errorf("grant %s has blocks %v, on record %v", g.ID, is.Blocks, g.Blocks)
		}
		for _, c := range is.Claims {
			if !has(g.Claims, c) {
				return fmt.Errorf("a claim of grant %s is not on record", g.ID)
			}
		}
	case kindAnswer:
		a, err := DecodeAnswer(payload)
		if err != nil || a.Key != name {
			return fmt.Errorf("answer %q is recorded as %q: %v", name, a.Key, err)
		}
	case kindQuota:
		q, err := decodeQuota(payload)
		if err != nil || q.Quota != d.quotas[name].Quota {
			return fmt.Errorf("the quota of %s is %+v, recorded %+v: %v", name, d.quotas[name], q, err)
		}
	case kindLimits:
		l, err := decodeLimits(payload)
		if l.rec = d.limits.rec; err != nil || l != d.limits {
			return fmt.Errorf("limits are %+v, recorded %+v: %v", d.limits, l, err)
		}
	}
	return nil
}

func has(claims []Claim, c Claim) bool {
	for _, x := range claims {
		if bytes.Equal(x.Digest[:], c.Digest[:]) && x.Expires == c.Expires {
			return true
		}
	}
	return false
}
