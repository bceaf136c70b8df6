package actors

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// AbsentDevice is a device that a predecessor had and that is not configured now.
type AbsentDevice struct {
	ID string
	// Memory is its region of the ledger. It is read, and stays as it is.
	Memory []byte
	// Forget lets go of what was granted on it.
	Forget bool
}

// Kept is what stays in the vault of an absent device: it comes back whole when the device
// is configured again. Readers go on reading meanwhile; nothing can be asked of it, and
// leases run on.
type Kept struct {
	Device string
	// Grants and Models count what was granted, Bytes what its segments take.
	Grants, Models int
	Bytes          int64
	// Fault says why its ledger cannot be read, "" where it can. Then the counts are 0, and
	// everything is kept.
	Fault string
}

// absentees are the absent devices, sorted by what becomes of them.
type absentees struct {
	kept  []Kept
	names map[string]bool // of kept
	gone  []string
	files map[uint64]*os.File // in the vault, of kept
}

// openAbsent looks at what absent devices left, and decides what is kept: everything of a
// device with a grant, unless it is to be forgotten.
func (h *House) openAbsent() error {
	a := &h.absent
	a.names, a.files = map[string]bool{}, map[uint64]*os.File{}
	for _, d := range h.cfg.Absent {
		for _, other := range h.devices {
			if other.tag == tagOf(d.ID) {
				return fmt.Errorf("devices %s and %s, which a predecessor had, have the same short name: choose another id for the first, or forget the second", other.id, d.ID)
			}
		}
		k := d.left()
		if d.Forget || k.Grants == 0 && k.Fault == "" {
			if k.Grants > 0 || k.Fault != "" {
				h.log.Warn("what was granted on a device is let go of, as configured", "device", d.ID, "grants", k.Grants, "models", k.Models, "bytes", k.Bytes)
			}
			a.gone = append(a.gone, d.ID)
			continue
		}
		a.kept, a.names[d.ID] = append(a.kept, k), true
		for id, f := range h.cfg.Inherited {
			if uint32(id>>40) == tagOf(d.ID) {
				a.files[id] = f
			}
		}
	}
	return nil
}

// left counts what the device's ledger says.
func (d *AbsentDevice) left() Kept {
	k := Kept{Device: d.ID}
	if store.Unfinished(d.Memory) {
		return k
	}
	image, err := ledger.ReadImage(d.Memory)
	if err != nil {
		k.Fault = err.Error()
		return k
	}
	for _, g := range image.Grants() {
		k.Grants++
		if g.Class == ledger.ClassWeights {
			k.Models++
		}
	}
	for _, s := range image.Segments() {
		k.Bytes += s.Bytes
	}
	return k
}

// Kept lists the absent devices of which everything is kept.
func (h *House) Kept() []Kept { return slices.Clone(h.absent.kept) }

// LetGo lists the absent devices of which nothing is kept: their regions are of no use.
func (h *House) LetGo() []string { return slices.Clone(h.absent.gone) }

// dropAbsent, at the end of a drain, lets go of everything that is kept of absent devices.
func (h *House) dropAbsent() error {
	var ids []uint64
	for id := range h.absent.files {
		ids = append(ids, id)
	}
	h.absent.close()
	if len(ids) == 0 {
		return nil
	}
	return h.cfg.Keeper.Drop(ids...)
}

// close closes this process's descriptors; the vault has its own.
func (a *absentees) close() {
	for _, f := range a.files {
		f.Close()
	}
	a.files = nil
}

// absentOfID names the absent device that an allocation id belongs to, "" if there is none.
func (h *House) absentOfID(id uuid.UUID) string {
	for _, k := range h.absent.kept {
		if tagOf(k.Device) == tagOfID(id) {
			return k.Device
		}
	}
	return ""
}

// heldAbsent reports whether an allocation id, as a client writes it, belongs to an absent
// device: what a session holds there is not lost.
func (h *House) heldAbsent(s string) bool {
	id, err := uuid.Parse(strings.TrimPrefix(s, h.cfg.Node+"."))
	return err == nil && h.absentOfID(id) != ""
}

// missing says that a device is absent, for people.
func missing(device string) string {
	return "; device " + device + " is missing from this node's configuration, and what was granted there is kept until it is back"
}
