// Package weights reads model files: what is in them, where it should go in memory,
// and getting it there.
//
// The way of a model is Inspect (headers only), Model.Layout (pure), Load (bytes),
// Close. The package knows files and byte ranges, not devices: memory is a Sink,
// which the caller builds from its segments.
//
// # Formats
//
// safetensors: one file, the shards of a *.safetensors.index.json, or a folder that
// holds either. GGUF versions 2 and 3, little-endian, also split into several files.
// Shapes are row-major in both. The readers are as strict as the reference libraries
// (huggingface/safetensors 0.8; ggml) and stricter where those let the last one win:
// no key twice, a shard's tensors are exactly those that the index has there, shards
// are plain names beside the index. A count, length or offset is compared with the
// file's size before it is believed, so a lying header costs no more memory than the
// bytes it really has. What does not fit is a *FormatError that names the byte.
//
// # ContentID
//
// A ContentID is the hex SHA-256 over the format and, for each file in the order of
// their names: the SHA-256 of its header, its size, device, inode and modification
// time; and of a sharded model its index's. The weights themselves are not hashed,
// nor are paths: a renamed or hard-linked file keeps its ContentID; a copy, and a file
// that was touched, get another. So equal means the same bytes, as far as nobody writes
// a file in place and then sets its time back; different may be a false alarm, which
// costs a reload, while a false equality would serve wrong weights. It is good for
// one boot of one machine.
//
// # Files
//
// Paths are opened through Roots only (see there), never waiting on a pipe, regular
// files alone. A Model keeps its files open, so that what is loaded is what was
// described even if the path leads elsewhere by then; Load checks afterwards that
// the files themselves did not change. The check relies on the kernel's clock tick for
// file times (4 ms or finer): a write in the very tick of Inspect that changes no size
// is not seen. Bytes are read by the Sink with pread, never through a mapping, so that
// a file that shrinks is an error and not a signal.
//
// # Blocking, ownership, concurrency
//
// Inspect and Load block on the disk; call them from a worker, not from an actor.
// A Model and a Layout are immutable values that any goroutine may read; Close is the
// owner's, after the last Load. Load returns only when no worker touches the sink.
//
// # Failure
//
// errors.Is with ErrInvalidModel or ErrNotReadable says which wire code fits; the
// typed errors behind them carry the details. Other errors are the context's or the
// sink's.
//
// # Testing
//
// Package weightstest writes models of any size and form from a seed and takes loads
// into plain memory. `go test ./weights/...` compares with the reference libraries and
// wants their Python interpreter in ISOBAR_PYTHON, which `make test` provides; with
// -short it leaves that out. Fuzzers: FuzzSafetensors, FuzzGGUF, FuzzIndex.
package weights
