package actors

import (
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// sessionsActor owns the data-socket sessions, the commands whose outcome is remembered,
// and the operations: commands that were not done at once.
type sessionsActor struct {
	inbox
	house    *House
	core     *ledger.Sessions
	answers  *ledger.Answers
	ops      map[string]*operation
	byReq    map[string]*operation // by answer key
	ended    []*operation          // in the order of their end
	conns    map[ledger.SessionID]*connection
	offers   *ledger.Offers // of *offered
	restored []ledger.Session
}

// connection is what ties a session to its process and its socket.
type connection struct {
	conn  dataplane.Conn
	pidfd *os.File
	stop  func()
	// welcomed is true once the client has been answered; what it is asked to let go of
	// before that waits in early, because the answer is the first that it may hear.
	welcomed bool
	early    []ledger.Revoke
}

// housekeeping is how often outcomes and operations whose time has passed are dropped.
const housekeeping = 5 * time.Second

func (h *House) openSessions() error {
	s := h.sessionsOf()
	cfg := ledger.SessionsConfig{Random: h.cfg.Random, NewID: uuid.NewString, ResumeGrace: h.cfg.ResumeGrace, Limit: h.cfg.MaxSessions}
	mem, inherited, err := h.memory("sessions")
	if err != nil {
		return err
	}
	if !inherited {
		region, err := h.format(mem, "sessions")
		if err != nil {
			return err
		}
		s.core = ledger.NewSessions(cfg, region)
		return nil
	}
	s.core, s.restored, err = ledger.RestoreSessions(cfg, mem, h.now())
	if err == nil && h.stored != nil {
		s.core.Observe(h.stored)
	}
	h.restored.Sessions = len(s.restored)
	return err
}

// sessionsOf makes the sessions actor's state; answers found in other regions come before
// its own region is opened.
func (h *House) sessionsOf() *sessionsActor {
	if h.sessions == nil {
		h.sessions = &sessionsActor{house: h, answers: ledger.NewAnswers(h.cfg.KeepAnswers, h.cfg.MaxAnswers),
			ops: map[string]*operation{}, byReq: map[string]*operation{}, conns: map[ledger.SessionID]*connection{},
			offers: ledger.NewOffers(h.cfg.Random)}
	}
	return h.sessions
}

func (h *House) inheritAnswers(home string, recs []ledger.AnswerRecord) {
	s := h.sessionsOf()
	for _, r := range recs {
		s.answers.Restore(home, r)
	}
}

// begin ends the inherited sessions whose process is dead, watches the others, and starts
// the housekeeping.
func (s *sessionsActor) begin() {
	for _, x := range s.restored {
		pidfd, err := s.house.cfg.Find(int(x.Process.PID), x.Process.Start)
		if err != nil {
			s.dead(x.ID)
			continue
		}
		s.watch(x.ID, pidfd)
		if x.Closed {
			s.tellDevices(func(d *deviceActor) { d.sessionClosed(x.ID) })
		}
	}
	s.restored = nil
	s.endUnknown()
	s.keepHouse()
}

// endUnknown ends the sessions that only grants and references speak of: a predecessor
// died between forgetting a session, whose process had exited, and telling the others.
func (s *sessionsActor) endUnknown() {
	for id := range s.house.bearers {
		if !s.core.Known(id) {
			s.tellDevices(func(d *deviceActor) { d.sessionDead(id) })
			s.house.pool.sessionGone(id)
		}
	}
	s.house.bearers = nil
}

func (s *sessionsActor) keepHouse() {
	now := s.house.now().Boot
	for home, keys := range s.answers.Expire(now) {
		if home == "pool" {
			s.house.pool.forgetAnswers(keys)
			continue
		}
		for _, d := range s.house.devices {
			if "device/"+d.id == home {
				d.forgetAnswers(keys)
			}
		}
	}
	s.forgetOperations(now)
	letGo(s.offers.Expire(now))
	for _, id := range s.core.Overdue(now) {
		s.house.log.Info("a session was not resumed in time", "session", id)
		s.close(id)
	}
	s.house.cfg.Clock.AfterFunc(housekeeping, func() { s.tell(seam.SystemLane, s.keepHouse) })
}

func (s *sessionsActor) watch(id ledger.SessionID, pidfd *os.File) {
	stop, err := s.house.cfg.Watch(pidfd, func() { s.tell(seam.SystemLane, func() { s.dead(id) }) })
	if err != nil {
		s.house.log.Error("a process cannot be watched", "session", id, "error", err)
		stop = func() {}
	}
	if c := s.conns[id]; c != nil {
		c.stop()
		c.pidfd.Close()
	}
	s.conns[id] = &connection{pidfd: pidfd, stop: stop}
}

// dead is the exit of a session's process.
func (s *sessionsActor) dead(id ledger.SessionID) {
	if !s.core.Dead(id) {
		return
	}
	if c := s.conns[id]; c != nil {
		delete(s.conns, id)
		c.stop()
		c.pidfd.Close()
		if c.conn != nil {
			c.conn.Close()
		}
	}
	letGo(s.offers.SessionGone(id))
	s.tellDevices(func(d *deviceActor) { d.sessionDead(id) })
	s.house.pool.sessionGone(id)
}

// close is a session's end-of-file.
func (s *sessionsActor) close(id ledger.SessionID) {
	if !s.core.Close(id) {
		return
	}
	if c := s.conns[id]; c != nil {
		c.conn = nil
	}
	letGo(s.offers.SessionGone(id))
	s.tellDevices(func(d *deviceActor) { d.sessionClosed(id) })
	s.house.pool.sessionGone(id)
}

func (s *sessionsActor) tellDevices(f func(*deviceActor)) {
	for _, d := range s.house.devices {
		f(d)
	}
}

// revoke pushes a revocation to a session's client. One that is away is asked by the
// device when it comes back.
func (s *sessionsActor) revoke(r ledger.Revoke) {
	s.tell(seam.SystemLane, func() {
		switch c := s.conns[r.Session]; {
		case c == nil || c.conn == nil:
		case !c.welcomed:
			c.early = append(c.early, r)
		default:
			s.push(c, r)
		}
	})
}

func (s *sessionsActor) push(c *connection, r ledger.Revoke) {
	c.conn.Revoke(r.Grant.String(), max(0, r.Deadline.Sub(s.house.cfg.Clock.Now())), r.Reason)
}

// welcome answers a hello, and asks for what was to be revoked meanwhile.
func (s *sessionsActor) welcome(c *connection, w dataplane.Welcome, done func(dataplane.Welcome, error)) {
	done(w, nil)
	c.welcomed = true
	for _, r := range c.early {
		if c.conn != nil {
			s.push(c, r)
		}
	}
	c.early = nil
}

// DataDesk is the house as the data socket sees it.
func (h *House) DataDesk(natsURL func() string) dataplane.Desk { return &dataDesk{h, natsURL} }

type dataDesk struct {
	house   *House
	natsURL func() string
}

// Hello implements dataplane.Desk.
func (k *dataDesk) Hello(peer fdwire.Peer, hello dataplane.Hello, conn dataplane.Conn, done func(dataplane.Welcome, error)) {
	s := k.house.sessions
	err := s.tell(seam.GrantLane, func() {
		p := ledger.Process{PID: int32(peer.PID), Start: peer.StartTime, UID: peer.UID}
		w := dataplane.Welcome{Node: k.house.cfg.Node, BootID: k.house.cfg.BootID, NATSURL: k.natsURL()}
		var x *ledger.Session
		var fail *schemas.Error
		switch {
		case k.house.draining.Load():
			fail = schemas.Errorf(schemas.CodeDraining, "the node is stopping")
		case hello.SessionID != "":
			x, w.ResumeToken, fail = s.core.Resume(ledger.SessionID(hello.SessionID), hello.ResumeToken, p)
			w.Resumed = fail == nil
		default:
			x, w.ResumeToken, fail = s.core.Open(p)
		}
		if fail != nil {
			peer.Close()
			done(dataplane.Welcome{}, fail)
			return
		}
		w.SessionID = string(x.ID)
		if old := s.conns[x.ID]; old != nil && old.conn != nil {
			old.conn.Close() // a newer connection speaks for the session
		}
		s.watch(x.ID, peer.PidFD)
		c := s.conns[x.ID]
		c.conn = conn
		if hello.Held == nil && !w.Resumed { // it maps nothing, and says nothing of that
			s.welcome(c, w, done)
			return
		}
		s.lost(x.ID, hello.Held, w.Resumed, func(lost []string) {
			w.Lost = lost
			s.tell(seam.SystemLane, func() { s.welcome(c, w, done) })
		})
	})
	if err != nil {
		peer.Close()
		done(dataplane.Welcome{}, busy("the node"))
	}
}

// lost asks the devices which of a resuming session's grants are no longer its own, and
// tells them that it maps no others, unless held is nil.
func (s *sessionsActor) lost(id ledger.SessionID, held []string, resumed bool, use func([]string)) {
	find := func(d *deviceActor) map[string]bool {
		mine := map[string]bool{}
		var maps map[uuid.UUID]bool
		if held != nil {
			maps = map[uuid.UUID]bool{}
		}
		for _, h := range held {
			at, u, err := s.house.deviceOfID(h)
			if err != nil || at != d {
				continue
			}
			maps[u] = true
			if g, ok := d.core.Grant(u); ok && g.Maps(id) {
				mine[h] = true
			}
		}
		if resumed {
			d.core.Resumed(id, maps, s.house.now())
			d.flush()
		}
		return mine
	}
	// Not to be refused: the client's old token is void already.
	askOn(s.house, seam.SystemLane, s.house.devices, find, func(parts []map[string]bool, _ *schemas.Error) {
		lost := []string{}
		for _, h := range held {
			found := s.house.heldAbsent(h)
			for _, p := range parts {
				found = found || p[h]
			}
			if !found {
				lost = append(lost, h)
			}
		}
		use(lost)
	})
}

// mapping is a map request on its way.
type mapping struct {
	house *House
	done  func(*dataplane.Mapping, error)
}

// Map implements dataplane.Desk.
func (k *dataDesk) Map(session, claim string, mode dataplane.Mode, done func(*dataplane.Mapping, error)) {
	tag, secret, ok := splitClaim(claim)
	var d *deviceActor
	for _, x := range k.house.devices {
		if ok && x.tag == tag {
			d = x
		}
	}
	if d == nil {
		done(nil, schemas.Errorf(schemas.CodeStaleHandle, "the claim is unknown, used or expired: ask get_handle for a new one"))
		return
	}
	s := k.house.sessions
	err := s.tell(seam.GrantLane, func() {
		x, fail := s.core.Lookup(ledger.SessionID(session))
		if fail != nil {
			done(nil, fail)
			return
		}
		p := x.Process
		r := ledger.MapRequest{Ref: &mapping{k.house, done}, Session: x.ID, PID: p.PID, UID: p.UID, Tenant: k.house.tenantOnSocket(p.UID), Root: p.UID == 0,
			Digest: ledger.DigestOf(secret), Mode: ledger.Mode(mode.String())}
		d.tell(seam.SystemLane, func() {
			if fail := d.core.Map(r, d.house.now()); fail != nil {
				done(nil, fail)
			}
			d.flush()
		})
	})
	if err != nil {
		done(nil, busy("the node"))
	}
}

// exported sends descriptors to the client; runs on the device's control goroutine.
func (m *mapping) exported(d *deviceActor, job ledger.Job, files []*os.File, fail error, sent func(failed bool)) {
	if fail != nil {
		d.house.log.Error("descriptors could not be made", "device", d.id, "allocation", job.Grant, "error", fail)
		m.done(nil, driverError(fmt.Errorf("the memory could not be shared: %w", fail), schemas.CodeInternalError))
		sent(true)
		return
	}
	out := &dataplane.Mapping{AllocationID: job.Grant.String(), Kind: d.info.HandleKind, DeviceUUID: d.info.UUID, SizeBytes: job.Info.Size}
	for i, f := range files {
		r := job.Ranges[i]
		out.Segments = append(out.Segments, dataplane.Segment{File: f, SegmentBytes: r.Bytes, Offset: r.Offset, SizeBytes: r.Length})
	}
	// The last segment's tail beyond what was asked for is not the client's business.
	if over := job.Info.Granted - job.Info.Size; over > 0 && len(out.Segments) > 0 && job.Info.Class != ledger.ClassWeights {
		out.Segments[len(out.Segments)-1].SizeBytes -= over
	}
	hand := func() {
		// Where there is no other proof of a release, what the session says from now on is
		// said of these descriptors. Elsewhere they count as ours until they are closed here.
		if !d.info.ProvesRelease {
			sent(false)
			m.done(out, nil)
			return
		}
		m.done(out, nil)
		sent(false)
	}
	if job.Info.Class != ledger.ClassWeights {
		hand()
		return
	}
	p := m.house.pool
	p.tell(seam.SystemLane, func() {
		if cp, ok := p.core.ByGrant(job.Grant); ok {
			out.Tensors = cp.Model.Tensors
		}
		hand()
	})
}

// Unmap implements dataplane.Desk.
func (k *dataDesk) Unmap(session, allocation string, done func(error)) {
	d, id, err := k.house.deviceOfID(allocation)
	if err != nil {
		done(err)
		return
	}
	d.tell(seam.SystemLane, func() {
		fail := d.core.Unmap(ledger.SessionID(session), id, d.house.now())
		d.flush()
		if fail != nil {
			done(fail)
			return
		}
		d.partings = append(d.partings, parting{ledger.SessionID(session), id, done})
		d.parted()
	})
}

// parting is an unmap that is to be answered.
type parting struct {
	session ledger.SessionID
	grant   uuid.UUID
	done    func(error)
}

// parted answers the unmaps that are done. One that came before the device has heard that its
// descriptors have arrived is not: whoever is told "unmapped" may count on it.
func (d *deviceActor) parted() {
	waiting := d.partings[:0]
	for _, p := range d.partings {
		if d.core.Parting(p.session, p.grant) {
			waiting = append(waiting, p)
			continue
		}
		p.done(nil)
	}
	clear(d.partings[len(waiting):])
	d.partings = waiting
}

// Ended implements dataplane.Desk.
func (k *dataDesk) Ended(session string, conn dataplane.Conn) {
	s := k.house.sessions
	id := ledger.SessionID(session)
	s.tell(seam.SystemLane, func() {
		if c := s.conns[id]; c != nil && c.conn == conn {
			s.close(id)
		}
	})
}
