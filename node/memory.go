package node

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/history"
	"github.com/isobar-project/isobar/vault"
)

// The sizes of regions, in bytes. They are sparse: only what is used takes memory. A
// grant takes about 600 bytes with its answer, so a device has room for some 200,000.
const (
	deviceRegion = 128 << 20
	otherRegion  = 64 << 20
	// The history is no ledger, but lies beside it and goes with it.
	historyRegion = history.ImageBytes
)

// ledgers are the regions of the ledger: memfds in the vault, mapped here.
type ledgers struct {
	keeper    actors.Keeper
	inherited map[string]vault.Entry
	used      map[uint64]bool
	mapped    [][]byte
	files     []*os.File
}

func newLedgers(k *keeper, found map[string]vault.Entry) *ledgers {
	l := &ledgers{keeper: k, inherited: found, used: map[uint64]bool{}}
	for _, e := range found {
		l.used[e.ID] = true
	}
	return l
}

// memory gives an actor its region, and whether a predecessor has written it.
func (l *ledgers) memory(actor string) ([]byte, bool, error) {
	label := "ledger/" + actor
	if len(label) > vault.MaxLabelBytes {
		return nil, false, fmt.Errorf("the name %q is too long for the ledger", actor)
	}
	if e, ok := l.inherited[label]; ok {
		delete(l.inherited, label)
		mem, err := l.mmap(e.File)
		return mem, true, err
	}
	size := int64(otherRegion)
	switch {
	case strings.HasPrefix(actor, "device/"):
		size = deviceRegion
	case actor == "history":
		size = historyRegion
	}
	fd, err := unix.MemfdCreate("isobar "+label, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, false, fmt.Errorf("the ledger's memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), label)
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, false, fmt.Errorf("the ledger's memory: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, false, fmt.Errorf("the ledger's memory: %w", err)
	}
	mem, err := l.mmap(f)
	if err != nil {
		return nil, false, err
	}
	id, err := l.freeID()
	if err != nil {
		return nil, false, err
	}
	if err := l.keeper.Put(vault.Entry{ID: id, Label: label, File: f}); err != nil {
		return nil, false, fmt.Errorf("the ledger could not be put into the vault: %w", err)
	}
	return mem, false, nil
}

// deviceLabel begins the label of a device's region.
const deviceLabel = "ledger/device/"

// absent maps the regions of devices that a predecessor had and that are not among these.
func (l *ledgers) absent(configured, forget []string) ([]actors.AbsentDevice, error) {
	var out []actors.AbsentDevice
	for _, label := range slices.Sorted(maps.Keys(l.inherited)) {
		id, ok := strings.CutPrefix(label, deviceLabel)
		if !ok || slices.Contains(configured, id) {
			continue
		}
		mem, err := l.mmap(l.inherited[label].File)
		if err != nil {
			return nil, err
		}
		out = append(out, actors.AbsentDevice{ID: id, Memory: mem, Forget: slices.Contains(forget, id)})
	}
	return out, nil
}

// drop lets go of the regions of absent devices.
func (l *ledgers) drop(devices []string) error {
	var ids []uint64
	for _, id := range devices {
		label := deviceLabel + id
		if e, ok := l.inherited[label]; ok {
			ids = append(ids, e.ID)
			delete(l.inherited, label)
			delete(l.used, e.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return l.keeper.Drop(ids...)
}

func (l *ledgers) freeID() (uint64, error) {
	for id := uint64(1); id < firstSegmentID; id++ {
		if !l.used[id] {
			l.used[id] = true
			return id, nil
		}
	}
	return 0, fmt.Errorf("more than %d devices and actors", firstSegmentID-1)
}

func (l *ledgers) mmap(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() == 0 || st.Size() > 1<<32 {
		return nil, fmt.Errorf("the ledger %s has %d bytes", f.Name(), st.Size())
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("the ledger could not be mapped: %w", err)
	}
	l.mapped = append(l.mapped, mem)
	l.files = append(l.files, f)
	return mem, nil
}

// ids are the vault ids of all regions.
func (l *ledgers) ids() []uint64 {
	var out []uint64
	for id := range l.used {
		out = append(out, id)
	}
	return out
}

// close unmaps the regions; the vault still has them unless they were dropped.
func (l *ledgers) close() {
	for _, m := range l.mapped {
		unix.Munmap(m)
	}
	for _, f := range l.files {
		f.Close()
	}
	l.mapped, l.files = nil, nil
}
