// Package api binds the entry points of the CUDA driver API and of NVML that the
// driver of a GPU uses, without cgo: libraries are opened by name when asked for, and
// each entry point is looked up once.
//
// It adds nothing to the calls but types, names and errors. What the C functions
// promise holds here too: most CUDA calls need a context that is current on the calling
// thread, so that callers are locked to their threads; handles are plain numbers whose
// life is the caller's business; and memory given to an asynchronous copy must stay
// where it is until the stream has come past it, so that it may not be the garbage
// collector's.
//
// # Failure
//
// A library that is not there or lacks an entry point is device.ErrUnsupported with the
// names that are missing and the fix. A call that fails is an Error: which call, and the
// code, which prints as the name that NVIDIA's documentation has for it.
package api
