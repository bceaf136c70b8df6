// Package schemas is the wire contract as Go types: actions with their requests
// and replies, events, errors, enumerations and subjects. It imports nothing of
// the project and does no I/O, so that every room, and users' own programs, may
// import it.
//
// # Names
//
// The `json` tag is the name on the wire, in JSON and in MessagePack alike. Wire
// names are snake_case and convert to PascalCase and back without loss (Pascal and
// Snake; a test proves it for every field), so that C# clients can transform them
// mechanically. Go field names use Go's spelling (DeviceID, not DeviceId).
//
// # Declared, not coded
//
// What the contract says about one request field stands in the field's tags, and
// package codec is the one place that acts on them:
//
//	default:"30"             the value a handler sees when the field is absent
//	check:"required,min=1"   the shape rules, listed below
//	alias:"memory_type"      an older name accepted for the field
//	mb:"model_limit_mb"      a second form of a bytes field, in megabytes
//
// Shape rules: required; min=N and max=N (numbers); positive (greater than 0);
// pow2 (0 or a power of two); bytes=N (longest string, in bytes); items=N (longest
// list). A string without bytes= may be MaxStringBytes long, a list without
// items= may have MaxListItems. Rules between fields are the request type's
// Validate method, which the decoder calls last.
//
// After decoding a handler sees final values: defaults filled in, aliases and
// units normalised, enumerations in the contract's spelling. A field with a
// non-zero default is a pointer, so that a Go client can leave it out; after
// decoding it is never nil. An optional field whose absence means something is a
// pointer without a default.
//
// # Values
//
// Sizes are int64 bytes. Times are UTC; a time that may be absent is a pointer.
// Values are plain data: whoever holds one may read it from any goroutine as long
// as nobody writes to it.
package schemas
