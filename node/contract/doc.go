// Package contract holds a running node to the wire contract. It has no code, only tests:
// plain NATS messages in both formats go in, and every answer and event that comes out is
// compared with a table of the contract's fields that is written down here by hand, apart
// from the Go types that the node itself uses.
//
// # Testing
//
// Every test starts a node of its own with a simulated device (package nodetest). Nothing
// sleeps: what takes time is waited for, as an event or as the end of an operation. At the
// end of a test its events must be without gaps, and none may carry a claim.
package contract
