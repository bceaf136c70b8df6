package ledger_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/schemas"
)

// quota sets a tenant's quota in a script.
func (s *script) quota(td *datadriven.TestData) error {
	c := ledger.QuotaChange{Tenant: arg(td, 0)}
	for name, to := range map[string]**int64{"floor": &c.Floor, "soft": &c.Soft, "hard": &c.Hard} {
		if td.HasArg(name) {
			n := bytes(text(td, name, ""))
			*to = &n
		}
	}
	if td.HasArg("weight") {
		w, _ := strconv.ParseFloat(text(td, "weight", ""), 64)
		c.Weight = &w
	}
	var err *schemas.Error
	if fail := s.CallOver(func() { err = s.Core.SetQuota(c, s.Now) }); fail != nil {
		return s.wrote(fail)
	}
	if err != nil {
		s.say("%s", err)
	}
	return s.wrote(nil)
}

// tenants writes down what the tenants with a quota have.
func (s *script) tenants() {
	for _, t := range s.Core.Tenants() {
		s.say("%s: %s used, floor %s, soft %s, hard %s, %d waiting for %s", t.Tenant, size(t.Used), size(t.Floor), size(t.Soft), size(t.Hard), t.Waiting, size(t.Deficit))
	}
}

// quotas sets, changes or drops a quota.
func (h *history) quotas() {
	some := []int64{0, 20000, limit / 4, limit / 2, limit}
	c := ledger.QuotaChange{Tenant: rapid.SampledFrom([]string{"red", "blue"}).Draw(h.t, "of")}
	for _, to := range []**int64{&c.Floor, &c.Soft, &c.Hard} {
		if n := rapid.SampledFrom(some).Draw(h.t, "bytes"); rapid.Bool().Draw(h.t, "given") {
			*to = &n
		}
	}
	h.must(h.CallOver(func() {
		if err := h.Core.SetQuota(c, h.Now); err != nil && err.Code != schemas.CodeInvalidRequest && err.Code != schemas.CodeBusy {
			h.t.Fatal(err)
		}
	}))
}

// evict has models go for a tenant's need, as the optimizer would: whoever has a floor
// keeps it against the others.
func (h *history) evict() {
	whose := rapid.SampledFrom([]string{"red", "blue", ""}).Draw(h.t, "whose need")
	for _, g := range h.Grants() {
		if g.Class != ledger.ClassWeights || !rapid.Bool().Draw(h.t, "victim") {
			continue
		}
		r := ledger.ReleaseRequest{Grant: g.ID, Tenant: g.Owner.Tenant, Why: ledger.WhyEvicted, Evict: true, For: whose}
		before, _ := h.Core.Grant(g.ID)
		going := before != nil && before.Status != ledger.StatusActive
		h.must(h.Call(func() { h.Core.Release(r, h.Now) }))
		for _, t := range h.Core.Tenants() {
			after, ok := h.Core.Grant(g.ID)
			if gone := !ok || after.Status != ledger.StatusActive; t.Tenant == g.Owner.Tenant && gone && !going && whose != t.Tenant &&
				t.Floor > 0 && t.Used-t.Revoking-t.Zombie < t.Floor {
				h.t.Fatalf("for %q the model %s went; it left %s with %+v", whose, g.Model, t.Tenant, t)
			}
		}
	}
}

// With quotas that come and go nobody passes a hard one, what is kept for floors is kept,
// and everybody is answered (Machine.After says so after each call).
func TestHistoriesWithQuotas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t, 1<<20)
		for range rapid.IntRange(20, 120).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "quota or other") {
			case 0:
				h.quotas()
			case 1:
				h.evict()
			default:
				h.step()
			}
		}
		none := new(int64)
		for _, tenant := range []string{"red", "blue"} {
			h.must(h.CallOver(func() {
				h.Core.SetQuota(ledger.QuotaChange{Tenant: tenant, Floor: none, Soft: none, Hard: none}, h.Now)
			}))
		}
		h.end()
	})
}

// Quotas live as long as the memory that they are about.
func TestQuotasOutliveTheProcess(t *testing.T) {
	m, err := ledgertest.NewMachine(ledgertest.Settings(limit), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	floor, hard, weight := int64(4096), int64(65536), 2.5
	if err := m.Core.SetQuota(ledger.QuotaChange{Tenant: "red", Floor: &floor, Hard: &hard, Weight: &weight}, m.Now); err != nil {
		t.Fatal(err)
	}
	image, err := ledger.ReadImage(m.Mem)
	if err != nil {
		t.Fatal(err)
	}
	core, _, err := ledger.Restore(m.Config, image, nil, m.Now)
	if err != nil {
		t.Fatal(err)
	}
	want := ledger.Quota{Tenant: "red", Floor: floor, Hard: hard, Weight: weight}
	if got := core.Quota("red"); got != want {
		t.Fatalf("restored %+v, was %+v", got, want)
	}
	if err := core.Check(); err != nil {
		t.Fatal(err)
	}
}

// A request that waits for its quota is refused by it when its time is over, not for want
// of memory, which there is.
func TestWaitingForAQuotaEnds(t *testing.T) {
	m, err := ledgertest.NewMachine(ledgertest.Settings(limit), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	hard := int64(65536)
	if err := m.Core.SetQuota(ledger.QuotaChange{Tenant: "red", Hard: &hard}, m.Now); err != nil {
		t.Fatal(err)
	}
	ask := func(ref string, patience time.Duration) {
		r := &ledger.Request{Ref: ref, Owner: ledger.Owner{Tenant: "red", UID: 7}, Class: ledger.ClassScratch, Size: 65536, Patience: patience}
		if err := m.Call(func() { m.Core.Allocate(r, m.Now) }); err != nil {
			t.Fatal(err)
		}
		if err := m.Settle(); err != nil {
			t.Fatal(err)
		}
	}
	ask("first", 0)
	ask("second", time.Second)
	if err := m.Advance(2 * time.Second); err != nil {
		t.Fatal(err)
	}
	if o := m.Final["second"]; o.Kind != ledger.OutcomeRefused || !errors.Is(o.Err, schemas.Errorf(schemas.CodeQuotaExceeded, "")) {
		t.Fatalf("the second request became %+v", o)
	}
}
