// Package fdroom makes room for descriptors before they come.
//
// The kernel keeps a process's descriptors in a table that it doubles when it is full. In a process
// with threads it waits until no processor uses the old one any more, 8 to 25 ms (Linux 6.18,
// 2026-11-22: fs/file.c, expand_fdtable), and with it everybody who opens, accepts or receives a
// descriptor meanwhile.
package fdroom

import (
	"os"

	"golang.org/x/sys/unix"
)

// Enough is for the segments of hundreds of models and as many clients. It takes the kernel 64 KiB.
const Enough = 8192

// Make makes room for n descriptors, or as many as the process may have. It may wait as above: a
// program calls it when it starts. What goes wrong shows when descriptors are really wanted.
func Make(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer f.Close()
	last, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, int(min(uint64(n), limit.Cur))-1)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return os.NewSyscallError("close", unix.Close(last))
}
