package ledger

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

func newOffers() *Offers { return NewOffers(func(b []byte) { rand.Read(b) }) }

func add(t *testing.T, o *Offers, session SessionID, tenant string, file any, now clock.Instant) string {
	t.Helper()
	claim, err := o.Add(session, tenant, file, now)
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

func wantStale(t *testing.T, o *Offers, claim, tenant string, now clock.Instant) {
	t.Helper()
	if f, err := o.Redeem(claim, tenant, false, now); err == nil || err.Code != schemas.CodeStaleHandle || f != nil {
		t.Fatalf("redeemed as %v, %v", f, err)
	}
}

func TestAFileClaimIsGoodOnce(t *testing.T) {
	o := newOffers()
	claim := add(t, o, "s", "a", "file", 0)
	wantStale(t, o, claim, "b", 1) // and another tenant's attempt spoils nothing
	wantStale(t, o, claim+"x", "a", 1)
	if f, err := o.Redeem(claim, "a", true, 1); err != nil || f != "file" {
		t.Fatal(f, err)
	}
	if f, err := o.Redeem(claim, "a", false, 1); err != nil || f != "file" {
		t.Fatal(f, err)
	}
	wantStale(t, o, claim, "a", 1)
	if left := o.Close(); len(left) != 0 {
		t.Fatal(left)
	}
}

func TestAFileClaimEnds(t *testing.T) {
	o := newOffers()
	claim := add(t, o, "s", "a", 1, 100)
	late := add(t, o, "s", "a", 2, 101)
	end := clock.Instant(100).Add(OfferLife)
	if got := o.Expire(end - 1); len(got) != 0 {
		t.Fatal(got)
	}
	wantStale(t, o, claim, "a", end) // also before anybody swept
	if got := o.Expire(end); len(got) != 1 || got[0] != 1 {
		t.Fatal(got)
	}
	if f, err := o.Redeem(late, "a", false, end); err != nil || f != 2 {
		t.Fatal(f, err)
	}
}

func TestOffersGoWithTheirSession(t *testing.T) {
	o := newOffers()
	mine := add(t, o, "s", "a", 1, 0)
	other := add(t, o, "t", "a", 2, 0)
	if got := o.SessionGone("s"); len(got) != 1 || got[0] != 1 {
		t.Fatal(got)
	}
	wantStale(t, o, mine, "a", 0)
	if got := o.SessionGone("s"); len(got) != 0 {
		t.Fatal(got)
	}
	if _, err := o.Redeem(other, "a", false, 0); err != nil {
		t.Fatal(err)
	}
}

func TestOffersAreLimited(t *testing.T) {
	busy := schemas.Errorf(schemas.CodeBusy, "")
	o := newOffers()
	claim := ""
	for i := range MaxOffersOfSession {
		claim = add(t, o, "s", "a", i, 0)
	}
	if _, err := o.Add("s", "a", "one more", 0); !errors.Is(err, busy) {
		t.Fatal(err)
	}
	if _, err := o.Redeem(claim, "a", false, 0); err != nil {
		t.Fatal(err)
	}
	add(t, o, "s", "a", "room again", 0)
	for i := MaxOffersOfSession; i < MaxOffers; i++ {
		add(t, o, SessionID(rune('A'+i/MaxOffersOfSession)), "a", i, 0)
	}
	if _, err := o.Add("new", "a", "one more", 0); !errors.Is(err, busy) {
		t.Fatal(err)
	}
	if left := o.Close(); len(left) != MaxOffers {
		t.Fatal(len(left))
	}
}
