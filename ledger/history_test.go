package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/schemas"
)

// history draws random commands, and random fates of what the core has done for them.
type history struct {
	*ledgertest.Machine
	t        *rapid.T
	n        int
	owed     map[any]*ledger.Request // asked and not finally answered
	sessions map[ledger.SessionID]bool
	maps     []mapping // what sessions were told that they hold
	crash    *crashes  // nil: none are looked at
	holds    []hold
	fills    []uuid.UUID       // being filled
	guesses  []*ledger.Request // whose size is not known yet
}

type mapping struct {
	session ledger.SessionID
	grant   uuid.UUID
	// segments are those that it was given; the grant may have moved since it let go.
	segments []heap.SegmentID
}

const limit = 1 << 20

func newHistory(t *rapid.T, ledgerBytes int) *history {
	cfg := ledgertest.Settings(limit)
	cfg.Heap.GranularityBytes = rapid.SampledFrom([]int64{4 << 10, 16 << 10}).Draw(t, "granularity")
	cfg.PoolBytes = rapid.SampledFrom([]int64{0, limit / 4, limit}).Draw(t, "pool")
	cfg.Overdue = rapid.SampledFrom([]ledger.Overdue{ledger.OverdueKeep, ledger.OverdueRefuse, ledger.OverdueEnd}).Draw(t, "overdue")
	cfg.BySessions = rapid.Bool().Draw(t, "by sessions")
	m, err := ledgertest.NewMachine(cfg, ledgerBytes)
	if err != nil {
		t.Fatal(err)
	}
	return &history{Machine: m, t: t, owed: map[any]*ledger.Request{}, sessions: map[ledger.SessionID]bool{}}
}

func (h *history) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, o := range h.Heard {
		h.answered(o)
	}
	h.Heard = h.Heard[:0]
	if h.crash != nil {
		h.crash.examine(h)
	}
}

// answered checks an answer against its request.
func (h *history) answered(o ledger.Outcome) {
	r := h.owed[o.Ref]
	switch o.Kind {
	case ledger.OutcomeQueued:
		return
	case ledger.OutcomeRefused:
		if r == nil {
			return
		}
		h.refused(r, o)
	case ledger.OutcomeGranted:
		if r == nil {
			h.t.Fatalf("a grant nobody asked for: %+v", o)
		}
		if r.Filling {
			h.fills = append(h.fills, o.Grant.ID)
		}
		if o.Grant.Granted < r.Size || r.Class != ledger.ClassReservation && o.Claim == "" != (r.Unclaimed || r.Filling) {
			h.t.Fatalf("%+v for %+v", o.Grant, r)
		}
	}
	delete(h.owed, o.Ref)
}

// refused checks that a request was not turned away while there was room for it.
func (h *history) refused(r *ledger.Request, o ledger.Outcome) {
	if !errors.Is(o.Err, schemas.Errorf(schemas.CodeOutOfMemory, "")) {
		return
	}
	d := o.Err.Details
	position, _ := d["position"].(int)
	for _, t := range h.Tasks {
		if t.Kind == ledger.JobDestroy || t.Kind == ledger.JobWarm || t.Kind == ledger.JobScrub {
			return // what could be granted is not there yet
		}
	}
	if d["driver"] != nil || position > 1 || r.Class == ledger.ClassWeights {
		return
	}
	if largest := d["largest_grantable_bytes"].(int64); r.Size <= largest-h.Config.Heap.GranularityBytes {
		h.t.Fatalf("%d bytes were refused while %d could be granted: %v", r.Size, largest, o.Err)
	}
}

func (h *history) session() ledger.SessionID {
	s := ledger.SessionID(fmt.Sprintf("s%d", rapid.IntRange(1, 6).Draw(h.t, "session")))
	if h.Dead[s] || h.sessions[s] {
		return "" // ended ones are not used again
	}
	return s
}

func (h *history) allocate() {
	t := h.t
	h.n++
	r := &ledger.Request{
		Ref: h.n, Size: rapid.SampledFrom([]int64{1, 4000, 4096, 10000, 16384, 50000, 65536, 100000, 200000, 262144, 400000, limit, limit + 1}).Draw(t, "size"),
		Owner:     ledger.Owner{Tenant: rapid.SampledFrom([]string{"red", "blue"}).Draw(t, "tenant"), UID: 7},
		Class:     rapid.SampledFrom([]ledger.Class{ledger.ClassScratch, ledger.ClassScratch, ledger.ClassScratch, ledger.ClassState, ledger.ClassWeights, ledger.ClassReservation}).Draw(t, "class"),
		Align:     rapid.SampledFrom([]int64{0, 0, 4096}).Draw(t, "align"),
		Priority:  rapid.IntRange(0, 1).Draw(t, "priority"),
		Patience:  rapid.SampledFrom([]time.Duration{0, time.Second, 30 * time.Second}).Draw(t, "patience"),
		Lease:     rapid.SampledFrom([]time.Duration{0, 0, time.Second, time.Hour}).Draw(t, "lease"),
		Clear:     rapid.Bool().Draw(t, "clear"),
		RequestID: fmt.Sprint(h.n),
	}
	r.Owner.Session = h.session()
	if r.Class == ledger.ClassReservation && rapid.Bool().Draw(t, "follows") {
		r.Follows = ledger.Process{PID: int32(h.n), Start: 9}
	}
	r.Filling = (r.Class == ledger.ClassScratch || r.Class == ledger.ClassState) && rapid.IntRange(0, 3).Draw(t, "by a transfer") == 0
	if r.Class == ledger.ClassWeights {
		r.Model, r.Unclaimed, r.Owner.Session = fmt.Sprint("m", h.n), true, ""
		if r.Estimated = rapid.Bool().Draw(t, "estimated"); r.Estimated {
			h.guesses = append(h.guesses, r)
		} else {
			r.Segments = segments(r.Size)
		}
	}
	if !r.Filling && rapid.Bool().Draw(t, "keyed") {
		r.Key = ledger.AnswerKey(r.Owner.Tenant, r.RequestID)
		r.Answer = func(g *ledger.Grant) ledger.AnswerRecord {
			return ledger.AnswerRecord{Key: r.Key, Action: "allocate", Grant: g.ID, Body: []byte("{}")}
		}
	}
	h.owed[r.Ref] = r
	plan := h.Core.Plan(r, h.Now)
	h.must(h.Call(func() { h.Core.Allocate(r, h.Now) }))
	o := h.Final[r.Ref]
	full := o.Kind == ledger.OutcomeRefused && o.Err.Code == schemas.CodeBusy
	if plan.Outcome == "refused" && o.Kind != ledger.OutcomeRefused || plan.Outcome == "queued" && o.Kind == ledger.OutcomeGranted ||
		plan.Outcome == "granted" && o.Kind == ledger.OutcomeRefused && !full {
		t.Fatalf("the dry run said %+v, it became %+v", plan, o)
	}
	if plan.Outcome == "refused" {
		h.foreseen("the request", plan.Err, o.Err)
	}
}

// segments are a model's of so many bytes.
func segments(bytes int64) (s []int64) {
	for ; bytes > 0; bytes -= 100000 {
		s = append(s, min(bytes, 100000))
	}
	return s
}

// measure tells the true size of a request, which may be another than was thought.
func (h *history) measure() {
	if len(h.guesses) == 0 {
		return
	}
	i := rapid.IntRange(0, len(h.guesses)-1).Draw(h.t, "guess")
	r := h.guesses[i]
	h.guesses = slices.Delete(h.guesses, i, i+1)
	size := r.Size * rapid.SampledFrom([]int64{0, 1, 2, 2, 2, 3, 5}).Draw(h.t, "halves") / 2
	h.must(h.Measure(r.Ticket(), segments(size)))
}

func (h *history) pickGrant() *ledgertest.Live {
	all := h.Grants()
	if len(all) == 0 {
		return nil
	}
	return all[rapid.IntRange(0, len(all)-1).Draw(h.t, "grant")]
}

func (h *history) release() {
	g := h.pickGrant()
	if g == nil {
		return
	}
	h.n++
	r := ledger.ReleaseRequest{Ref: h.n, Grant: g.ID, Tenant: g.Owner.Tenant, Force: rapid.Bool().Draw(h.t, "force"), Why: ledger.WhyDeallocated}
	switch rapid.IntRange(0, 3).Draw(h.t, "how") {
	case 0:
		r.Key = ledger.AnswerKey(g.Owner.Tenant, fmt.Sprint("r", h.n))
		r.Answer = func(g *ledger.Grant) ledger.AnswerRecord {
			return ledger.AnswerRecord{Key: r.Key, Action: "deallocate", Model: g.ID.String(), Body: []byte("{}")}
		}
	case 1:
		r.Why = ledger.WhyUndone
	case 2:
		r.Tenant = rapid.SampledFrom([]string{"red", "blue"}).Draw(h.t, "tenant")
	}
	plan := h.Core.PlanRelease(r)
	h.must(h.Call(func() { h.Core.Release(r, h.Now) }))
	var err *schemas.Error
	if o := h.Final[r.Ref]; o.Kind == ledger.OutcomeRefused {
		err = o.Err
	}
	h.foreseen("the release", plan, err)
}

// foreseen checks the dry run of a command against what became of it. Only that the ledger
// is full nobody can tell beforehand.
func (h *history) foreseen(what string, plan, real *schemas.Error) {
	h.t.Helper()
	if real != nil && real.Code == schemas.CodeBusy {
		return
	}
	if (plan == nil) != (real == nil) || plan != nil && (plan.Code != real.Code || plan.Message != real.Message) {
		h.t.Fatalf("the dry run of %s said %v, it became %v", what, plan, real)
	}
}

func (h *history) mapIt() {
	g := h.pickGrant()
	s := h.session()
	if g == nil || s == "" {
		return
	}
	claim := g.Claim
	if rapid.Bool().Draw(h.t, "fresh claim") {
		var err *schemas.Error
		h.must(h.Call(func() { _, claim, err = h.Core.Handle(g.ID, g.Owner.Tenant, h.Now) }))
		if err != nil {
			return
		}
	}
	mode := rapid.SampledFrom([]ledger.Mode{ledger.ReadOnly, ledger.ReadWrite}).Draw(h.t, "mode")
	var err *schemas.Error
	h.must(h.Call(func() {
		err = h.Core.Map(ledger.MapRequest{Session: s, PID: ledgertest.PID(s), UID: 7, Digest: ledger.DigestOf(claim), Mode: mode}, h.Now)
	}))
	if err == nil {
		h.maps = append(h.maps, mapping{s, g.ID, slices.Clone(g.Segments)})
		var again *schemas.Error
		h.must(h.Call(func() {
			again = h.Core.Map(ledger.MapRequest{Session: s, UID: 7, Digest: ledger.DigestOf(claim), Mode: mode}, h.Now)
		}))
		if again == nil {
			h.t.Fatal("a claim was redeemed twice")
		}
	}
}

func (h *history) unmap() {
	if len(h.maps) == 0 {
		return
	}
	i := rapid.IntRange(0, len(h.maps)-1).Draw(h.t, "mapping")
	m := h.maps[i]
	h.maps = append(h.maps[:i:i], h.maps[i+1:]...)
	switch {
	case h.Config.BySessions: // then there is nothing but the session's word, for all that it maps
		h.LetGo(m.session, m.segments)
		h.maps = slices.DeleteFunc(h.maps, func(x mapping) bool {
			same := x.session == m.session && x.grant == m.grant
			if same {
				h.LetGo(x.session, x.segments)
			}
			return same
		})
	case rapid.IntRange(0, 4).Draw(h.t, "honest") > 0:
		h.LetGo(m.session, m.segments)
	}
	h.must(h.Call(func() { h.Core.Unmap(m.session, m.grant, h.Now) }))
}

func (h *history) endSession() {
	s := h.session()
	if s == "" {
		return
	}
	if rapid.Bool().Draw(h.t, "the process dies") {
		h.Kill(s)
		if rapid.Bool().Draw(h.t, "end-of-file first") {
			h.must(h.Call(func() { h.Core.SessionClosed(s, h.Now) }))
		}
		h.must(h.Call(func() { h.Core.SessionDead(s, h.Now) }))
		return
	}
	h.sessions[s] = true
	h.must(h.Call(func() { h.Core.SessionClosed(s, h.Now) }))
}

func (h *history) work() {
	if len(h.Tasks) == 0 {
		return
	}
	t := h.Tasks[rapid.IntRange(0, len(h.Tasks)-1).Draw(h.t, "task")]
	if !t.Done {
		var fail error
		if rapid.IntRange(0, 9).Draw(h.t, "fate") == 0 && !t.Back() && t.Kind != ledger.JobSeal {
			fail = ledgertest.ErrDriver
			if t.Kind == ledger.JobDestroy && rapid.Bool().Draw(h.t, "pinned") {
				fail = ledgertest.ErrPinned
			}
			if t.Kind == ledger.JobCreate && rapid.Bool().Draw(h.t, "exhausted") {
				fail = ledgertest.ErrExhausted
			}
		}
		h.Do(t, fail)
		if rapid.Bool().Draw(h.t, "late") {
			return
		}
	}
	h.must(h.Tell(t))
}

func (h *history) rest() {
	t := h.t
	switch rapid.IntRange(0, 7).Draw(t, "other") {
	case 0:
		for ref, r := range h.owed {
			if r.Ticket() != 0 && ref == h.n {
				h.must(h.Call(func() {
					h.Core.Cancel(r.Ticket(), schemas.Errorf(schemas.CodeCancelled, "by its client"), h.Now)
				}))
			}
		}
	case 1:
		if len(h.Wants) > 0 {
			w := h.Wants[0]
			h.Wants = h.Wants[1:]
			if wait := rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond, 4 * time.Second}).Draw(t, "just loaded"); wait > 0 {
				g := ledger.Guard{Until: h.Now.Boot.Add(wait), Models: []string{"m"}, Short: rapid.Bool().Draw(t, "short")}
				h.must(h.Call(func() { h.Core.Guarded(w.Ticket, g, h.Now) }))
				break
			}
			for _, g := range h.Grants() {
				if g.Class == ledger.ClassWeights && rapid.Bool().Draw(t, "victim") {
					h.must(h.Call(func() {
						h.Core.Release(ledger.ReleaseRequest{Grant: g.ID, Tenant: g.Owner.Tenant, Why: ledger.WhyEvicted}, h.Now)
					}))
				}
			}
			h.must(h.Call(func() { h.Core.NoRoom(w.Ticket, h.Now) }))
		}
	case 2:
		l := rapid.SampledFrom([]int64{limit / 2, limit, limit - 70000, -1}).Draw(t, "limit")
		models := rapid.SampledFrom([]int64{0, limit / 4}).Draw(t, "models")
		reserve := rapid.SampledFrom([]int64{0, 0, limit}).Draw(t, "reserve")
		plan := h.Core.PlanLimits(&l, &models, &reserve)
		var err *schemas.Error
		h.must(h.CallOver(func() { err = h.Core.SetLimits(&l, &models, &reserve, h.Now) }))
		h.foreseen("the limits", plan, err)
	case 3:
		o := rapid.SampledFrom([]int64{0, 30000, limit / 3}).Draw(t, "outside")
		var uses []ledger.Use
		for _, g := range h.Grants() {
			if g.Class == ledger.ClassReservation && rapid.Bool().Draw(t, "uses") {
				uses = append(uses, ledger.Use{Grant: g.ID, Bytes: rapid.SampledFrom([]int64{0, 5000, limit / 4}).Draw(t, "use")})
			}
		}
		h.must(h.CallOver(func() {
			if len(uses) > 0 {
				h.Core.Absorb(uses)
			}
			h.Core.SetOutside(o, limit, h.Now)
		}))
	case 4:
		if g := h.pickGrant(); g != nil {
			tenant := rapid.SampledFrom([]string{"red", "blue"}).Draw(t, "tenant")
			lease := rapid.SampledFrom([]time.Duration{time.Minute, time.Minute, 0}).Draw(t, "lease")
			plan := h.Core.PlanRenew(g.ID, tenant, lease)
			var err *schemas.Error
			h.must(h.Call(func() { _, err = h.Core.Renew(g.ID, tenant, lease, h.Now) }))
			h.foreseen("the renewal", plan, err)
		}
	case 5:
		if g := h.pickGrant(); g != nil && g.Class == ledger.ClassWeights {
			h.must(h.Call(func() { h.Core.Seal(g.ID) }))
		}
	case 6:
		h.must(h.Call(func() { h.Core.SetReclaimable(rapid.Int64Range(0, limit).Draw(t, "reclaimable"), h.Now) }))
	case 7:
		h.must(h.Call(func() { h.Core.LookAgain(h.Now) }))
	}
}

func (h *history) step() {
	switch rapid.IntRange(0, 20).Draw(h.t, "step") {
	case 19, 20:
		h.measure()
	case 16:
		h.hold()
	case 17:
		h.letGo()
	case 18:
		h.defragment()
	case 0, 1, 2, 3:
		h.allocate()
	case 4, 5:
		h.release()
	case 6, 7:
		h.mapIt()
	case 8:
		h.unmap()
	case 9:
		h.endSession()
	case 10:
		h.must(h.Advance(rapid.SampledFrom([]time.Duration{time.Millisecond, 150 * time.Millisecond, 3 * time.Second, 70 * time.Second}).Draw(h.t, "time")))
	case 11:
		h.rest()
	default:
		h.work()
	}
}

// end lets everybody go; the device must come to rest with nothing in use.
func (h *history) end() {
	h.must(h.Settle())
	for len(h.guesses) > 0 {
		h.measure()
	}
	h.must(h.Call(h.Core.StopDefragment))
	for i := 1; i <= 6; i++ {
		s := ledger.SessionID(fmt.Sprint("s", i))
		h.Kill(s)
		h.must(h.Call(func() { h.Core.SessionDead(s, h.Now) }))
	}
	h.must(h.CallOver(func() { h.Core.SetOutside(0, limit, h.Now) }))
	for round := 0; round < 100 && (len(h.owed) > 0 || len(h.Live) > 0 || len(h.Tasks) > 0); round++ {
		h.must(h.Settle())
		for len(h.holds)+len(h.fills) > 0 {
			h.letGo()
		}
		for _, g := range h.Grants() {
			h.must(h.Call(func() {
				h.Core.Release(ledger.ReleaseRequest{Grant: g.ID, Tenant: g.Owner.Tenant, Force: true, Why: ledger.WhyDeallocated}, h.Now)
			}))
		}
		h.must(h.Settle())
		h.must(h.Advance(time.Second))
	}
	f := h.Core.Figures()
	exist := int64(0)
	for _, s := range h.Segments {
		exist += s.Bytes
	}
	if f.Used != 0 || f.Grants != 0 || f.Waiting != 0 || f.Pooled != exist || len(h.owed) != 0 {
		h.t.Fatalf("at the end: %+v, %d bytes of segments, unanswered %v", f, exist, h.owed)
	}
	h.must(h.Call(func() { h.Core.Drain(true, h.Now) }))
	h.must(h.Settle())
	if !h.Core.Idle() || len(h.Segments) != 0 {
		h.t.Fatalf("after the drain %d segments are left, idle %v", len(h.Segments), h.Core.Idle())
	}
}

// Random commands, random fates of what they caused, random time: nothing is ever given
// twice, too early or dirty; every request is answered; in the end all comes back.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t, 1<<20)
		for range rapid.IntRange(20, 120).Draw(t, "steps") {
			h.step()
		}
		h.end()
	})
}

// The same with a ledger that fills up: refused commands change nothing.
func TestHistoriesWithAFullLedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t, 12<<10)
		for range rapid.IntRange(20, 80).Draw(t, "steps") {
			h.step()
		}
		h.end()
	})
}
