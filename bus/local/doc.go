// Package local is a NATS client for the server in the same process.
//
// The general client hands each message from its reader to a goroutine of the
// subscription, and each publish to a goroutine that flushes: on a machine whose
// processors are busy serving models, every such hand-over costs a wake-up of a
// processor. This client runs handlers on the goroutine that reads, and writes on
// the goroutine that publishes. docs/decisions/0013 has the figures.
//
// # Contract
//
// Ordering: what is published by one goroutine arrives in order. Handlers run one at
// a time, in the order of the messages' arrival, whatever their subscription.
//
// Blocking: Publish never waits for another client: an embedded server always reads.
// A handler holds up all others of its connection, so it only decodes, decides and
// passes on. Flush waits, and must not be called by a handler.
//
// Ownership: a message and all that it points to is the handler's until it returns;
// Publish copies what it is given.
//
// Failure: a connection that the server ended is made anew, with its subscriptions,
// until Close; what is published meanwhile fails with ErrDisconnected, and what was
// sent to its subscriptions is lost, as with any NATS client.
package local
