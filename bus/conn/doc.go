// Package conn makes the connections to NATS that nodes and clients use, with the
// settings that this project needs, and gives what happens to them types.
//
// # Contract
//
// Ordering: what is published on one connection arrives in order. Events of a
// connection (Config.Notify) come in order from one goroutine.
//
// Blocking: Dial waits for the first connection, at most a few seconds. Publishing
// never waits for the network. Notify must not block.
//
// Failure: the first connection must succeed; after that the connection is made
// anew for ever, and what is published meanwhile is kept up to 4 MiB. A denied
// publish, which the server tells only on the side, arrives as an Event of kind
// PublishDenied that names the subject.
//
// Ownership: the caller closes the connection.
package conn
