package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/uuid"

	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/schemas"
)

// The scripts in testdata/scenarios are the specification of a device: each stanza is
// something that happens, and under it is what the device wants done and says. The
// commands are the methods of script below. Rewrite the golden output with
//
//	go test ./ledger -run Scenarios -rewrite
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		s := &script{t: t, grants: map[string]uuid.UUID{}, names: map[uuid.UUID]string{}, tickets: map[string]ledger.Ticket{}, claims: map[string]string{}}
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	*ledgertest.Machine
	t       *testing.T
	grants  map[string]uuid.UUID
	names   map[uuid.UUID]string
	tickets map[string]ledger.Ticket
	claims  map[string]string
	known   map[*ledgertest.Task]bool // tasks that were written down
	out     strings.Builder
}

func (s *script) run(t *testing.T, td *datadriven.TestData) string {
	s.t = t
	s.out.Reset()
	if err := s.do(td); err != nil {
		return "FAILS: " + err.Error() + "\n"
	}
	if s.out.Len() == 0 {
		return "ok\n"
	}
	return s.out.String()
}

// call calls the core and writes down what it wants done.
func (s *script) call(f func()) error { return s.wrote(s.Call(f)) }

func (s *script) wrote(err error) error {
	s.effects()
	return err
}

func (s *script) say(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *script) do(td *datadriven.TestData) error {
	switch td.Cmd {
	case "device":
		return s.device(td)
	case "allocate", "plan":
		return s.allocate(td)
	case "quota":
		return s.quota(td)
	case "tenants":
		s.tenants()
		return nil
	case "release":
		r := ledger.ReleaseRequest{Ref: "release of " + arg(td, 0), Grant: s.grants[arg(td, 0)], Tenant: text(td, "tenant", "red"),
			Force: td.HasArg("force"), Evict: td.HasArg("evict"), For: text(td, "for", ""), Deadline: span(td, "deadline", 0), Why: text(td, "why", ledger.WhyDeallocated)}
		if td.HasArg("key") {
			r.Key = text(td, "key", "")
			r.Answer = func(g *ledger.Grant) ledger.AnswerRecord {
				return ledger.AnswerRecord{Key: r.Key, Action: "deallocate"}
			}
		}
		return s.call(func() { s.Core.Release(r, s.Now) })
	case "handle":
		var err *schemas.Error
		return s.with(&err, func() {
			var claim string
			tenant := text(td, "tenant", "red")
			if _, claim, err = s.Core.HandleFor(s.grants[arg(td, 0)], tenant, text(td, "reader", tenant), s.Now); err == nil {
				s.claims[arg(td, 0)] = claim
			}
		})
	case "map":
		return s.mapGrant(td)
	case "unmap":
		session := ledger.SessionID(text(td, "session", "s1"))
		if !td.HasArg("lie") {
			s.LetGo(session, s.segments(arg(td, 0)))
		}
		var err *schemas.Error
		return s.with(&err, func() { err = s.Core.Unmap(session, s.grants[arg(td, 0)], s.Now) })
	case "close":
		return s.call(func() { s.Core.SessionClosed(ledger.SessionID(arg(td, 0)), s.Now) })
	case "resume":
		held := map[uuid.UUID]bool{}
		for _, a := range td.CmdArgs[1:] {
			held[s.grants[a.Key]] = true
		}
		for name, id := range s.grants {
			if !held[id] {
				s.LetGo(ledger.SessionID(arg(td, 0)), s.segments(name))
			}
		}
		return s.call(func() { s.Core.Resumed(ledger.SessionID(arg(td, 0)), held, s.Now) })
	case "die":
		s.Kill(ledger.SessionID(arg(td, 0)))
		return s.call(func() { s.Core.SessionDead(ledger.SessionID(arg(td, 0)), s.Now) })
	case "exit": // the process is gone, and nobody has noticed yet
		s.Kill(ledger.SessionID(arg(td, 0)))
		return nil
	case "work":
		return s.work(td)
	case "wait":
		d, err := time.ParseDuration(arg(td, 0))
		if err != nil {
			return err
		}
		return s.wrote(s.Advance(d))
	case "renew":
		var err *schemas.Error
		return s.with(&err, func() { _, err = s.Core.Renew(s.grants[arg(td, 0)], "red", span(td, "lease", time.Second), s.Now) })
	case "cancel":
		return s.call(func() {
			s.say("undecided: %v", s.Core.Cancel(s.tickets[arg(td, 0)], schemas.Errorf(schemas.CodeCancelled, "by its client"), s.Now))
		})
	case "no-room":
		return s.call(func() { s.Core.NoRoom(s.tickets[arg(td, 0)], s.Now) })
	case "reclaimable":
		return s.call(func() { s.Core.SetReclaimable(bytes(arg(td, 0)), s.Now) })
	case "limits":
		var limit, models *int64
		if td.HasArg("limit") {
			n := bytes(text(td, "limit", ""))
			limit = &n
		}
		if td.HasArg("models") {
			n := bytes(text(td, "models", ""))
			models = &n
		}
		return s.wrote(s.CallOver(func() { s.Core.SetLimits(limit, models, nil, s.Now) }))
	case "outside":
		return s.wrote(s.CallOver(func() { s.Core.SetOutside(bytes(arg(td, 0)), s.Config.Physical, s.Now) }))
	case "others": // who uses the device by themselves: pid:bytes …
		var list []ledger.Other
		for _, a := range td.CmdArgs {
			pid, err := strconv.Atoi(a.Key)
			if err != nil {
				return err
			}
			list = append(list, ledger.Other{PID: int32(pid), Command: "python", Bytes: bytes(a.Vals[0])})
		}
		return s.call(func() { s.Core.SetOthers(list) })
	case "holders":
		for _, h := range s.Core.HoldersFor(text(td, "tenant", "red"), 9) {
			s.say("%s holds %s", h.Owner, size(h.Bytes))
		}
		if pids, driver := s.Core.Pinned(); len(pids) > 0 || driver > 0 {
			s.say("pinned by %v, by the driver %s", pids, size(driver))
		}
		return nil
	case "filled":
		var err *schemas.Error
		return s.with(&err, func() {
			if err = s.Core.Filled(s.grants[arg(td, 0)], uuid.UUID{}, nil, s.Now); err == nil {
				s.Overwritten(s.grants[arg(td, 0)])
			}
		})
	case "fill-failed":
		return s.call(func() { s.Core.FillFailed(s.grants[arg(td, 0)], s.Now) })
	case "seal":
		return s.call(func() { s.Core.Seal(s.grants[arg(td, 0)]) })
	case "drain":
		return s.call(func() {
			stay, n := s.Core.Drain(td.HasArg("all"), s.Now)
			s.say("%d grants of %s stay", stay, size(n))
		})
	case "trim":
		return s.call(func() { s.Core.Trim("trim", bytes(arg(td, 0)), s.Now) })
	case "crash":
		return s.crash(td)
	case "show":
		s.state()
		return nil
	}
	return fmt.Errorf("unknown command %q", td.Cmd)
}

func (s *script) with(refusal **schemas.Error, f func()) error {
	err := s.call(f)
	if *refusal != nil {
		s.say("refused: %s: %s", (*refusal).Code, (*refusal).Message)
	}
	return err
}

func (s *script) device(td *datadriven.TestData) error {
	cfg := ledgertest.Settings(bytes(text(td, "limit", "1MiB")))
	cfg.PoolBytes = bytes(text(td, "pool", "0"))
	cfg.PoolHalfLife = span(td, "half-life", 0)
	cfg.MaxQueue = int(bytes(text(td, "queue", "8")))
	cfg.Overdue, cfg.EndGrace = ledger.Overdue(text(td, "overdue", "")), span(td, "grace", 5*time.Second)
	cfg.BySessions = td.HasArg("by-sessions")
	if !td.HasArg("warm") {
		cfg.Warm = nil
	}
	m, err := ledgertest.NewMachine(cfg, int(bytes(text(td, "ledger", "1MiB"))))
	s.Machine, s.known = m, map[*ledgertest.Task]bool{}
	clear(s.tickets)
	if err != nil {
		return err
	}
	return s.wrote(s.Advance(0))
}

func (s *script) allocate(td *datadriven.TestData) error {
	name := arg(td, 0)
	r := &ledger.Request{Ref: name, Owner: ledger.Owner{Tenant: text(td, "tenant", "red"), UID: 7, Session: ledger.SessionID(text(td, "session", ""))},
		Class: ledger.Class(text(td, "class", "scratch")), Size: bytes(text(td, "size", "16KiB")), Patience: span(td, "patience", 30*time.Second),
		Lease: span(td, "lease", 0), Persistent: td.HasArg("persistent"), Filling: td.HasArg("filling"), Clear: td.HasArg("clear"), Key: text(td, "key", ""), Model: text(td, "model", "")}
	r.Priority, _ = strconv.Atoi(text(td, "priority", "0"))
	if r.Class == ledger.ClassWeights {
		r.Segments, r.Unclaimed, r.Persistent = []int64{r.Size}, true, true
		if n := bytes(text(td, "pieces", "1")); n > 1 {
			r.Segments = slices.Repeat([]int64{r.Size / n}, int(n))
		}
	}
	if r.Key != "" {
		r.Answer = func(g *ledger.Grant) ledger.AnswerRecord {
			return ledger.AnswerRecord{Key: r.Key, Action: "allocate", Grant: g.ID, Body: []byte(name)}
		}
	}
	if td.Cmd == "plan" {
		p := s.Core.Plan(r, s.Now)
		s.say("%s, position %d, lacks %s: %s", p.Outcome, p.Position, size(p.Lacks), p.Reason)
		return nil
	}
	s.tickets[name] = 0
	return s.call(func() { s.tickets[name] = s.Core.Allocate(r, s.Now) })
}

func (s *script) mapGrant(td *datadriven.TestData) error {
	var err *schemas.Error
	uid, _ := strconv.Atoi(text(td, "uid", "7"))
	session := ledger.SessionID(text(td, "session", "s1"))
	return s.with(&err, func() {
		err = s.Core.Map(ledger.MapRequest{Session: session, PID: ledgertest.PID(session), UID: uint32(uid), Tenant: text(td, "tenant", ""),
			Digest: ledger.DigestOf(s.claims[arg(td, 0)]), Mode: ledger.Mode(text(td, "mode", "rw"))}, s.Now)
	})
}

// work does tasks and tells of them: the next one, the next of a kind, or all there are.
func (s *script) work(td *datadriven.TestData) error {
	kind := ""
	if len(td.CmdArgs) > 0 {
		kind = td.CmdArgs[0].Key
	}
	for n := 0; ; n++ {
		var next *ledgertest.Task
		for _, t := range s.Tasks {
			if kind == "" || kind == "all" || kinds[t.Kind] == kind {
				next = t
				break
			}
		}
		switch {
		case next == nil && n == 0:
			return errors.New("nothing to do")
		case next == nil:
			return nil
		}
		var fail error
		switch {
		case td.HasArg("fails"):
			fail = ledgertest.ErrDriver
		case td.HasArg("pinned"):
			fail = ledgertest.ErrPinned
		case td.HasArg("exhausted"):
			fail = ledgertest.ErrExhausted
		}
		if !next.Done {
			s.Do(next, fail)
		}
		if td.HasArg("untold") {
			return nil
		}
		if err := s.wrote(s.Tell(next)); err != nil || kind != "all" {
			return err
		}
	}
}

// crash ends the node at this moment, and a successor takes over.
func (s *script) crash(td *datadriven.TestData) error {
	next, rep, err := s.TakeOver(s.Cut())
	if err != nil {
		return err
	}
	s.Machine, s.known = next, map[*ledgertest.Task]bool{}
	clear(s.tickets)
	s.say("restored: %d grants, %d segments, %d lost, %d undone, %d answers", rep.Grants, rep.Segments, len(rep.Lost), len(rep.Undone), len(rep.Answers))
	for _, a := range rep.Answers {
		s.say("answer %q: %s %s", a.Key, a.Action, a.Body)
	}
	s.effects()
	return nil
}

var kinds = map[ledger.JobKind]string{
	ledger.JobCreate: "create", ledger.JobClear: "clear", ledger.JobWarm: "warm", ledger.JobScrub: "scrub", ledger.JobProve: "prove",
	ledger.JobDestroy: "destroy", ledger.JobExport: "export", ledger.JobSeal: "seal", ledger.JobHolders: "find-holders",
	ledger.JobVacate: "vacate",
}

// effects writes down what the core said and wants.
func (s *script) effects() {
	for _, o := range s.Heard {
		s.outcome(o)
	}
	s.Heard = s.Heard[:0]
	for _, e := range s.Events {
		if e.Kind == ledger.EventAllocated || e.Kind == ledger.EventRefused || e.Kind == ledger.EventQueued {
			continue // as the outcome says
		}
		s.say("event: %s %s %s: %s %v", e.Kind, s.name(e.Grant), size(e.Bytes), e.Reason, e.PIDs)
	}
	for _, r := range s.Revokes {
		s.say("revoke: %s of %s within %v: %s", s.name(r.Grant), r.Session, r.Deadline.Sub(s.Now.Boot), r.Reason)
	}
	for _, e := range s.Ends {
		s.say("%s: pid %d of %s, for %s", map[bool]string{false: "end", true: "kill"}[e.Kill], e.PID, e.Session, s.name(e.Grant))
	}
	for _, r := range s.Readers {
		s.say("reader: %s of %s, gone: %v", r.Session, r.Model, r.Gone)
	}
	s.Events, s.Revokes, s.Ends, s.Readers = nil, nil, nil, nil
	for _, w := range s.Wants {
		s.say("want: %s for %s (%s)", size(w.Bytes), s.ticket(w.Ticket), w.Reason)
	}
	s.Wants = nil
	for _, t := range s.Tasks {
		if s.known[t] {
			continue
		}
		s.known[t] = true
		var on []string
		for _, r := range t.Ranges {
			on = append(on, fmt.Sprintf("%d:%s", r.Segment, size(r.Bytes)))
			if t.Unclear || t.Kind == ledger.JobClear && r.Length < r.Bytes {
				on[len(on)-1] += fmt.Sprintf(" zero from %s on", size(r.Offset))
			}
		}
		whom := ""
		switch {
		case t.Ticket != 0:
			whom = " for " + s.ticket(t.Ticket)
		case t.Grant != uuid.Nil:
			whom = " for " + s.name(t.Grant)
		}
		s.say("job: %s%s [%s]", kinds[t.Kind], whom, strings.Join(on, " "))
	}
}

func (s *script) outcome(o ledger.Outcome) {
	switch o.Kind {
	case ledger.OutcomeGranted:
		name := o.Ref.(string)
		s.grants[name], s.names[o.Grant.ID], s.claims[name] = o.Grant.ID, name, o.Claim
		s.say("granted: %s %s in %v", name, size(o.Grant.Granted), blocks(o.Grant.Blocks))
	case ledger.OutcomeQueued:
		s.say("queued: %v at %d: %s", o.Ref, o.Position, o.Reason)
	case ledger.OutcomeRefused:
		s.say("refused: %v: %s: %s", o.Ref, o.Err.Code, o.Err.Message)
	case ledger.OutcomeTrimmed:
		s.say("trimmed: freed %s", size(o.Freed))
	case ledger.OutcomeReleased:
		s.say("released: %v: freed %s, zombie %s, confirmed %v", o.Ref, size(o.Freed), size(o.Zombie), o.Confirmed)
	}
}

func blocks(bs []heap.Block) []string {
	out := make([]string, len(bs))
	for i, b := range bs {
		out[i] = fmt.Sprintf("%d+%s:%s", b.Segment, size(b.Offset), size(b.Bytes))
	}
	return out
}

// state writes down what there is.
func (s *script) state() {
	f := s.Core.Figures()
	s.say("limit %s = used %s + free %s + pooled %s", size(f.Limit), size(f.Used), size(f.Free), size(f.Pooled))
	s.say("used = granted %s + reserved %s + revoking %s + zombie %s + foreign %s", size(f.Granted), size(f.Reserved), size(f.Revoking), size(f.Zombie), size(f.Foreign))
	if f.Deficit != 0 || f.Models != 0 {
		s.say("deficit %s, models %s", size(f.Deficit), size(f.Models))
	}
	for _, l := range s.Machine.Grants() {
		g, _ := s.Core.Grant(l.ID)
		var who []string
		for _, m := range g.Mappers {
			who = append(who, string(m.Session)+":"+string(m.Mode))
		}
		s.say("grant %s: %s %s, mapped by %v, ends with %q", s.name(g.ID), g.Status, size(g.Granted), who, cond(g.Bound, string(g.Owner.Session)))
	}
	s.Core.Waiting(func(position int, r *ledger.Request) { s.say("waits %d: %v: %s", position, r.Ref, r.Reason()) })
}

func cond(c bool, s string) string {
	if c {
		return s
	}
	return ""
}

func (s *script) name(id uuid.UUID) string {
	if n, ok := s.names[id]; ok {
		return n
	}
	return id.String()
}

func (s *script) ticket(t ledger.Ticket) string {
	for n, x := range s.tickets {
		if x == t {
			return n
		}
	}
	return fmt.Sprintf("#%d", t)
}

func (s *script) segments(name string) []heap.SegmentID {
	if l := s.Live[s.grants[name]]; l != nil {
		return l.Segments
	}
	return nil
}

func arg(td *datadriven.TestData, i int) string {
	if i < len(td.CmdArgs) {
		return td.CmdArgs[i].Key
	}
	return ""
}

func text(td *datadriven.TestData, key, absent string) string {
	for _, a := range td.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return absent
}

func span(td *datadriven.TestData, key string, absent time.Duration) time.Duration {
	d, err := time.ParseDuration(text(td, key, absent.String()))
	if err != nil {
		panic(err)
	}
	return d
}

func bytes(s string) int64 {
	unit := int64(1)
	if n, ok := strings.CutSuffix(s, "KiB"); ok {
		s, unit = n, 1<<10
	} else if n, ok := strings.CutSuffix(s, "MiB"); ok {
		s, unit = n, 1<<20
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n * unit
}

func size(n int64) string {
	if n%1024 == 0 && n != 0 {
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return strconv.FormatInt(n, 10)
}
