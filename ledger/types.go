package ledger

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger/store"
)

// Now is the moment at which a core is called: Boot decides, Wall is for people.
type Now struct {
	Boot clock.Instant
	Wall time.Time
}

// Class says what memory is for; the rules differ by it (design.md, Memory).
type Class string

// The classes of the contract.
const (
	ClassScratch     Class = "scratch"     // read-write, exclusive
	ClassState       Class = "state"       // read-write, implies persistent
	ClassWeights     Class = "weights"     // immutable once sealed, shareable; only models
	ClassReservation Class = "reservation" // counted, not backed
)

// known reports whether it is one of the contract's: no other may come on record.
func (c Class) known() bool {
	switch c {
	case ClassScratch, ClassState, ClassWeights, ClassReservation:
		return true
	}
	return false
}

// Status is where a grant stands in its life.
type Status string

// The statuses of the contract. A queued request is not yet a grant; a released
// one is no longer a record.
const (
	StatusQueued   Status = "queued"
	StatusActive   Status = "active"
	StatusRevoking Status = "revoking"
	StatusZombie   Status = "zombie"
	StatusReleased Status = "released"
)

// SessionID names a data-socket session; empty means none.
type SessionID string

// Owner is who a grant belongs to. Tenant and UID together are one trust domain:
// memory goes from one grant of it to the next without being cleared.
type Owner struct {
	Tenant  string
	User    string
	Session SessionID
	PID     int32
	UID     uint32
}

// Mode is how a session maps a grant.
type Mode string

// The modes of the data socket.
const (
	ReadOnly  Mode = "ro"
	ReadWrite Mode = "rw"
)

// Mapper is a session that holds descriptors of a grant.
type Mapper struct {
	Session SessionID
	PID     int32
	// Tenant is whose session it is: another than the owner's may map a shared model.
	Tenant string
	Mode   Mode
	// Exporting is true while its descriptors are being made or sent. It is not
	// recorded: a successor finds the session either resumed or ended.
	Exporting bool
	// Gone is true once the session has let go, or ended, while descriptors are still on
	// their way to it.
	Gone bool

	hasty   bool // let go while descriptors were on their way, where that is no proof
	exports int  // under way
	sent    bool // some have reached it, or its predecessor's word is that they have
}

// Claim lets its bearer map a grant once. Only the digest is kept.
type Claim struct {
	Digest  [32]byte
	Expires clock.Instant
	Tenant  string // whom it was given to
}

// Grant is what a client was given: one block, or several segments in order.
type Grant struct {
	ID         uuid.UUID
	Owner      Owner
	Class      Class
	Status     Status
	Size       int64 // bytes asked for
	Granted    int64 // bytes given, after rounding
	Align      int64
	Purpose    string
	Persistent bool
	Priority   int
	Type       string // the device type in the contract's spelling
	Model      string // of a weights grant: the model's object key in the catalog
	Sealed     bool   // weights: filled and write-sealed
	Blocks     []heap.Block
	Created    time.Time
	LastUsed   time.Time
	Lease      time.Duration // 0: none
	LeaseEnds  clock.Instant
	Mappers    []Mapper
	Claims     []Claim
	// Shared is true once a description of its segments has left this process and no
	// proof has come since that it is gone.
	Shared bool
	// Bound is true when the grant ends with its owner's session.
	Bound bool
	// Follows is the process whose tree a reservation follows; its zero value is none.
	// Uses is what that tree uses here, in bytes: known of this process only.
	Follows Process
	Uses    int64

	// Filling is true while a transfer has yet to bring all of its bytes: see transfer.go.
	Filling bool
	// Origin is the grant of another device that it was moved from, until the release of that
	// one has begun.
	Origin uuid.UUID

	// looking is true while a search for holders waits to be repeated, look is the pause
	// before the next; 0: the last one found them.
	looking bool
	look    time.Duration

	holds   holds
	former  []SessionID // sessions that mapped it, the latest last; not recorded
	history []HistoryItem
	seq     uint64 // order of arrival in this process
	rec     store.RecID
	release *release
	answer  string // key of the answer that tells of it
	// What nearly every grant needs lies in it: it is made and dropped at the pace of
	// the bus.
	few struct {
		blocks  [1]heap.Block
		claims  [1]Claim
		history [2]HistoryItem
		waiters [1]any
		release release
	}
	lost bool // after a take-over: part of its memory is gone
}

// leased reports whether a lease can end the grant: a persistent one outlives it.
func (g *Grant) leased() bool { return g.LeaseEnds != 0 && !g.Persistent }

// HistoryItem is one thing that happened to a grant. Kept in memory only and bounded;
// after a take-over it begins with «restored».
type HistoryItem struct {
	Event  string
	At     time.Time
	Detail string
}

// maxHistory bounds what one grant remembers of itself.
const maxHistory = 16

// maxClaims bounds the unredeemed claims of one grant; the oldest goes first.
const maxClaims = 64

// segment is the core's view of a physical handle; the driver's handle belongs to the shell.
type segment struct {
	id    heap.SegmentID
	bytes int64
	// weights segments are never recycled: sealed memory can be neither cleared nor reused.
	weights bool
	// last is the trust domain whose bytes may still be in it; empty when it is clean.
	last string
	// raw is true while a transfer is to overwrite all of it, which has not been cleared: its bytes
	// may be anybody's, and last is anybody.
	raw bool
	// doomed segments are being given back and will not be used again.
	doomed bool
	// exports counts the times its descriptors were made: a proof begun before one is
	// void after it.
	exports uint64
	// cleaner is who has it cleared whole; followers wait for that with a block of it.
	cleaner   Ticket
	followers []*Request
	promised  int // blocks of requests that are being prepared
	rec       store.RecID
}

func (g *Grant) note(event string, at time.Time, detail string) {
	if len(g.history) == maxHistory {
		copy(g.history, g.history[1:])
		g.history = g.history[:maxHistory-1]
	}
	g.history = append(g.history, HistoryItem{Event: event, At: at, Detail: detail})
}

// History returns what is remembered of the grant, oldest first.
func (g *Grant) History() []HistoryItem { return append([]HistoryItem(nil), g.history...) }

// Live reports whether any session still holds descriptors of the grant.
func (g *Grant) Live() bool { return len(g.Mappers) > 0 }

// maxFormer bounds the sessions that a grant remembers to have mapped it once.
const maxFormer = 16

// left notes that a session maps the grant no more.
func (g *Grant) left(s SessionID) {
	if slices.Contains(g.former, s) {
		return
	}
	if len(g.former) == maxFormer {
		g.former = slices.Delete(g.former, 0, 1)
	}
	g.former = append(g.former, s)
}

// knows reports whether a session that does not map the grant may hear of it: it owns it,
// or has mapped it.
func (g *Grant) knows(s SessionID) bool {
	return s != "" && g.Owner.Session == s || slices.Contains(g.former, s)
}

func (g *Grant) mapper(s SessionID) *Mapper {
	for i := range g.Mappers {
		if g.Mappers[i].Session == s {
			return &g.Mappers[i]
		}
	}
	return nil
}
