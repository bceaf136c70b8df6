package ledger

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/schemas"
)

// Effects is what a core wants done, taken after each call. The slices are reused by
// the next Take: carry them out before calling the core again.
type Effects struct {
	Jobs     []Job
	Outcomes []Outcome
	Events   []Event
	Revokes  []Revoke
	Ends     []End
	Wants    []Want
	Readers  []Reader
	// Interrupts are held grants whose release has begun: who works on them should stop soon.
	Interrupts []uuid.UUID
	// Abandon is true when the copies of the JobVacate under way have become useless.
	Abandon bool
	// Figures is true when the device's bytes changed.
	Figures bool
	// Cause is what changed them, for the pressure event; RequestID and Model are of the
	// request that did.
	Cause     string
	RequestID string
	Model     string
}

func (e *Effects) reset() {
	clear(e.Jobs)
	clear(e.Outcomes)
	clear(e.Events)
	clear(e.Revokes)
	clear(e.Ends)
	clear(e.Wants)
	clear(e.Readers)
	clear(e.Interrupts)
	*e = Effects{Jobs: e.Jobs[:0], Outcomes: e.Outcomes[:0], Events: e.Events[:0],
		Revokes: e.Revokes[:0], Ends: e.Ends[:0], Wants: e.Wants[:0], Readers: e.Readers[:0], Interrupts: e.Interrupts[:0]}
}

// JobKind says what a worker is to do with the driver.
type JobKind uint8

// The jobs. Each comes back to the core as the call named in brackets.
const (
	JobCreate  JobKind = iota + 1 // make segments and put them into the vault [Prepared]
	JobClear                      // zero ranges of segments for a waiting request [Prepared]
	JobWarm                       // make one segment for the warm pool [Warmed]
	JobScrub                      // zero one pooled segment [Scrubbed]
	JobProve                      // has everybody else let go of these segments? [Proved]
	JobDestroy                    // drop the segments here and in the vault [Destroyed]
	JobExport                     // make descriptors for one session [Exported]
	JobSeal                       // write-seal weights [SealDone]
	JobHolders                    // who still holds these segments? [HoldersFound, HoldersUnknown]
	JobVacate                     // copy a segment's blocks elsewhere [Vacated]
)

// Range is a part of a segment.
type Range struct {
	Segment heap.SegmentID
	Bytes   int64 // of the whole segment
	Offset  int64
	Length  int64
}

// Job is work for the driver's goroutines.
type Job struct {
	Kind    JobKind
	Ticket  Ticket
	Grant   uuid.UUID
	Ranges  []Range
	Weights bool
	// Unclear is a JobCreate's of memory that will be overwritten: of each segment only what
	// Offset and Length say is to be zero.
	Unclear bool
	// Moves are the copies of a JobVacate; Prove asks whether nobody else has the segment, the
	// only one of Ranges, open or mapped.
	Moves   []heap.Move
	Prove   bool
	Session SessionID
	Mode    Mode
	Ref     any    // JobExport: what the caller of Map passed
	Info    *Grant // JobExport: valid until the next call of the core
}

// OutcomeKind says which answer an Outcome is.
type OutcomeKind uint8

// The answers of a device core.
const (
	OutcomeGranted      OutcomeKind = iota + 1 // Grant and Claim are set
	OutcomeQueued                              // the request waits; Position and Reason are set
	OutcomeRefused                             // Err is set
	OutcomeReleased                            // Freed, Zombie, Confirmed are set
	OutcomeSealed                              // Grant is set
	OutcomeTrimmed                             // Freed is set
	OutcomeDefragmented                        // Defragmented is set
)

// Outcome answers one request. Ref is the request's own.
type Outcome struct {
	Kind         OutcomeKind
	Ref          any
	Ticket       Ticket
	Grant        *Grant // valid until the next call of the core
	Claim        string
	Queued       int64 // nanoseconds spent waiting for room
	Evicted      []Evicted
	Position     int
	Reason       string
	Freed        int64
	Zombie       int64
	Confirmed    bool
	Defragmented Defragmented
	Err          *schemas.Error
}

// Evicted is a model that went to make room for a request.
type Evicted struct {
	Model  string
	Tier   string // in the contract's spelling
	Bytes  int64
	Cost   time.Duration // what loading it again would take
	Reason string
}

// EventKind names the allocation events of the contract.
type EventKind string

// The events.
const (
	EventAllocated   EventKind = "allocated"
	EventDeallocated EventKind = "deallocated"
	EventQueued      EventKind = "queued"
	EventRefused     EventKind = "refused"
	EventExpired     EventKind = "expired"
	EventMoved       EventKind = "moved"
	EventZombie      EventKind = "zombie"
	EventConfirmed   EventKind = "confirmed"
)

// Event is something services may want to hear of a grant.
type Event struct {
	Kind      EventKind
	Grant     uuid.UUID
	Owner     Owner
	Class     Class
	Model     string
	Purpose   string
	Size      int64 // bytes asked for
	Bytes     int64 // bytes granted; 0 of a request
	Queued    int64 // EventAllocated: nanoseconds spent waiting for room
	Reason    string
	RequestID string
	Position  int
	PIDs      []int32
}

// Revoke asks a session to let go of a grant.
type Revoke struct {
	Session  SessionID
	Grant    uuid.UUID
	Deadline clock.Instant
	Reason   string
}

// Want asks the optimizer for room.
type Want struct {
	Ticket Ticket
	Bytes  int64
	Model  string // the model whose load wants it, the plan's last victim
	// Tenant needs it. With Own, for the sake of its quota: only its own models may go.
	Tenant   string
	Own      bool
	Priority int
	Reason   string
}

// Reader reports that a session began or ceased to hold a model's descriptors.
type Reader struct {
	Model   string
	Grant   uuid.UUID
	Session SessionID
	PID     int32
	Tenant  string // the session's
	Gone    bool
}
