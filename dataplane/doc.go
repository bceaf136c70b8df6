// Package dataplane serves the data socket: the unix socket over which clients open a
// session, redeem claims for the descriptors of their memory, and are asked to give
// memory back. The messages are those of the contract, on package fdwire. Bytes
// of memory never pass through here, only descriptors.
//
// The server decides nothing. What a message means is the Desk's business,
// which package actors implements.
//
// # Session
//
// A session is a connection. A client says hello first, within Config.HelloTimeout. At
// end-of-file, or when the connection fails in any way, the Desk hears Ended, once
// for each Hello that it answered without an error. The Desk also gets the
// client's pidfd and watches it: a forked child can keep a socket open. When
// the node itself closes the server, Ended is not called: its sessions do not end,
// their clients come back to the next node.
//
// # Ordering
//
// Requests of one connection reach the Desk in their order, each before the next
// is read. Answers go out in the order in which the Desk gives them; their ids say
// what they answer. A Revoke sent by the Desk after an answer arrives after it.
//
// # Blocking
//
// Nobody is waited for. The Desk answers by a callback from any goroutine, also
// during the call. Sending never blocks: a client that reads too slowly is
// disconnected, and its session ends. Each connection has one goroutine, which
// reads. More than Config.MaxOutstanding unanswered requests of a connection are
// refused with BUSY; more than Config.FramesPerSecond close it.
//
// # Ownership
//
// The files of a Mapping belong to the server from the callback on, which closes them
// when they are sent or the connection is gone. The pidfd of a Peer belongs to the
// Desk from Hello on, and so does an offered file from Offer on; a descriptor that came
// with any other message is closed.
//
// # Failure
//
// A malformed frame, or anything before hello, closes the connection. A well-formed
// request that makes no sense is answered with an error of the contract's
// table. A Desk's error that is no *schemas.Error is logged and answered as
// INTERNAL_ERROR without its text. Claims and resume tokens are never logged.
//
// # Testing
//
// The server runs on any path with any Desk; a fake one is a few lines. Package
// dataplane/client is the other side.
package dataplane
