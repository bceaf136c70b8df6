package ledger

import (
	"crypto/sha256"
	"encoding/base64"
	"sort"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/schemas"
)

// makeClaim draws a claim of 256 bits and its digest. Only the digest is ever kept.
func makeClaim(random func([]byte)) (string, [32]byte) {
	var b [32]byte
	random(b[:])
	s := encodeSecret(&b)
	return s, DigestOf(s)
}

// encodeSecret spells 256 unguessable bits.
func encodeSecret(b *[32]byte) string {
	var text [43]byte
	base64.RawURLEncoding.Encode(text[:], b[:])
	return string(text[:])
}

// DigestOf is what the ledger keeps of a claim or token.
func DigestOf(secret string) [32]byte {
	var text [128]byte // no claim is longer; a copy on the stack for what is not
	return sha256.Sum256(append(text[:0], secret...))
}

// MapRequest redeems a claim for a session.
type MapRequest struct {
	Ref     any
	Session SessionID
	PID     int32
	UID     uint32
	Tenant  string // the peer's, where its user has one: no other's grants are mapped by it
	Root    bool   // the peer is root or the node's own user: it may map any owner's grant
	Digest  [32]byte
	Mode    Mode
}

// Map redeems a claim, records the mapping and has descriptors made (JobExport, with
// r.Ref). An error is returned at once and changes nothing.
func (d *Device) Map(r MapRequest, now Now) *schemas.Error {
	d.begin()
	g, ok := d.claims[r.Digest]
	whose := g.claimant(r.Digest)
	switch {
	case !ok:
		return schemas.Errorf(schemas.CodeStaleHandle, "the claim is unknown, used or expired: ask get_handle for a new one")
	case d.ended[r.Session]:
		return schemas.Errorf(schemas.CodeStaleHandle, "the session has ended")
	case r.Tenant != "" && r.Tenant != whose:
		return schemas.Errorf(schemas.CodeForbidden, "the claim is of another tenant")
	case g.Class != ClassWeights && !r.Root && r.UID != g.Owner.UID:
		return schemas.Errorf(schemas.CodeForbidden, "the allocation belongs to another user: allocate with session_id to own what you map")
	case r.Mode != ReadOnly && r.Mode != ReadWrite:
		return schemas.Errorf(schemas.CodeInvalidRequest, "no mode %q: ro or rw", r.Mode).With("field", "mode")
	case g.Class == ClassWeights && r.Mode == ReadWrite:
		return schemas.Errorf(schemas.CodeInvalidRequest, "weights are read-only: map them with mode ro").With("field", "mode")
	case g.Class == ClassWeights && !g.Sealed:
		return schemas.Errorf(schemas.CodeStaleHandle, "the model is not loaded yet")
	case g.holds.leaving:
		return schemas.Errorf(schemas.CodeAllocationInUse, "the allocation is being moved to another device: wait for the end of the transfer")
	}
	if !d.ballast.Hold() {
		return d.ballast.Refusal()
	}
	// A claim is used up by an expired attempt too.
	delete(d.claims, r.Digest)
	expired := false
	for i, c := range g.Claims {
		if c.Digest == r.Digest {
			expired = c.Expires <= now.Boot
			g.Claims = append(g.Claims[:i], g.Claims[i+1:]...)
			break
		}
	}
	if expired {
		return schemas.Errorf(schemas.CodeStaleHandle, "the claim has expired: ask get_handle for a new one")
	}
	if m := g.mapper(r.Session); m != nil {
		if r.Mode == ReadWrite {
			m.Mode = ReadWrite
		}
		m.Exporting, m.Gone = true, false
		m.exports++
	} else {
		g.Mappers = append(g.Mappers, Mapper{Session: r.Session, PID: r.PID, Tenant: whose, Mode: r.Mode, Exporting: true, exports: 1})
		d.tie(r.Session, g)
		if g.Model != "" {
			d.out.Readers = append(d.out.Readers, Reader{Model: g.Model, Grant: g.ID, Session: r.Session, PID: r.PID, Tenant: whose})
		}
	}
	if g.Class != ClassWeights && r.Mode == ReadWrite && g.Owner.Session == "" && g.Lease == 0 && !g.Persistent {
		g.Owner.Session, g.Owner.PID, g.Bound = r.Session, r.PID, true
		d.tie(r.Session, g)
	}
	d.stay(g)
	g.LastUsed = now.Wall
	g.note("mapped", now.Wall, string(r.Mode))
	g.Shared = true
	for _, b := range g.Blocks {
		d.shared[b.Segment] = true
		d.segments[b.Segment].exports++
	}
	d.rewrite(g)
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobExport, Grant: g.ID, Ranges: d.ranges(g), Session: r.Session, Mode: r.Mode, Ref: r.Ref, Info: g})
	return nil
}

// claimant is the tenant that a claim was given to; empty where there is none.
func (g *Grant) claimant(digest [32]byte) string {
	if g != nil {
		for i := range g.Claims {
			if g.Claims[i].Digest == digest {
				return g.Claims[i].Tenant
			}
		}
	}
	return ""
}

// Exported is the outcome of JobExport: the descriptors have been handed to the
// connection and closed here, or could not be.
func (d *Device) Exported(id uuid.UUID, s SessionID, failed bool, now Now) {
	d.begin()
	g, ok := d.grants[id]
	if !ok {
		return
	}
	m := g.mapper(s)
	if m == nil {
		return
	}
	m.exports--
	m.Exporting = m.exports > 0
	m.sent = m.sent || !failed
	if !m.Exporting && (m.Gone || !m.sent) {
		d.removeMapper(g, s)
		d.rewrite(g)
	} else if !m.Exporting && m.hasty {
		m.hasty = false
		if g.release != nil && !d.ended[s] {
			d.askBack(g, s)
		}
	}
	if g.release != nil {
		d.tryFree(g, now)
		d.pump(now)
	}
}

// Unmap is a session's word that it no longer maps a grant. It may be said again, and by a
// session that has said so as it came back: there is nothing left to do then.
func (d *Device) Unmap(s SessionID, id uuid.UUID, now Now) *schemas.Error {
	d.begin()
	g, ok := d.grants[id]
	if !ok {
		return schemas.Errorf(schemas.CodeAllocationNotFound, "no allocation %s", id)
	}
	m := g.mapper(s)
	if m == nil && g.knows(s) {
		return nil
	}
	if m == nil {
		return schemas.Errorf(schemas.CodeAllocationNotFound, "this session does not map allocation %s", id)
	}
	d.unmapped(g, m, now)
	d.pump(now)
	return nil
}

// Parting reports whether a session has let go of a grant whose descriptors are still on their
// way to it: it counts as mapped until Exported tells of their arrival.
func (d *Device) Parting(s SessionID, id uuid.UUID) bool {
	if g, ok := d.grants[id]; ok {
		m := g.mapper(s)
		return m != nil && (m.Gone || m.hasty)
	}
	return false
}

func (d *Device) unmapped(g *Grant, m *Mapper, now Now) {
	if m.Exporting && d.cfg.BySessions {
		// Said before its descriptors have reached it, the word is not one of them, and nothing
		// else would tell what becomes of those: it is asked again when they have, if need be.
		m.hasty = true
		return
	}
	if m.Exporting {
		m.Gone = true // not before its descriptors are out of our hands
		return
	}
	d.removeMapper(g, m.Session)
	g.LastUsed = now.Wall
	g.note("unmapped", now.Wall, "")
	d.rewrite(g)
	if g.release != nil {
		d.tryFree(g, now)
	}
}

// Resumed is the word of a session that comes back on what it still maps: of everything
// else it let go, or never got it, while nobody could hear of it. A nil held says nothing
// of that. What is being released it is asked to let go of once more: whoever asked it
// before may have spoken to nobody.
func (d *Device) Resumed(s SessionID, held map[uuid.UUID]bool, now Now) {
	d.begin()
	for _, g := range d.of(s) {
		switch m := g.mapper(s); {
		case m == nil:
		case held != nil && !held[g.ID]:
			d.unmapped(g, m, now)
		case g.release != nil && !d.ended[s]:
			d.askBack(g, s)
		}
	}
	d.pump(now)
}

func (d *Device) removeMapper(g *Grant, s SessionID) {
	for i, m := range g.Mappers {
		if m.Session == s {
			g.Mappers = append(g.Mappers[:i], g.Mappers[i+1:]...)
			g.left(s)
			d.untie(s, g)
			if g.Model != "" {
				d.out.Readers = append(d.out.Readers, Reader{Model: g.Model, Grant: g.ID, Session: s, PID: m.PID, Tenant: m.Tenant, Gone: true})
			}
			return
		}
	}
}

// maxEnded bounds the memory of sessions that ended.
const maxEnded = 4096

// SessionClosed is a session's end-of-file: nothing new goes to it, and what is bound to
// it begins to be released. Its process may live on and still map things.
func (d *Device) SessionClosed(s SessionID, now Now) {
	d.begin()
	d.closeSession(s, now)
	d.pump(now)
}

func (d *Device) closeSession(s SessionID, now Now) {
	if !d.ended[s] {
		d.ended[s] = true
		if d.endedAt = append(d.endedAt, s); len(d.endedAt) > maxEnded {
			delete(d.ended, d.endedAt[0])
			d.endedAt = d.endedAt[1:]
		}
	}
	for _, r := range d.waiters() {
		if r.Owner.Session == s {
			d.unqueue(r)
			d.refuse(r, schemas.Errorf(schemas.CodeCancelled, "the session ended"))
		}
	}
	for _, r := range d.preparing() {
		if r.Owner.Session == s {
			d.giveUp(r, schemas.Errorf(schemas.CodeCancelled, "the session ended"))
		}
	}
	for _, g := range d.of(s) {
		switch {
		case g.Bound && g.Owner.Session == s:
			d.beginRelease(g, WhySession, 0, nil, now)
		case g.mapper(s) != nil && g.release != nil:
			d.tryFree(g, now)
		case g.mapper(s) != nil && !d.cfg.BySessions:
			// It cannot tell us any more when it unmaps: look.
			d.out.Jobs = append(d.out.Jobs, Job{Kind: JobHolders, Grant: g.ID, Ranges: d.ranges(g)})
		}
	}
}

// SessionDead is the exit of a session's process: it touches nothing any more.
func (d *Device) SessionDead(s SessionID, now Now) {
	d.begin()
	d.closeSession(s, now)
	for _, g := range d.of(s) {
		m := g.mapper(s)
		if m == nil {
			continue
		}
		if m.Exporting {
			m.Gone = true
			continue
		}
		d.removeMapper(g, s)
		if g.release == nil {
			d.rewrite(g)
			continue
		}
		g.release.retry = d.cfg.ProofMin
		d.tryFree(g, now)
	}
	d.pump(now)
}

// Handle makes a fresh claim on a grant for its tenant.
func (d *Device) Handle(id uuid.UUID, tenant string, now Now) (*Grant, string, *schemas.Error) {
	return d.HandleFor(id, tenant, tenant, now)
}

// HandleFor is Handle for a reader of a shared model, who may be of another tenant than
// the grant.
func (d *Device) HandleFor(id uuid.UUID, tenant, reader string, now Now) (*Grant, string, *schemas.Error) {
	d.begin()
	g, err := d.FindGrant(id, tenant)
	if err != nil {
		return nil, "", err
	}
	if g.Status != StatusActive {
		return nil, "", schemas.Errorf(schemas.CodeStaleHandle, "allocation %s is being released", id)
	}
	if g.Filling {
		return nil, "", schemas.Errorf(schemas.CodeStaleHandle, "allocation %s is still being filled by a transfer", id)
	}
	if g.Class == ClassReservation {
		return nil, "", schemas.Errorf(schemas.CodeInvalidRequest, "a reservation has no memory to map").With("field", "allocation_id")
	}
	if !d.ballast.Hold() {
		return nil, "", d.ballast.Refusal()
	}
	claim := d.newClaim(g, reader, now)
	g.LastUsed = now.Wall
	d.rewrite(g)
	d.index(g)
	return g, claim, nil
}

// Renew gives a grant a lease of the given length from now, whether it had one or not.
func (d *Device) Renew(id uuid.UUID, tenant string, lease time.Duration, now Now) (*Grant, *schemas.Error) {
	d.begin()
	g, err := d.renewable(id, tenant, lease)
	if err != nil {
		return nil, err
	}
	if !d.ballast.Hold() {
		return nil, d.ballast.Refusal()
	}
	g.Lease, g.LeaseEnds = lease, now.Boot.Add(lease)
	d.rewrite(g)
	d.at(timer{at: g.LeaseEnds, kind: timerLease, grant: id})
	g.note("renewed", now.Wall, "")
	return g, nil
}

// PlanRenew is the dry run of Renew: why it would be refused, or nil.
func (d *Device) PlanRenew(id uuid.UUID, tenant string, lease time.Duration) *schemas.Error {
	_, err := d.renewable(id, tenant, lease)
	return err
}

func (d *Device) renewable(id uuid.UUID, tenant string, lease time.Duration) (*Grant, *schemas.Error) {
	g, err := d.FindGrant(id, tenant)
	switch {
	case err != nil:
		return nil, err
	case g.release != nil:
		return nil, schemas.Errorf(schemas.CodeStaleHandle, "allocation %s is being released", id)
	case lease <= 0:
		return nil, schemas.Errorf(schemas.CodeInvalidRequest, "a lease of %v", lease).With("field", "lease_seconds")
	}
	return g, nil
}

// preparing lists the undecided requests that workers are at, in the order of arrival.
func (d *Device) preparing() []*Request {
	var out []*Request
	for _, r := range d.pending {
		if !r.gone {
			out = append(out, r)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ticket < out[j].ticket })
	return out
}
