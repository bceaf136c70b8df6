package device

import "time"

// Severity is how tight somebody beside the figures says that a device's memory is.
type Severity uint8

// The severities of a Signal, in order.
const (
	// Calm says nothing but that the source can be heard.
	Calm Severity = iota
	// Tight: processes wait for memory, or the kernel throttles them.
	Tight
	// Dire: all of them wait, or one has been or is about to be killed.
	Dire
)

// Signal is what a source of pressure beside the figures says at one moment.
type Signal struct {
	// Source names it for ever: the kernel's file.
	Source   string
	Severity Severity
	// Hold is how long the signal counts if no other follows.
	Hold time.Duration
	// Reason is for people.
	Reason string
	// Lost is set when the source cannot be heard any more; the next signal without it
	// says that it can again.
	Lost bool
}
