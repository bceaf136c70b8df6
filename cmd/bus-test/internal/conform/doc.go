// Package conform checks a node against the wire contract, from outside: over NATS, over the
// data socket, and by what the kernel says.
//
// Every built action is tried in both formats, JSON and MessagePack, which are encoded and
// read here by other means than the node's. A check has a name that says what is tried and
// what must come of it, for example
//
//	allocate/json/size_bytes-0 → INVALID_REQUEST
//
// Most checks follow from tables: fields.go makes bad values of every field from the tags of
// package schemas, envelope.go and payload.go try every action in every envelope and under
// hostile payloads, and every reply that passes has its envelope, headers and fields checked,
// against the types of the contract and against the JSON Schemas that the node shows; every event
// is held to its schema too.
// Effects are checked by hand-written steps: what the node says of its memory, the kernel's
// blocks of its memfds, and the checksums of a second process that maps the same memory.
//
// To add an action, give it a sample in samples.go and its effects in effects.go; the tables
// do the rest. A built action without a sample is a failed check.
//
// Conform's own node has annexes, started when a check needs them: a node with a slow device, on
// which work is stopped half-way; one with tenants, on which every user tries every action and
// looks for what is another's; and two nodes on one server. A node named by its URL is left as it
// is, and checked without them.
//
// A check leaves nothing behind: what it was granted or loaded is released after it. The node
// must serve nobody else meanwhile, or figures change under a check's eyes.
//
// The checks run one after the other on the caller's goroutine.
package conform
