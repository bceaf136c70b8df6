// Package actors is the house: the actors that own the node's state, and the desk that
// gives them commands.
//
// An actor is the few lines that feed a pure core (packages ledger, catalog, pressure,
// eviction) and carry out its effects. Each has one piece of state and is its only writer:
//
//   - device, one each: the device's bytes, grants, queue and its region of the ledger.
//   - optimizer, one each device: making room. The only party that orders evictions.
//   - pool: models and their copies.
//   - monitor: pressure levels.
//   - sessions: data-socket sessions, remembered outcomes, operations.
//   - analytics: what happened, within bounds. Nothing is decided by it; it restarts in place.
//   - transfer: loads under way.
//
// # Messages
//
// A message is a call that is made on the actor's own goroutine (message). The methods
// that send them say what they mean; results of work that blocks come back in the same
// way, on the System lane, which never refuses. Commands are refused with BUSY when their
// lane is full. Nobody waits for an answer: whoever brings the last part answers.
//
// # Commands
//
// Submit gives a command to the actor that does it, on the subscription's own goroutine
// where that actor is idle. A command whose outcome is remembered, or that names a
// session, goes by the sessions actor first. Each command is answered exactly once.
//
// # Failure
//
// A panic in an actor is a defect and ends the process: memory and records are in the
// vault, and the next process takes over. A driver's error is told to who asked, and what
// was half done is undone.
//
// # Testing
//
// Open a House with simulated devices, vault.Off and a clock.Manual; see house_test.go.
package actors
