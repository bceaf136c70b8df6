// Package seam is the actor runtime of the node: a name, a mailbox and one
// goroutine at a time. It is the only package that knows which actor library
// runs underneath, and it hides every part of that library but spawning and
// message dispatch.
//
// # Ordering
//
// A mailbox has four lanes: System before Release before Grant before Query.
// Messages of one sender on one lane arrive in the order they were told. A
// higher lane goes first, always, with one exception that keeps questions
// answerable under load: after QueryQuota messages of higher lanes in a row
// while a query waits, one query is delivered.
//
// # Blocking
//
// Tell never waits: it enqueues, or it answers ErrBusy (the lane is full) or
// ErrStopped. Receive must not wait either: work that blocks belongs on a
// goroutine that tells its result back on the System lane. Such results must
// never be refused, so whoever starts work takes the credit for its answer first;
// the System lane is therefore only capped, high above any credit given, and
// hitting the cap is a defect that is handled like a panic of the receiver.
//
// # Ownership
//
// A message belongs to the receiver once Tell returned nil. A Receiver's
// state is its own: it runs on one goroutine at a time, and each run sees what
// the previous one wrote.
//
// # Failure
//
// A panic in a Stateful receiver ends the process by default: what it half did
// is unknown, and the node's one recovery path is a fresh process that takes
// over. A stateless receiver loses the message that hurt it and goes on with the
// next; if it implements Restarter it is told first. A receiver that failed for
// good never runs again.
//
// # Testing
//
// Receivers are plain values: call Receive. To test several together, spawn
// them in a System, end it with Shutdown, and give WithExit a function that
// records instead of exiting.
package seam
