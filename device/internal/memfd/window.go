//go:build linux

package memfd

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// window is a transient mapping of part of a file.
type window struct {
	bytes []byte
	base  unsafe.Pointer
	size  uintptr
}

// openWindow maps n bytes of f from off, which is a multiple of the page size. With
// align > 0 the address is a multiple of it, as huge pages need.
func openWindow(f *os.File, off, n, align int64, prot int) (window, error) {
	defer runtime.KeepAlive(f)
	if align == 0 {
		p, err := unix.MmapPtr(int(f.Fd()), off, nil, uintptr(n), prot, unix.MAP_SHARED)
		if err != nil {
			return window{}, fmt.Errorf("map memfd: %w", noRoom(err))
		}
		return window{bytes: unsafe.Slice((*byte)(p), n), base: p, size: uintptr(n)}, nil
	}
	// Reserve enough addresses to find an aligned one among them, and map over it.
	size := uintptr(n + align)
	base, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return window{}, fmt.Errorf("reserve addresses: %w", noRoom(err))
	}
	skip := uintptr(align) - 1 - (uintptr(base)-1)%uintptr(align)
	p, err := unix.MmapPtr(int(f.Fd()), off, unsafe.Add(base, skip), uintptr(n), prot, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		_ = unix.MunmapPtr(base, size)
		return window{}, fmt.Errorf("map memfd: %w", noRoom(err))
	}
	return window{bytes: unsafe.Slice((*byte)(p), n), base: base, size: size}, nil
}

// close ends the mapping; bytes must not be touched again.
func (w window) close() {
	if w.size == 0 {
		return // a part of a mapping that stays
	}
	// It fails only for addresses that are not a mapping.
	_ = unix.MunmapPtr(w.base, w.size)
}

// set fills b with value at the memory's speed: the runtime's memclr for zero,
// copies of a cached pattern else.
func set(b []byte, value byte) {
	if value == 0 {
		clear(b)
		return
	}
	head := b[:min(len(b), 64<<10)]
	for i := range head {
		head[i] = value
	}
	for rest := b[len(head):]; len(rest) > 0; {
		rest = rest[copy(rest, head):]
	}
}
