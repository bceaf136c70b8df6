// Package ledger holds the records and the rules of memory: who was promised
// which bytes, who waits for some, and when bytes are free again.
//
// Everything here is pure: plain single-threaded structs that have no
// goroutine, no clock and no I/O. A message and the time go in; effects come out
// (the shape of etcd's raft: Step, Tick, Ready). The one thing a core writes is
// its region of the ledger, a byte slice (package ledger/store), because the rule
// «in the ledger before it is handed out» must not depend on a shell's care: an
// effect that lets bytes leave is only ever emitted after the commit that records it.
//
//   - Device is the core of a device actor: heap, grants, queue, mappings,
//     revocation and proofs of release of one device.
//   - Sessions is the core of the sessions actor: data-socket sessions.
//   - Answers remembers the outcome of commands by request_id.
//
// # Ownership and order
//
// Each core has one writer, the actor that holds it. Effects are taken after each
// call with Take, each once, and must be carried out in order: jobs are given to
// workers, whose results come back as calls of the core; everything else is sent on. An
// effect that is not taken after its call comes with the next Take. A core never
// waits and is never waited for.
//
// # Failure
//
// A refusal is a *schemas.Error with the contract's code and details. A record that
// cannot be written because the ledger is full refuses the request and leaves
// everything as it was; for a record of something that has already happened
// (a release) room is held back, the Ballast. Anything that contradicts the books is a
// defect: the core panics, the process ends, and the next one takes over. An image that
// no core can have written is an *ImageError.
//
// # Testing
//
// Cores are tested as data: scenario scripts in testdata/scenarios, which are the best
// place to learn what a device does; random histories on the machine of package
// ledgertest, which checks after every call what must always hold; and the ledger image
// cut after every store. Device.Check recomputes all that is kept twice. No test sleeps.
package ledger
