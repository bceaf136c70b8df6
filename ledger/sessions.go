package ledger

import (
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// Process names a process for ever: a pid alone is used again.
type Process struct {
	PID   int32
	Start uint64 // field 22 of /proc/PID/stat: clock ticks since boot
	UID   uint32
}

// Session is a data-socket session.
type Session struct {
	ID      SessionID
	Process Process
	// Connected is true while a connection speaks for it.
	Connected bool
	// Closed sessions have ended by end-of-file; their process may still map things.
	Closed bool
	digest [32]byte // of the resume token
	// former is the digest of the token before: good until the newer one is used, because
	// the answer that brings that may be lost.
	former [32]byte
	grace  clock.Instant
	rec    store.RecID
}

// Sessions is the core of data-socket sessions: who they are, and when they end. One
// writer, the sessions actor; it is not safe for concurrent use.
type Sessions struct {
	region *store.Region
	m      map[SessionID]*Session
	random func([]byte)
	newID  func() string
	resume time.Duration
	limit  int
}

// SessionsConfig is what the core of sessions must know.
type SessionsConfig struct {
	Random func([]byte)
	NewID  func() string
	// ResumeGrace is how long a session of a living process may stay away after a
	// take-over before it is taken to have ended.
	ResumeGrace time.Duration
	// Limit bounds the sessions, closed ones included.
	Limit int
}

// NewSessions starts with none, on a freshly formatted region.
func NewSessions(cfg SessionsConfig, region *store.Region) *Sessions {
	return &Sessions{region: region, m: map[SessionID]*Session{}, random: cfg.Random, newID: cfg.NewID, resume: cfg.ResumeGrace, limit: cfg.Limit}
}

// RestoreSessions reads the sessions that a predecessor left. Each has to be resumed
// within the grace; the shell watches their processes and reports those that are dead.
func RestoreSessions(cfg SessionsConfig, mem []byte, now Now) (*Sessions, []Session, error) {
	s := NewSessions(cfg, nil)
	var found []Session
	region, err := store.Open(mem, func(rec store.RecID, kind store.Kind, payload []byte) error {
		if kind != kindSession {
			return fmt.Errorf("record %d: unknown kind %d", rec, kind)
		}
		x, err := decodeSession(payload)
		if err != nil {
			return fmt.Errorf("record %d: %w", rec, err)
		}
		x.rec, x.grace = rec, now.Boot.Add(s.resume)
		s.m[x.ID] = x
		found = append(found, *x)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	s.region = region
	return s, found, nil
}

// Observe has f called after every store to the region; see store.Region.SetObserver.
func (s *Sessions) Observe(f func()) { s.region.SetObserver(func(int) { f() }) }

// Open begins a session. The token is for the client alone.
func (s *Sessions) Open(p Process) (*Session, string, *schemas.Error) {
	if len(s.m) >= s.limit {
		return nil, "", schemas.Errorf(schemas.CodeBusy, "%d sessions are open, the most this node takes", len(s.m)).With("retry_after_ms", 1000)
	}
	x := &Session{ID: SessionID(s.newID()), Process: p, Connected: true}
	var token string
	token, x.digest = makeClaim(s.random)
	tx := s.region.Begin()
	x.rec = tx.Insert(kindSession, encodeSession(x))
	if err := tx.Commit(); err != nil {
		return nil, "", ledgerFull(err)
	}
	s.m[x.ID] = x
	return x, token, nil
}

// Resume gives a session to a new connection of the same process, with a new token. The
// one that was shown stays good until the new one is: its owner may never get to see that.
func (s *Sessions) Resume(id SessionID, token string, p Process) (*Session, string, *schemas.Error) {
	x, ok := s.m[id]
	digest := DigestOf(token)
	if !ok || x.Closed || !x.knows(digest) {
		return nil, "", schemas.Errorf(schemas.CodeStaleHandle, "the session has ended: begin a new one")
	}
	if x.Process != p {
		return nil, "", schemas.Errorf(schemas.CodeForbidden, "the session belongs to another process")
	}
	old, former := x.digest, x.former
	x.former = digest
	token, x.digest = makeClaim(s.random)
	tx := s.region.Begin()
	tx.Update(x.rec, encodeSession(x))
	if err := tx.Commit(); err != nil {
		x.digest, x.former = old, former
		return nil, "", ledgerFull(err)
	}
	x.Connected, x.grace = true, 0
	return x, token, nil
}

// knows reports whether a token of this digest resumes the session.
func (x *Session) knows(digest [32]byte) bool {
	newest := subtle.ConstantTimeCompare(x.digest[:], digest[:])
	former := subtle.ConstantTimeCompare(x.former[:], digest[:])
	return newest|former == 1 && digest != [32]byte{}
}

// ProcessOf names the process of a session, closed or not.
func (s *Sessions) ProcessOf(id SessionID) (Process, bool) {
	x, ok := s.m[id]
	if !ok {
		return Process{}, false
	}
	return x.Process, true
}

// Lookup finds a session that may be given memory.
func (s *Sessions) Lookup(id SessionID) (*Session, *schemas.Error) {
	x, ok := s.m[id]
	if !ok || x.Closed {
		return nil, schemas.Errorf(schemas.CodeStaleHandle, "no live session of that id: connect to the data socket first").With("field", "session_id")
	}
	return x, nil
}

// Known reports whether the session exists, closed or not.
func (s *Sessions) Known(id SessionID) bool { return s.m[id] != nil }

// Close is a session's end-of-file. It reports whether the session was open.
func (s *Sessions) Close(id SessionID) bool {
	x, ok := s.m[id]
	if !ok || x.Closed {
		return false
	}
	x.Closed, x.Connected = true, false
	tx := s.region.Begin()
	tx.Update(x.rec, encodeSession(x))
	must(tx.Commit())
	return true
}

// Dead is the exit of a session's process: the session is forgotten.
func (s *Sessions) Dead(id SessionID) bool {
	x, ok := s.m[id]
	if !ok {
		return false
	}
	delete(s.m, id)
	tx := s.region.Begin()
	tx.Delete(x.rec)
	must(tx.Commit())
	return true
}

// Next returns when the next restored session's grace ends.
func (s *Sessions) Next() (at clock.Instant, ok bool) {
	for _, x := range s.m {
		if x.grace != 0 && !x.Closed && (!ok || x.grace < at) {
			at, ok = x.grace, true
		}
	}
	return at, ok
}

// Overdue lists the restored sessions that did not come back in time; the shell treats
// each as an end-of-file.
func (s *Sessions) Overdue(now clock.Instant) (out []SessionID) {
	for id, x := range s.m {
		if x.grace != 0 && !x.Closed && x.grace <= now {
			x.grace = 0
			out = append(out, id)
		}
	}
	return out
}

// Len counts the sessions, closed ones whose process lives included.
func (s *Sessions) Len() int { return len(s.m) }

// Each calls f for every session, in no order.
func (s *Sessions) Each(f func(*Session)) {
	for _, x := range s.m {
		f(x)
	}
}

func encodeSession(x *Session) []byte {
	e := enc{b: make([]byte, 0, 96)}
	e.str(string(x.ID))
	e.u32(uint32(x.Process.PID))
	e.i64(int64(x.Process.Start))
	e.u32(x.Process.UID)
	e.raw(x.digest[:])
	e.u32(bit(x.Closed, 0) | bit(x.former != [32]byte{}, 1))
	if x.former != [32]byte{} {
		e.raw(x.former[:])
	}
	return e.b
}

func decodeSession(b []byte) (*Session, error) {
	d := dec{b: b}
	x := &Session{ID: SessionID(d.str())}
	x.Process = Process{PID: int32(d.u32()), Start: uint64(d.i64()), UID: d.u32()}
	copy(x.digest[:], d.take(32))
	flags := d.u32()
	if x.Closed = flags&1 != 0; flags&2 != 0 {
		copy(x.former[:], d.take(32))
	}
	return x, d.end()
}
