// Package fdwire carries messages and file descriptors over a unix stream socket.
// The data socket and the vault speak it.
//
// # The wire
//
// A message is a 4-byte big-endian length (1 byte to Config.MaxFrameBytes, at most
// 1 MiB) and one MessagePack map of that many bytes, with string keys, among them
// `type` and `id`. Descriptors ride as SCM_RIGHTS on any byte of the message that
// names them, at most 253 of them. Go code here attaches them to the first byte.
//
// # Ordering
//
// Messages of one connection arrive in the order of Send, each with exactly the
// descriptors that were sent with it: a read never crosses the end of a frame, so
// descriptors cannot stray to the next one.
//
// # Blocking
//
// Send never blocks. What the socket does not take at once waits in a queue bounded
// in bytes and in messages; a peer that lets it overflow is disconnected with
// ErrSlowPeer. There is no goroutine for writing unless something waits. Read
// blocks; one goroutine at a time may call it.
//
// # Ownership
//
// The descriptors of a received Frame belong to the reader, who takes those it
// wants and closes the rest with Frame.Close. The descriptors of a sent Message
// are closed when they are on their way or the connection is gone, unless Done is
// set: then they stay the sender's and must live until Done is called. All
// descriptors arrive with close-on-exec set.
//
// # Failure
//
// A frame that is too long, empty, no sound MessagePack map by Config.Guard, or
// whose descriptors did not all arrive (MSG_CTRUNC: too many, or the process is
// out of descriptors) is an ErrMalformed: every descriptor that came with it
// is closed and so is the connection. After the first failure every Send and
// Read returns that failure. The end of the stream between two messages is io.EOF,
// inside one io.ErrUnexpectedEOF.
//
// # Who is there
//
// PeerOf asks the kernel for the process at the other end: pid, uid, gid, start
// time and a pidfd. A pid alone may name another process a moment later; the
// pidfd and the pair of pid and start time do not. Watcher calls back when the
// process of a pidfd has ended: one goroutine for any number of processes, none
// of which costs anything until it ends.
//
// # Testing
//
// Pair makes two connected Conns. Everything works on socket pairs without a
// file system; the fuzzer FuzzFrames sends arbitrary bytes with descriptors
// and counts what stays open.
package fdwire
