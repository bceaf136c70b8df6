package actors

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/ledger"
)

// end carries out a device's order to end the process of a session, which holds memory past
// the deadline of its revocation: SIGTERM, or SIGKILL where that was of no use. The process
// is the one of the session's pidfd, never one of a number; neither this process nor the
// vault is ever ended. The log says what came of it, and an event of the grant.
func (s *sessionsActor) end(d *deviceActor, e ledger.End) {
	s.tell(seam.SystemLane, func() {
		c, p := s.conns[e.Session], ledger.Process{}
		if c != nil {
			p, _ = s.core.ProcessOf(e.Session)
		}
		if p.PID == 0 {
			return // it has exited meanwhile
		}
		sig := syscall.SIGTERM
		if e.Kill {
			sig = syscall.SIGKILL
		}
		who := fmt.Sprintf("process %d, which holds it past its deadline,", p.PID)
		say := func(what string) {
			d.tell(seam.SystemLane, func() { d.core.EndOrdered(e, who+" "+what, d.house.now()); d.flush() })
		}
		err := s.spared(p.PID)
		if err == nil {
			// Before the signal: once the process is gone the grant may be too.
			say("is sent " + unix.SignalName(sig))
			err = s.house.cfg.Signal(c.pidfd, sig)
		}
		if err != nil {
			say(fmt.Sprintf("cannot be ended: %v", err))
			s.house.log.Error("a process holds memory past its deadline and cannot be ended", "device", d.id, "allocation", e.Grant,
				"session", e.Session, "pid", p.PID, "signal", unix.SignalName(sig), "error", err)
			return
		}
		s.house.log.Warn("a process that holds memory past its deadline is ended", "device", d.id, "allocation", e.Grant,
			"session", e.Session, "pid", p.PID, "signal", unix.SignalName(sig))
	})
}

// spared says why a process is never ended, whatever it holds.
func (s *sessionsActor) spared(pid int32) error {
	switch int(pid) {
	case os.Getpid():
		return fmt.Errorf("it is the node itself")
	case s.house.cfg.KeeperPID():
		return fmt.Errorf("it is the vault")
	}
	return nil
}

// signalProcess sends a signal to the process of a pidfd.
func signalProcess(pidfd *os.File, sig syscall.Signal) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var fail error
	if err := raw.Control(func(fd uintptr) { fail = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	return fail
}
