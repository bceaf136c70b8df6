package ledger

import (
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// OfferLife is how long a file claim is good; MaxOffersOfSession and MaxOffers bound the
// claims that wait at a time, each of which holds a descriptor.
const (
	OfferLife          = 60 * time.Second
	MaxOffersOfSession = 32
	MaxOffers          = 512
)

// Offers are the files that clients passed for load_model, each behind a claim: unguessable,
// used once, bound to a tenant where its user is one's, and gone with the session that brought it. A file is the
// shell's; every one that was added comes back exactly once by Redeem without peek, Expire
// or SessionGone. Offers are not recorded: an open file does not outlive the process. One
// writer, the sessions actor; not safe for concurrent use.
type Offers struct {
	random    func([]byte)
	waiting   map[[32]byte]*offer
	ofSession map[SessionID]int
}

type offer struct {
	session SessionID
	tenant  string
	ends    clock.Instant
	file    any
}

// NewOffers starts with none. random fills with unguessable bytes.
func NewOffers(random func([]byte)) *Offers {
	return &Offers{random: random, waiting: map[[32]byte]*offer{}, ofSession: map[SessionID]int{}}
}

// Add takes a file and makes its claim, for a tenant or, where it is empty, for the one that
// shows the claim. After an error (BUSY) the file is still the caller's.
func (o *Offers) Add(session SessionID, tenant string, file any, now clock.Instant) (string, *schemas.Error) {
	switch {
	case o.ofSession[session] >= MaxOffersOfSession:
		return "", schemas.Errorf(schemas.CodeBusy, "%d files of this session wait for load_model, the most it may have: load them, or wait until their claims end", MaxOffersOfSession).
			With("retry_after_ms", OfferLife.Milliseconds())
	case len(o.waiting) >= MaxOffers:
		return "", schemas.Errorf(schemas.CodeBusy, "%d offered files wait for load_model, the most this node takes", MaxOffers).With("retry_after_ms", 1000)
	}
	claim, digest := makeClaim(o.random)
	o.waiting[digest] = &offer{session: session, tenant: tenant, ends: now.Add(OfferLife), file: file}
	o.ofSession[session]++
	return claim, nil
}

// Redeem gives the file of a claim. With peek it stays behind the claim, for a dry run; else
// it is the caller's now. Another tenant's claim is unknown, and stays good.
func (o *Offers) Redeem(claim, tenant string, peek bool, now clock.Instant) (any, *schemas.Error) {
	digest := DigestOf(claim)
	x := o.waiting[digest]
	if x == nil || x.tenant != "" && x.tenant != tenant || now >= x.ends {
		return nil, schemas.Errorf(schemas.CodeStaleHandle, "the file claim is unknown, used or expired: offer the file again on the data socket").With("field", "file_claim")
	}
	if !peek {
		o.forget(digest, x)
	}
	return x.file, nil
}

// Expire gives back the files whose claims have ended.
func (o *Offers) Expire(now clock.Instant) []any {
	return o.take(func(x *offer) bool { return now >= x.ends })
}

// SessionGone gives back the files that a session brought.
func (o *Offers) SessionGone(id SessionID) []any {
	if o.ofSession[id] == 0 {
		return nil
	}
	return o.take(func(x *offer) bool { return x.session == id })
}

// Close gives back all files.
func (o *Offers) Close() []any { return o.take(func(*offer) bool { return true }) }

func (o *Offers) take(gone func(*offer) bool) []any {
	var files []any
	for digest, x := range o.waiting {
		if gone(x) {
			o.forget(digest, x)
			files = append(files, x.file)
		}
	}
	return files
}

func (o *Offers) forget(digest [32]byte, x *offer) {
	delete(o.waiting, digest)
	if o.ofSession[x.session]--; o.ofSession[x.session] == 0 {
		delete(o.ofSession, x.session)
	}
}
