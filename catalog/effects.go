package catalog

import (
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// StepKind names work that others do for the catalog.
type StepKind uint8

// The steps, each with the call that reports its end.
const (
	StepInspect  StepKind = iota + 1 // read the headers of a model's files [Inspected]
	StepAllocate                     // ask the device for a weights grant [Granted, Refused]
	StepFill                         // read the files into the grant [Filled]
	StepCopy                         // copy the bytes of another copy into the grant [Filled]
	StepSeal                         // write-seal the grant [SealDone]
	StepRelease                      // end the grant [Released, ReleaseRefused]
	StepAbandon                      // take back an allocation request that still waits [Refused]
	StepStop                         // stop a running fill at its next chunk [Filled]
)

// Step is work for others. Copy is the copy it is about; it must not be changed.
type Step struct {
	Kind     StepKind
	Copy     *Copy
	Request  *LoadRequest // StepInspect
	Estimate int64        // StepInspect: bytes that the copy will take, as far as that can be said; 0: not at all
	Patience time.Duration
	Modest   bool // StepAllocate: nothing is to be released for it
	Awaits   bool // StepAllocate: what is being released there may be for it
	Grant    uuid.UUID
	From     *Copy // StepCopy
	Force    bool
	Deadline time.Duration
	Why      string
	Source   any
}

// OutcomeKind says which answer an Outcome is.
type OutcomeKind uint8

// The answers of the catalog.
const (
	OutcomeLoaded   OutcomeKind = iota + 1 // Copy is sealed; Hit tells whether it already was
	OutcomePlanned                         // a dry run: Segments would have to be granted
	OutcomeRefused                         // Err
	OutcomeUnloaded                        // Names, Freed, Confirmed, Zombie
	OutcomeAcquired                        // Copy and Reference
	OutcomeProgress                        // the load runs: for whoever follows the operation
)

// Outcome answers a request by its Ref.
type Outcome struct {
	Kind      OutcomeKind
	Ref       any
	Copy      *Copy
	Hit       bool
	Took      time.Duration
	Segments  []int64
	Estimate  int64 // OutcomePlanned: what would be reserved before that is known
	Reference *Reference
	Names     []string
	Freed     int64
	Zombie    int64
	Confirmed bool
	Reason    string
	Position  int
	Evicted   []ledger.Evicted
	Err       *schemas.Error
}

// Event is something services may want to hear of a model.
type Event struct {
	Kind      schemas.EventKind
	Copy      *Copy
	RequestID string
	Done      int64
	Took      time.Duration
	Freed     int64
	Reason    string
	Err       *schemas.Error
	// Readers, by tenant, are those of a shared model before its release began; else nil.
	Readers map[string]int
}

// UseKind says what became of a model that somebody asked for.
type UseKind uint8

// The kinds of uses.
const (
	UseHit   UseKind = iota // it was there, or another's load brought it
	UseLoad                 // it was loaded for this
	UseTouch                // not asked for anew: it is mapped, or a handle of it was fetched
	UseGone                 // not a use: a client let go of it
)

// Use is one time that somebody asked for a model on a device.
type Use struct {
	Kind   UseKind
	Key    string // of the copy
	Device string
	At     clock.Instant
	Bytes  int64
	Cost   time.Duration // of having it again
	Took   time.Duration // the load, of a UseLoad
}

// Effects is what the catalog wants done; valid until its next call.
type Effects struct {
	Steps    []Step
	Outcomes []Outcome
	Events   []Event
	// Kept are the grants of copies that were to be evicted by way of main memory, and stay.
	Kept []uuid.UUID
	// Devices whose reclaimable bytes may have changed.
	Devices []string
	// Uses of models, in order: what the eviction policy has heard too.
	Uses []Use
}

func (e *Effects) reset() {
	clear(e.Steps)
	clear(e.Outcomes)
	clear(e.Events)
	clear(e.Uses)
	*e = Effects{Steps: e.Steps[:0], Outcomes: e.Outcomes[:0], Events: e.Events[:0], Kept: e.Kept[:0], Devices: e.Devices[:0], Uses: e.Uses[:0]}
}
