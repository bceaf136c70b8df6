package ledgertest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// Mixed is the content of a segment whose bytes may be anybody's.
const Mixed = "?"

// Segment is a physical handle of the machine.
type Segment struct {
	Bytes   int64
	Weights bool
	// Content is the trust domain whose bytes it may hold; empty: zeros.
	Content string
	// Open counts the descriptions that each session's process has.
	Open map[ledger.SessionID]int
}

// Task is a job on its way: given out, then done, then told to the core.
type Task struct {
	ledger.Job
	Done bool
	Fail error // of the driver
	ok   bool  // JobProve, JobVacate
	back bool  // JobDestroy: of what is owed
	pids []int32
}

// Machine is a device with its core.
type Machine struct {
	Core   *ledger.Device
	Config ledger.DeviceConfig
	Region *store.Region
	Mem    []byte
	Now    ledger.Now
	// Segments exist on the device and in the vault; Tasks are under way, by age.
	Segments map[heap.SegmentID]*Segment
	Tasks    []*Task
	// Owed were destroyed, and their bytes are not back. The task that has them back is among
	// Tasks.
	Owed map[heap.SegmentID]*Segment
	// Dead processes hold nothing; their sessions may not have ended yet.
	Dead map[ledger.SessionID]bool
	// Live are the grants that were answered and have not ended.
	Live map[uuid.UUID]*Live
	// Wants are what the core asked of the optimizer.
	Wants []ledger.Want
	// Outcomes and the rest are of the last call; Heard are all outcomes since the test
	// last emptied it, and Final is the last one of each Ref.
	Outcomes []ledger.Outcome
	Heard    []ledger.Outcome
	Events   []ledger.Event
	Revokes  []ledger.Revoke
	Ends     []ledger.End
	Readers  []ledger.Reader
	Final    map[any]ledger.Outcome

	random uint64
	before []waiting
	held   []*ledger.Request // before the call, beside the line
	bound  map[string]int64  // of each tenant with a quota
	free   int64
	other  int64 // foreign bytes
	moves  bool  // the call may change the order
}

// Live is a grant as its client knows it.
type Live struct {
	ID       uuid.UUID
	Owner    ledger.Owner
	Class    ledger.Class
	Model    string
	Claim    string
	Segments []heap.SegmentID
	Domain   string
}

type waiting struct {
	ticket ledger.Ticket
	tenant string
	*ledger.Request
}

// Settings are those of a small device: pages of 4 KiB, classes of 16 and 64 KiB, own
// segments from 64 KiB, none larger than 256 KiB.
func Settings(limit int64) ledger.DeviceConfig {
	return ledger.DeviceConfig{
		Device: "ram-0", Type: "RAM", Physical: limit, Limit: limit,
		Heap: heap.Config{Classes: []int64{16 << 10, 64 << 10}, OwnSegmentBytes: 64 << 10, MaxSegmentBytes: 256 << 10},
		Warm: []ledger.WarmClass{{Bytes: 16 << 10, Keep: 2}}, PoolBytes: limit / 4, MaxQueue: 8,
	}
}

// NewMachine starts an empty device with a ledger of the given size.
func NewMachine(cfg ledger.DeviceConfig, ledgerBytes int) (*Machine, error) {
	m := &Machine{Mem: make([]byte, ledgerBytes), Segments: map[heap.SegmentID]*Segment{}, Owed: map[heap.SegmentID]*Segment{}, Dead: map[ledger.SessionID]bool{},
		Live: map[uuid.UUID]*Live{}, Final: map[any]ledger.Outcome{},
		Now: ledger.Now{Boot: clock.Instant(time.Hour), Wall: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}
	for _, b := range []byte(cfg.Device) {
		m.random = m.random*31 + uint64(b) // devices do not make the same ids
	}
	cfg.Rand = m.fill
	cfg.NewID = m.newID
	m.Config = cfg
	region, err := store.Format(m.Mem, "device/"+cfg.Device)
	if err != nil {
		return nil, err
	}
	m.Region = region
	m.Core = ledger.NewDevice(cfg, region)
	return m, nil
}

// fill is predictable: tests want the same ids in every run.
func (m *Machine) fill(b []byte) {
	for i := range b {
		m.random = m.random*6364136223846793005 + 1442695040888963407
		b[i] = byte(m.random >> 56)
	}
}

func (m *Machine) newID() uuid.UUID {
	var id uuid.UUID
	m.random++
	binary.BigEndian.PutUint64(id[8:], m.random)
	m.fill(id[:4])
	return id
}

// Advance moves time and lets the core do what is due.
func (m *Machine) Advance(d time.Duration) error {
	m.Now.Boot, m.Now.Wall = m.Now.Boot.Add(d), m.Now.Wall.Add(d)
	return m.Call(func() { m.Core.Tick(m.Now) })
}

// Call calls the core and checks what must hold after it. Limits may be lowered and
// others may grow only through CallOver.
func (m *Machine) Call(f func()) error { return m.call(f, false) }

// CallOver is Call for what may leave the device over its limit.
func (m *Machine) CallOver(f func()) error { return m.call(f, true) }

// Measure tells the core the true size of an estimated request, which is charged to its tenant:
// that may move others in line.
func (m *Machine) Measure(t ledger.Ticket, segments []int64) error {
	m.moves = true
	defer func() { m.moves = false }()
	return m.Call(func() { m.Core.Measure(t, segments, m.Now) })
}

func (m *Machine) call(f func(), over bool) error {
	m.before, m.held = m.before[:0], m.held[:0]
	m.Core.Waiting(func(_ int, r *ledger.Request) {
		if r.Held() {
			m.held = append(m.held, r)
		} else {
			m.before = append(m.before, waiting{r.Ticket(), r.Owner.Tenant, r})
		}
	})
	were := m.Core.Figures()
	m.free, m.other = were.Free, were.Foreign
	m.bound = map[string]int64{}
	for _, t := range m.Core.Tenants() {
		m.bound[t.Tenant] = t.Used
	}
	f()
	return m.After(over)
}

// After takes the core's effects and says what of it must never be:
//
//   - the core contradicts itself (Device.Check);
//   - more is given than the limit leaves, unless over says that it may be;
//   - a grant holds another owner's bytes, or what another has open;
//   - memory is given up while somebody has it open;
//   - a request is served before one that is before it in line;
//   - a request is refused for want of room that is there;
//   - a tenant gets past its hard quota, or another what is kept for its floor.
func (m *Machine) After(over bool) error {
	e := m.Core.Take()
	m.Outcomes = append([]ledger.Outcome(nil), e.Outcomes...)
	m.Events = append([]ledger.Event(nil), e.Events...)
	m.Revokes = append([]ledger.Revoke(nil), e.Revokes...)
	m.Ends = append(m.Ends, e.Ends...)
	m.Readers = append([]ledger.Reader(nil), e.Readers...)
	m.Wants = append(m.Wants, e.Wants...)
	for _, j := range e.Jobs {
		j.Ranges = append([]ledger.Range(nil), j.Ranges...)
		j.Moves = append([]heap.Move(nil), j.Moves...)
		j.Info = nil
		m.Tasks = append(m.Tasks, &Task{Job: j})
		if j.Kind == ledger.JobDestroy {
			if err := m.unused(j); err != nil {
				return err
			}
		}
	}
	for _, o := range m.Outcomes {
		m.Final[o.Ref] = o
		m.Heard = append(m.Heard, o)
		if o.Kind == ledger.OutcomeGranted {
			if err := m.granted(o); err != nil {
				return err
			}
		}
	}
	for _, ev := range m.Events {
		if ev.Kind == ledger.EventMoved {
			if err := m.moved(ev.Grant); err != nil {
				return err
			}
		}
		if ev.Kind == ledger.EventDeallocated || ev.Kind == ledger.EventExpired {
			delete(m.Live, ev.Grant)
		}
	}
	if err := m.Core.Check(); err != nil {
		return err
	}
	f := m.Core.Figures()
	// What a reservation's tree uses is foreign when the reservation ends.
	if grew := max(0, f.Foreign-m.other); !over && f.Free < min(0, m.free)-grew {
		return fmt.Errorf("%d bytes were free, now %d: over the limit", m.free, f.Free)
	}
	if err := m.quotas(f, over); err != nil {
		return err
	}
	exist := int64(0)
	for _, s := range m.Segments {
		exist += s.Bytes
	}
	for _, s := range m.Owed {
		exist += s.Bytes
	}
	if most := f.Used + f.Pooled - f.Foreign; exist > most {
		return fmt.Errorf("%d bytes of segments exist, the books know of %d", exist, most)
	}
	if err := m.inOrder(); err != nil {
		return err
	}
	return nil
}

// quotas checks that nobody passed a hard quota, and that what the tenants have, and what
// is kept for them, is in the sums. What is kept for floors is part of what is used, so
// that the check of the free bytes is one of the floors too.
func (m *Machine) quotas(f ledger.Figures, over bool) error {
	var kept int64
	for _, t := range m.Core.Tenants() {
		if had, ok := m.bound[t.Tenant]; ok && !over && t.Hard > 0 && t.Used > max(t.Hard, had) {
			return fmt.Errorf("tenant %s has %d bytes, may have %d, and had %d", t.Tenant, t.Used, t.Hard, had)
		}
		kept += max(0, t.Floor-t.Used)
	}
	if f.Reserved < kept {
		return fmt.Errorf("%d bytes are kept for floors, %d are reserved in all", kept, f.Reserved)
	}
	return nil
}

// granted takes note of a grant and checks that its memory may be its owner's.
func (m *Machine) granted(o ledger.Outcome) error {
	g := o.Grant
	l := &Live{ID: g.ID, Owner: g.Owner, Class: g.Class, Model: g.Model, Claim: o.Claim, Domain: fmt.Sprintf("%s/%d", g.Owner.Tenant, g.Owner.UID)}
	for _, b := range g.Blocks {
		s := m.Segments[b.Segment]
		switch {
		case s == nil:
			return fmt.Errorf("grant %s lies in segment %d, which does not exist", g.ID, b.Segment)
		case s.Content != "" && s.Content != l.Domain && !g.Filling:
			return fmt.Errorf("grant %s of %s got segment %d with bytes of %s", g.ID, l.Domain, b.Segment, s.Content)
		}
		for session := range s.Open {
			if !m.sameDomain(session, b.Segment, l.Domain) {
				return fmt.Errorf("grant %s of %s got segment %d, which session %s has open", g.ID, l.Domain, b.Segment, session)
			}
		}
		if !g.Filling || s.Content == "" {
			s.Content = l.Domain
		}
		l.Segments = append(l.Segments, b.Segment)
	}
	m.Live[g.ID] = l
	return nil
}

// moved takes note of a grant's new places and checks that they may be its owner's.
func (m *Machine) moved(id uuid.UUID) error {
	g, ok := m.Core.Grant(id)
	l := m.Live[id]
	if !ok || l == nil {
		return fmt.Errorf("grant %s was moved and is not there", id)
	}
	l.Segments = nil
	for _, b := range g.Blocks {
		if s := m.Segments[b.Segment]; s == nil || s.Content != l.Domain {
			return fmt.Errorf("grant %s of %s was moved to segment %d: %+v", id, l.Domain, b.Segment, s)
		}
		l.Segments = append(l.Segments, b.Segment)
	}
	return nil
}

// sameDomain reports whether a session opened a segment under the same owner: the shared
// segments of one trust domain stay with it.
func (m *Machine) sameDomain(_ ledger.SessionID, id heap.SegmentID, domain string) bool {
	return m.Segments[id].Content == domain
}

// unused checks that nobody has what is about to be destroyed.
func (m *Machine) unused(j ledger.Job) error {
	for _, r := range j.Ranges {
		if s := m.Segments[r.Segment]; s != nil && len(s.Open) > 0 {
			return fmt.Errorf("segment %d is given up while %d sessions have it open", r.Segment, len(s.Open))
		}
	}
	return nil
}

// ErrDriver is a failure of the driver that is not want of memory.
var ErrDriver = errors.New("the driver failed")

// ErrExhausted is the driver's want of memory.
var ErrExhausted = errors.New("the driver is out of memory")

// Do carries out a task with the machine; the core hears of it by Tell.
func (m *Machine) Do(t *Task, fail error) {
	t.Done, t.Fail = true, fail
	switch t.Kind {
	case ledger.JobCreate, ledger.JobWarm:
		if fail == nil {
			for _, r := range t.Ranges {
				s := &Segment{Bytes: r.Bytes, Weights: t.Weights, Open: map[ledger.SessionID]int{}}
				if t.Unclear {
					s.Content = Mixed
				}
				m.Segments[r.Segment] = s
			}
		}
	case ledger.JobClear, ledger.JobScrub:
		for _, r := range t.Ranges {
			s := m.Segments[r.Segment]
			switch {
			case fail != nil && s.Content != "":
			case r.Length == s.Bytes:
				s.Content = ""
			}
		}
	case ledger.JobProve, ledger.JobVacate:
		t.ok = fail == nil
		for _, r := range t.Ranges {
			t.ok = t.ok && (t.Kind == ledger.JobVacate && !t.Prove || len(m.Segments[r.Segment].Open) == 0)
		}
	case ledger.JobHolders:
		for _, r := range t.Ranges {
			if seg := m.Segments[r.Segment]; seg != nil { // it may be gone by now
				for s := range seg.Open {
					t.pids = append(t.pids, PID(s))
				}
			}
		}
	case ledger.JobExport:
		if fail == nil && !m.Dead[t.Session] {
			for _, r := range t.Ranges {
				m.Segments[r.Segment].Open[t.Session]++
			}
		}
	case ledger.JobDestroy:
		for i, r := range t.Ranges {
			delete(m.Owed, r.Segment)
			if i == 0 && fail != nil {
				m.Owed[r.Segment] = m.Segments[r.Segment]
			}
			delete(m.Segments, r.Segment)
		}
	}
}

// Tell reports a task that is done to the core.
func (m *Machine) Tell(t *Task) error {
	for i, x := range m.Tasks {
		if x == t {
			m.Tasks = append(m.Tasks[:i:i], m.Tasks[i+1:]...)
			break
		}
	}
	// What does not come back is as if others grew: floors may have counted on it.
	return m.call(func() {
		switch t.Kind {
		case ledger.JobCreate, ledger.JobClear:
			m.Core.Prepared(t.Ticket, t.Kind, t.Fail, errors.Is(t.Fail, ErrExhausted), m.Now)
		case ledger.JobWarm:
			m.Core.Warmed(t.Ranges[0], t.Fail, m.Now)
		case ledger.JobScrub:
			m.Core.Scrubbed(t.Ranges[0].Segment, t.Fail, m.Now)
		case ledger.JobProve:
			m.Core.Proved(t.Grant, t.ok, m.Now)
		case ledger.JobVacate:
			m.Core.Vacated(t.ok, m.Now)
		case ledger.JobDestroy:
			m.destroyed(t)
		case ledger.JobExport:
			m.Core.Exported(t.Grant, t.Session, t.Fail != nil, m.Now)
		case ledger.JobSeal:
			m.Core.SealDone(t.Grant, m.Now)
		case ledger.JobHolders:
			if t.Fail != nil {
				m.Core.HoldersUnknown(t.Grant, m.Now)
				return
			}
			holders := make([]ledger.Holder, 0, len(t.pids))
			for _, p := range t.pids {
				holders = append(holders, ledger.Holder{PID: p})
			}
			m.Core.HoldersFound(t.Grant, holders, m.Now)
		}
	}, t.Kind == ledger.JobDestroy && t.Fail != nil)
}

// Settle does and tells every task until none is left.
func (m *Machine) Settle() error {
	for n := 0; len(m.Tasks) > 0; n++ {
		if n > 100000 {
			return fmt.Errorf("the core never comes to rest: %+v", m.Tasks[0].Job)
		}
		t := m.Tasks[0]
		if !t.Done {
			m.Do(t, nil)
		}
		if err := m.Tell(t); err != nil {
			return err
		}
	}
	return nil
}

// LetGo has a session's process close what it has of a grant.
func (m *Machine) LetGo(s ledger.SessionID, segments []heap.SegmentID) {
	for _, id := range segments {
		seg := m.Segments[id]
		if seg == nil || seg.Open[s] == 0 {
			continue
		}
		if seg.Open[s]--; seg.Open[s] == 0 {
			delete(seg.Open, s)
		}
	}
}

// Kill ends a session's process: the kernel closes all it had. The core has still to be
// told (SessionClosed, SessionDead).
func (m *Machine) Kill(s ledger.SessionID) {
	m.Dead[s] = true
	for _, seg := range m.Segments {
		delete(seg.Open, s)
	}
}

// PID is the process of a session named like "s7".
func PID(s ledger.SessionID) int32 {
	var n int32
	fmt.Sscanf(string(s), "s%d", &n)
	return 1000 + n
}

// Grants lists the live grants by id.
func (m *Machine) Grants() []*Live {
	out := make([]*Live, 0, len(m.Live))
	for _, l := range m.Live {
		out = append(out, l)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID.String() < out[j].ID.String() })
	return out
}
