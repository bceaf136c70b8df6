// Package codec turns bytes into requests, and replies and events into bytes, in
// JSON and in MessagePack.
//
// # Reading
//
// DecodeRequest reads a command as the contract says: strictly, with errors that
// name the field, and with the same outcome in both formats, because one decoder
// driven by the tags of package schemas reads both. Everything that arrives passes a
// structural guard first (Guard, GuardJSON): exactly one value, bounded depth, no
// declared length beyond the bytes that are there. What passes is bounded by its own
// size, so a hostile payload costs time and memory in proportion to its length and
// never more. No input panics.
//
// The order of complaints is that of the contract: envelope, then shape of data.
// Whether ids exist and what state they are in is for the actors.
//
// # Writing
//
// EncodeReply, EncodeEvent and Append write what package schemas declares, under the
// same names in both formats. They append to the caller's buffer, never fail, and
// allocate nothing but the buffer's growth for values given by pointer. They write
// what encoding/json would, with these differences: an empty list is [] and an empty
// map {} even when nil, times are UTC, numbers that are not finite are null, and
// characters that only HTML minds are not escaped.
//
// # Clients
//
// EncodeRequest and DecodeReply are the other side. DecodeReply ignores fields it does
// not know, so that an old client can talk to a new node.
//
// # Concurrency and ownership
//
// All functions may be called from any goroutine. Nothing that is returned aliases
// the input. A value that is being encoded must not be changed meanwhile.
//
// # How to test
//
// The fuzzers hold the reader against encoding/json and msgpack/v5, the writer against
// encoding/json, and both formats against each other. `go test ./codec` runs their
// kept corpora; `go test -fuzz FuzzGuard ./codec` looks for more.
package codec
