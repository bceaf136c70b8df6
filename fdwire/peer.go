package fdwire

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
)

// Peer is the process that made the other end of a connection. A child that
// inherited the socket is not it.
type Peer struct {
	// PID is 0 if the process is not visible in our pid namespace.
	PID int
	UID uint32
	GID uint32
	// StartTime is when the process started, in clock ticks since boot (field 22 of
	// /proc/PID/stat): with PID it names the process for as long as the machine
	// runs. 0 if PID is.
	StartTime uint64
	// PidFD refers to the process itself, not to whoever has its number. It
	// belongs to whoever holds the Peer.
	PidFD *os.File
}

// Close closes the pidfd.
func (p *Peer) Close() {
	if p.PidFD != nil {
		_ = p.PidFD.Close()
	}
}

// Same reports whether both are one process.
func (p *Peer) Same(o *Peer) bool {
	return p.PID != 0 && p.PID == o.PID && p.StartTime == o.StartTime
}

// Exited reports whether the process has ended: its memory is unmapped and its
// descriptors are closed.
func (p *Peer) Exited() bool { return p.PidFD == nil || Exited(p.PidFD) }

// ErrPeerGone says that the peer ended before it could be identified.
var ErrPeerGone = errors.New("peer process has ended")

// PeerOf asks the kernel who connected. Kernels since 6.5 give a pidfd of exactly
// that process. On older ones it is opened by number, and the number is trusted
// only if its process was already running when we asked.
func PeerOf(nc *net.UnixConn) (Peer, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("peer: %w", err)
	}
	var p Peer
	var result error
	err = raw.Control(func(fd uintptr) { p, result = peerOf(int(fd), getPeerPidFD) })
	if err == nil {
		err = result
	}
	if err != nil {
		return Peer{}, fmt.Errorf("peer: %w", err)
	}
	return p, nil
}

func getPeerPidFD(socket int) (int, error) {
	return unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
}

func peerOf(socket int, peerPidFD func(int) (int, error)) (Peer, error) {
	cred, err := unix.GetsockoptUcred(socket, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	p := Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
	asked := clock.Real().Now()
	pidfd, err := peerPidFD(socket)
	byNumber := false
	switch {
	case err == nil:
		unix.CloseOnExec(pidfd)
	case errors.Is(err, unix.ENOPROTOOPT) && p.PID > 0:
		byNumber = true
		if pidfd, err = unix.PidfdOpen(p.PID, 0); err != nil {
			return Peer{}, gone(err)
		}
	default:
		return Peer{}, gone(err)
	}
	p.PidFD = os.NewFile(uintptr(pidfd), "pidfd:"+strconv.Itoa(p.PID))
	if p.PID == 0 {
		return p, nil
	}
	p.StartTime, err = StartTime(p.PID)
	// Still running after its number was looked up: the number was its own.
	if err != nil || p.Exited() {
		p.Close()
		return Peer{}, gone(err)
	}
	if byNumber && p.StartTime > ticks(asked) {
		p.Close()
		return Peer{}, ErrPeerGone
	}
	return p, nil
}

func gone(err error) error {
	if err == nil || errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) {
		return ErrPeerGone
	}
	return err
}

// ticksPerSecond is USER_HZ, which the kernel fixes at 100 for every
// architecture that Go supports.
const ticksPerSecond = 100

func ticks(i clock.Instant) uint64 { return uint64(i) / (1e9 / ticksPerSecond) }

// Exited reports whether the process of a pidfd has ended.
func Exited(pidfd *os.File) bool {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return true
	}
	exited := true
	if raw.Control(func(fd uintptr) { exited = readable(int(fd)) }) != nil {
		return true
	}
	return exited
}

func readable(fd int) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0 && fds[0].Revents&unix.POLLIN != 0
		}
	}
}

// Kill sends SIGKILL to the process of a pidfd: it cannot hit another one.
func Kill(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) {
		result = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0)
	}); err != nil {
		return err
	}
	if errors.Is(result, unix.ESRCH) {
		return nil
	}
	return result
}

// StartTime tells when a process started, in clock ticks since boot. A process
// that does not exist is os.ErrNotExist.
func StartTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, unix.ESRCH) {
		err = os.ErrNotExist
	}
	if err != nil {
		return 0, fmt.Errorf("start time of %d: %w", pid, err)
	}
	t, err := parseStartTime(b)
	if err != nil {
		return 0, fmt.Errorf("start time of %d: %w", pid, err)
	}
	return t, nil
}

// parseStartTime finds field 22 of /proc/PID/stat. Field 2, the program's name, may
// contain blanks and brackets, so counting begins at the last bracket.
func parseStartTime(stat []byte) (uint64, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("no program name in stat")
	}
	const index = 22 - 3 // the first field after the name is the third
	fields := bytes.Fields(stat[end+1:])
	if len(fields) <= index {
		return 0, fmt.Errorf("stat has %d fields after the name, not %d", len(fields), index+1)
	}
	return strconv.ParseUint(string(fields[index]), 10, 64)
}
