// Package jsonschema describes the types of package schemas as JSON Schema (2020-12).
//
// Request, Reply, Event and the envelopes each make one schema that stands alone: its named
// types are under $defs, its $id is a URN and names no place to fetch it from. A schema says
// what a client should send and may rely on. The node is more lenient with requests: null is
// as good as absent, so is an empty string where a field is optional, and enumerations are
// taken in any letter case.
//
// Rules between fields beyond those that a schema says (two forms of one field exclude each
// other) are in the descriptions. Lengths of strings are in bytes on the wire; maxLength,
// which counts characters, is their upper bound.
//
// The functions are pure, may be called from any goroutine, and panic where a type of
// package schemas cannot be described: a test describes all of them.
package jsonschema
