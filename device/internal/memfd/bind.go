//go:build linux

package memfd

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// Binding has the pages of new segments come from one NUMA node.
//
// The policy is the file's own: the kernel keeps it with the inode of shared memory, and
// every page of it comes by it, whoever touches or allocates it first, a client too. While
// pages are made it is MPOL_BIND, under which the kernel drops file cache of the node before
// it gives up; MPOL_PREFERRED would fill a node that is full of cache from another one. Under
// MPOL_BIND a node without memory ends in the kernel's killer, though others have plenty: so
// Room is asked before each chunk, and once all pages are there the policy becomes
// MPOL_PREFERRED, for what a client punches out and touches anew.
type Binding struct {
	Node int
	// Room fails where the node has no room for so many bytes more.
	Room func(bytes int64) error
}

// The modes of mbind(2).
const (
	mpolPreferred = 1
	mpolBind      = 2
)

// setPolicy says where pages of f that are still to be made come from.
func setPolicy(f *os.File, bytes int64, mode, node int) error {
	w, err := openWindow(f, 0, bytes, 0, unix.PROT_READ)
	if err != nil {
		return err
	}
	defer w.close()
	mask := make([]uint64, node/64+1)
	mask[node/64] = 1 << (node % 64)
	// The kernel takes one bit less than it is told of.
	_, _, errno := unix.Syscall6(unix.SYS_MBIND, uintptr(w.base), w.size, uintptr(mode), uintptr(unsafe.Pointer(&mask[0])), uintptr(len(mask)*64+1), 0)
	runtime.KeepAlive(mask)
	if errno != 0 {
		return fmt.Errorf("bind memory to NUMA node %d: mbind: %w%s", node, errno, bindFix(errno))
	}
	return nil
}

func bindFix(errno unix.Errno) string {
	switch {
	case errors.Is(errno, unix.EPERM):
		return " (allow mbind in the sandbox's seccomp profile; a container needs CAP_SYS_NICE for it)"
	case errors.Is(errno, unix.EINVAL):
		return " (the node has no memory that this process may use: see cpuset.mems of its control group)"
	case errors.Is(errno, unix.ENOSYS):
		return " (the kernel has no CONFIG_NUMA)"
	}
	return ""
}

// TryBind says why memory cannot be bound to a node, nil where it can.
func TryBind(node int) error {
	n := int64(os.Getpagesize())
	f, err := newFile("isobar-probe", n, true)
	if err != nil {
		return err
	}
	defer f.Close()
	return setPolicy(f, n, mpolBind, node)
}

// bind has the pages of a new file come from the store's node.
func (st *Store) bind(f *os.File, bytes int64) error {
	if st.c.Bind == nil {
		return nil
	}
	return setPolicy(f, bytes, mpolBind, st.c.Bind.Node)
}

// relax ends the insistence on the node: all pages are there.
func (st *Store) relax(s *Segment) error {
	if st.c.Bind == nil {
		return nil
	}
	return setPolicy(s.file, s.bytes, mpolPreferred, st.c.Bind.Node)
}

// roomFor looks whether the node has room for so many bytes more.
func (st *Store) roomFor(bytes int64) error {
	if st.c.Bind == nil || st.c.Bind.Room == nil || bytes <= 0 {
		return nil
	}
	if err := st.c.Bind.Room(bytes); err != nil {
		return fmt.Errorf("%w (NUMA node %d)", err, st.c.Bind.Node)
	}
	return nil
}

// NodesOf counts the bytes of a segment by the NUMA node that they lie on. It maps them;
// a segment whose pages are not all there is an error, because mapping would make them.
func (st *Store) NodesOf(ds device.Segment) (map[int]int64, error) {
	s, done, err := st.shared(ds)
	if err != nil {
		return nil, fmt.Errorf("find nodes: %w", err)
	}
	defer done()
	if n := s.resident.Load(); n < s.bytes {
		return nil, fmt.Errorf("find nodes: only %d of %d bytes are there", n, s.bytes)
	}
	out := map[int]int64{}
	return out, chunks(s.bytes, func(at, n int64) error {
		v, err := st.view(s, at, n, false)
		if err != nil {
			return err
		}
		defer v.close()
		return countNodes(v.bytes, out)
	})
}

// countNodes asks for each page of mapped memory where it lies.
func countNodes(b []byte, out map[int]int64) error {
	page := os.Getpagesize()
	pages := make([]unsafe.Pointer, len(b)/page)
	status := make([]int32, len(pages))
	if len(pages) == 0 {
		return nil
	}
	for i := range pages {
		pages[i] = unsafe.Pointer(&b[i*page])
	}
	// Without nodes to move to it only tells.
	_, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, uintptr(len(pages)), uintptr(unsafe.Pointer(&pages[0])), 0, uintptr(unsafe.Pointer(&status[0])), 0)
	runtime.KeepAlive(pages)
	if errno != 0 {
		return fmt.Errorf("move_pages: %w", errno)
	}
	for _, s := range status {
		out[int(s)] += int64(page)
	}
	return nil
}
