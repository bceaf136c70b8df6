// Package client is the Go side of the data socket: it opens a session, redeems claims
// and maps the memory they stand for.
//
// # Session
//
// Dial connects and says hello. When the node goes, the mappings stay: their memory
// outlives it. The client connects again as soon as a node listens, resumes its
// session and tells what it still holds; Config.OnResume hears how that went.
// Requests meanwhile wait for the new connection or their context; requests that were
// on their way fail with ErrDisconnected, and a claim among them is spent.
//
// # Views
//
// A Mapping's segments are views of shared memory: no copy is made, and other processes
// may change them at any time if the grant is written to. Unmap, and the end of a
// revocation, take the memory away: using a view afterwards faults. A read-only
// mapping faults on writing.
//
// # Revocation
//
// When the node wants a grant back, Config.OnRevoke runs on a goroutine of its own.
// When it returns, the client unmaps the grant and says so. Without OnRevoke
// nothing is unmapped: the node counts the bytes as a zombie's until Unmap or the
// process's end.
//
// # Blocking
//
// All methods may be called from any goroutine; they block until their answer has come
// or their context is done. Close unmaps everything and ends the session.
//
// # Fork
//
// A child process that inherits the socket keeps the connection open but not the
// session: the node watches the process that connected. Children started by os/exec
// inherit neither the socket nor the memory.
package client
