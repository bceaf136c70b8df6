package vault

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unique"

	"golang.org/x/sys/unix"
)

// table is what the vault holds, sorted by id. Ids mostly grow, so an insert is
// mostly an append; 24 bytes an entry, labels shared.
type table struct{ slots []slot }

type slot struct {
	id    uint64
	label unique.Handle[string]
	fd    int
}

func (s *slot) stat() Stat {
	st := Stat{ID: s.id, Label: s.label.Value()}
	st.Bytes, st.AllocatedBytes = statFD(s.fd)
	return st
}

func (t *table) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(t.slots, id, func(s slot, id uint64) int { return cmp.Compare(s.id, id) })
}

// put reports whether the table took the descriptor: not if it holds the id.
func (t *table) put(id uint64, label string, fd int) bool {
	i, held := t.find(id)
	if held {
		return false
	}
	t.slots = slices.Insert(t.slots, i, slot{id: id, label: unique.Make(label), fd: fd})
	return true
}

// drop closes the descriptor of an id, if there is one.
func (t *table) drop(id uint64) {
	if i, held := t.find(id); held {
		_ = unix.Close(t.slots[i].fd)
		t.slots = slices.Delete(t.slots, i, i+1)
	}
}

// after returns up to n slots with ids above id, all from the first one if !ok.
func (t *table) after(id uint64, ok bool, n int) (page []slot, more bool) {
	i := 0
	if ok {
		var held bool
		if i, held = t.find(id); held {
			i++
		}
	}
	rest := t.slots[i:]
	return rest[:min(n, len(rest))], len(rest) > n
}

func (t *table) close() {
	for _, s := range t.slots {
		_ = unix.Close(s.fd)
	}
	t.slots = nil
}

// inUse finds memory that anybody but the vault still uses; no node may be alive.
//
// Every descriptor is first replaced by a description of the vault's own making. The
// one that came may be memfd_create's, which the kernel does not count as a
// writer: a lease on it is refused with nobody there and granted beside one
// stranger. Or it may be one that open made, which counts and would
// stand in the way of a lease on another. Once replaced, only clients' are left.
// What is no regular file is left alone: opened anew, the device behind a GPU's memory
// is another description, without the memory.
func (t *table) inUse(probe func(fd int) (bool, error)) (Stat, error) {
	for i := range t.slots {
		s := &t.slots[i]
		var st unix.Stat_t
		if err := unix.Fstat(s.fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return s.stat(), err // nothing can be proved
		}
		fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(s.fd), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			if errors.Is(err, unix.EACCES) {
				return s.stat(), nil // nothing can be proved
			}
			return s.stat(), fmt.Errorf("open anew: %w", err)
		}
		_ = unix.Close(s.fd)
		s.fd = fd
		if used, err := probe(fd); used || err != nil {
			return s.stat(), err
		}
	}
	return Stat{}, nil
}

// leaseRefused is the proof of release: false exactly when the kernel grants a write
// lease, that is when no description but fd's, which open made, has the file open or
// mapped.
func leaseRefused(fd int) (bool, error) {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
	switch {
	case err == nil:
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
			return true, fmt.Errorf("drop write lease: %w", err)
		}
		return false, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINVAL):
		return true, nil
	default:
		return true, fmt.Errorf("write lease: %w", err)
	}
}
