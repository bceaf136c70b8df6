package vault

import (
	"fmt"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/fdwire"
)

// apply does what the fence decided.
func (s *server) apply(effects []effect) {
	for _, e := range effects {
		c := s.conns[e.conn]
		if c == nil {
			continue
		}
		switch e.kind {
		case admit:
			s.admit(c)
		case refuse:
			s.cfg.Log.Info("node refused", "pid", c.peer.PID, "holder", e.pid, "reason", e.reason)
			send(c.conn, &message{Type: typeError, ID: c.helloID, Code: codeHeld, PID: e.pid, Error: e.reason}, nil, nil)
		case ping:
			s.pings++
			send(c.conn, &message{Type: typePing, ID: s.pings}, nil, nil)
		case kill:
			s.cfg.Log.Warn("ending the node that holds the vault", "pid", c.peer.PID)
			if err := fdwire.Kill(c.peer.PidFD); err != nil {
				s.cfg.Log.Error("kill", "pid", c.peer.PID, "error", err)
			}
		case forget:
			s.forget(c)
		}
	}
}

func (s *server) admit(c *session) {
	id := c.id
	unwatch, err := s.cfg.Watcher.Watch(c.peer.PidFD, func() { s.exited(id) })
	if err != nil {
		// Without the watch the fence would be blind: the node is told to go.
		s.cfg.Log.Error("watch", "pid", c.peer.PID, "error", err)
		send(c.conn, &message{Type: typeError, ID: c.helloID, Code: codeProtocol, Error: fmt.Sprintf("cannot watch pid %d: %v", c.peer.PID, err)}, nil, nil)
		_ = c.conn.Close()
		s.fence.holder = nil
		return
	}
	c.unwatch, c.node = unwatch, true
	s.cfg.Log.Info("node admitted", "pid", c.peer.PID, "entries", len(s.table.slots))
	s.welcome(c)
}

// forget lets go of the process that held the vault. A connection of it that is still
// open may only list from now on.
func (s *server) forget(c *session) {
	c.node = false
	if c.unwatch != nil {
		c.unwatch()
		c.unwatch = nil
	}
	if !c.open {
		delete(s.conns, c.id)
		c.peer.Close()
	}
}

func (s *server) exited(conn uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	c := s.conns[conn]
	if c == nil || !c.node {
		return
	}
	s.cfg.Log.Info("node has ended", "pid", c.peer.PID, "entries", len(s.table.slots))
	// What it sent last may still be unread. Its puts would come too late for the
	// next node's table, so nothing is accepted from here on.
	_ = c.conn.Close()
	s.apply(s.fence.exited(s.cfg.Clock.Now(), conn))
	s.settle(true)
}

// settle follows every event: it sets the fence's alarm and decides about the end.
// left says that a node has just gone.
func (s *server) settle(left bool) {
	if s.ended {
		return
	}
	if s.alarm != nil {
		s.alarm.Stop()
		s.alarm = nil
	}
	if at, ok := s.fence.deadline(); ok {
		s.alarm = s.after(at, func() { s.apply(s.fence.tick(s.cfg.Clock.Now())) })
	}
	switch {
	case !s.fence.vacant():
		if s.vacancy != nil {
			s.vacancy.Stop()
			s.vacancy = nil
		}
	case left && len(s.table.slots) == 0:
		s.endLocked("empty, and its node has gone")
	case s.vacancy == nil:
		s.vacancy = s.after(s.cfg.Clock.Now().Add(s.cfg.NodeTimeout), s.timeout)
	}
}

// used notes that there is work, so that memory is trimmed when it is done.
func (s *server) used() {
	s.lastUse = s.cfg.Clock.Now()
	if s.trim == nil && s.cfg.Trim != nil {
		s.trim = s.cfg.Clock.AfterFunc(s.cfg.TrimAfter, s.quiet)
	}
}

// quiet trims, or waits on if there was work since the timer was set.
func (s *server) quiet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trim = nil
	if s.ended {
		return
	}
	if left := s.lastUse.Add(s.cfg.TrimAfter).Sub(s.cfg.Clock.Now()); left > 0 {
		s.trim = s.cfg.Clock.AfterFunc(left, s.quiet)
		return
	}
	s.cfg.Trim()
}

// after runs f under the lock.
func (s *server) after(at clock.Instant, f func()) clock.Timer {
	var t clock.Timer
	t = s.cfg.Clock.AfterFunc(at.Sub(s.cfg.Clock.Now()), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		// Stopped too late to keep it from running.
		if s.ended || t != s.alarm && t != s.vacancy {
			return
		}
		f()
		s.settle(false)
	})
	return t
}

// timeout: no node has come. The memory goes when nobody uses it.
func (s *server) timeout() {
	s.vacancy = nil
	used, err := s.table.inUse(s.cfg.InUse)
	switch {
	case err != nil:
		s.cfg.Log.Warn("cannot tell whether memory is in use", "id", used.ID, "label", used.Label, "error", err)
	case used == Stat{}:
		s.endLocked("no node has come, and nobody uses the memory")
		return
	default:
		s.cfg.Log.Info("no node has come, but memory is in use", "id", used.ID, "label", used.Label)
	}
	s.vacancy = s.after(s.cfg.Clock.Now().Add(s.cfg.RecheckEvery), s.timeout)
}

func (s *server) endLocked(reason string) {
	if s.ended {
		return
	}
	s.ended = true
	s.cfg.Log.Info("vault ends", "reason", reason, "entries", len(s.table.slots))
	close(s.over)
}

// shutdown closes everything and waits for the goroutines.
func (s *server) shutdown() {
	s.mu.Lock()
	s.endLocked("told to")
	s.mu.Unlock()
	unlisten(s.listener)
	s.mu.Lock()
	for _, t := range []clock.Timer{s.alarm, s.vacancy, s.trim} {
		if t != nil {
			t.Stop()
		}
	}
	for _, c := range s.conns {
		_ = c.conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if c.unwatch != nil {
			c.unwatch()
		}
		c.peer.Close()
		c.conn.Wait()
	}
	s.table.close()
}
