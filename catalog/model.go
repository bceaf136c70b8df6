package catalog

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// State is where a copy stands.
type State string

// The states of a copy.
const (
	Loading  State = "loading"
	Sealed   State = "sealed"
	Revoking State = "revoking"
	Failed   State = "failed"
)

// ModelID numbers a model object for the life of the ledger.
type ModelID uint64

// Identity is what makes a model that model.
type Identity struct {
	Tenant, Name string
	Path         string // as resolved inside the model roots
	ContentID    string
	Version      int
}

// Model is a known model with its copies.
type Model struct {
	ID ModelID
	Identity
	Type           string
	Shared, Pinned bool
	Priority       int
	Bytes          int64 // of its tensors
	Tensors        []schemas.Tensor
	Segments       []int64 // the layout: bytes of each segment, before the device's rounding
	Loads          int64
	LastUsed       time.Time
	// WarmCost is what it took the last time to load it from main memory; 0: it never was.
	WarmCost   time.Duration
	Superseded bool   // a newer version has its name
	asked      string // the path as its first client wrote it
	// Stamp is the shell's, of the file that was inspected; nil after a take-over.
	Stamp any
	// prev is the version that this one replaces when its first copy is sealed.
	prev   *Model
	copies map[string]*Copy
	// parked are the records of copies on devices that are absent: they are as a predecessor
	// left them, and the model is not forgotten while there are any.
	parked []store.RecID
	rec    store.RecID
}

// nowhere reports whether no memory holds the model: neither here nor on an absent device.
func (m *Model) nowhere() bool { return len(m.copies) == 0 && len(m.parked) == 0 }

// At reports whether a client's path means this model's file.
func (m *Model) At(path string) bool { return path == m.Path || path == m.asked }

// Copies calls f for each copy, in no order.
func (m *Model) Copies(f func(*Copy)) {
	for _, c := range m.copies {
		f(c)
	}
}

// Copy is a model on one device.
type Copy struct {
	Model   *Model
	Device  string
	State   State
	Grant   uuid.UUID
	Granted int64
	Cost    time.Duration // what the last load from disk took, of this copy or the one it was made of
	Took    time.Duration // what it took to make this one, without the wait for room; 0 after a take-over
	// Origin is the device of the copy that this one was made of; "" is the files, or not known
	// since a take-over.
	Origin string
	// Home is the device from which this copy was demoted; "": somebody asked for it here.
	Home      string
	UsedAt    clock.Instant
	loaded    clock.Instant // when it came because somebody asked for it; 0: a predecessor's, or moved by the node
	letGo     clock.Instant // when its last reader let go; 0: it had none
	refs      map[string]*Reference
	mappers   map[ledger.SessionID]string // tenant by session
	waiters   []LoadRequest
	unloads   []UnloadRequest
	from      *Copy          // what it is being made of; nil: its files
	feeds     map[*Copy]bool // the copies that are being made of it
	demotions []demotion     // unloads that go on when it is sealed
	why       string         // of the release under way
	force     bool           // it is released whoever reads it
	ordered   bool           // the optimizer ordered it
	started   clock.Instant
	queued    time.Duration // since then, for room
	done      int64         // bytes read so far
	progress  clock.Instant // when progress was last published
	evicted   []ledger.Evicted
	cancel    *schemas.Error // the load was given up, for this reason
	source    any            // from the Description
	rec       store.RecID

	key     string // Key
	place   int    // on its device's shelf
	shelved bool
	stale   bool // what is on the shelf may be wrong
}

// Reference keeps a model from being evicted, on behalf of a session or for a lease.
type Reference struct {
	ID      string           `json:"id"`
	Tenant  string           `json:"tenant,omitempty"` // whose it is; empty: the model's
	Session ledger.SessionID `json:"session,omitempty"`
	Lease   time.Duration    `json:"lease,omitempty"`
	Ends    clock.Instant    `json:"ends,omitempty"`
}

// Readers counts who keeps the copy from being evicted.
func (cp *Copy) Readers() int {
	n := len(cp.refs)
	for s := range cp.mappers {
		if !cp.referencedBy(s) {
			n++
		}
	}
	return n
}

// ReadersByTenant is Readers of each tenant: of a shared model others have some too.
func (cp *Copy) ReadersByTenant() map[string]int {
	n := map[string]int{}
	for _, r := range cp.refs {
		n[cp.readerOf(r.Tenant)]++
	}
	for s, tenant := range cp.mappers {
		if !cp.referencedBy(s) {
			n[cp.readerOf(tenant)]++
		}
	}
	return n
}

// readerOf is the tenant of a reader of whom nothing else may be known than what he reads.
func (cp *Copy) readerOf(tenant string) string {
	if tenant == "" {
		return cp.Model.Tenant
	}
	return tenant
}

func (cp *Copy) referencedBy(s ledger.SessionID) bool {
	for _, r := range cp.refs {
		if r.Session == s {
			return true
		}
	}
	return false
}

// Key names a copy to the eviction policy: popularity belongs to a model on a device.
func (cp *Copy) Key() string { return cp.key }

func keyOf(device string, m *Model) string { return device + "/" + m.Tenant + "/" + m.Name }

// Started is when the load began, and Done how many bytes of it are read.
func (cp *Copy) Started() clock.Instant { return cp.started }

// Done is how many bytes of a load have been read.
func (cp *Copy) Done() int64 { return cp.done }

// Description is what inspecting a model's files found.
type Description struct {
	Path      string
	ContentID string
	Bytes     int64
	Tensors   []schemas.Tensor
	Segments  []int64
	// Stamp is the shell's: what tells whether the file is still the same.
	Stamp any
	// Source is the shell's: the open files and the layout, handed back in StepFill.
	Source any
}

// LoadRequest asks for a model on a device.
type LoadRequest struct {
	Ref            any
	Tenant, Name   string
	Path           string // resolved; empty for a known model
	Type, Device   string
	Shared, Pinned bool
	Priority       int
	Patience       time.Duration
	RequestID      string
	Key            string
	Answer         func(*Copy) ledger.AnswerRecord
	// Reference, if set, is taken when the copy is there (acquire_model).
	Reference *Reference
	DryRun    bool
	// Changed says that the shell looked at the file of a resident model and found another
	// than was loaded: it is loaded beside the old one, as a new version.
	Changed bool
	// Offered is the shell's: the open file of a request whose Path the shell made up for it.
	// It comes back in StepInspect.
	Offered any
	// Estimate is how many bytes the client says that it will take; 0: it says nothing.
	Estimate int64
	// Cold lets go of the copy in main memory that the model was loaded from, unless somebody
	// asked for that one.
	Cold bool
	// Keep leaves the model's type, pin, priority and sharing as they are: the request
	// says nothing of them.
	Keep bool
}

// UnloadRequest asks for a copy, or all copies of a model, to go.
type UnloadRequest struct {
	Ref          any
	Tenant, Name string
	Everyone     bool   // with the name "*": the models of all tenants
	Device       string // empty: every device
	// Demote keeps the models in main memory: it says for each device to which device of
	// main memory its copies go. nil: the bytes are dropped.
	Demote    map[string]string
	Force     bool
	Deadline  time.Duration
	RequestID string

	into *Copy // the copy in main memory that a demotion has made
}
