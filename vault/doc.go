// Package vault keeps file descriptors alive while no node runs.
//
// Memory lives as long as somebody holds its descriptor. The vault is a second,
// tiny process that holds every one of them, by id, and hands them to the next
// node. It knows nothing of devices, grants or NATS. Run is the process; Connect is
// the node's side; Spawn starts a vault where none answers.
//
// # The fence
//
// At most one node holds the vault. It is known by its pidfd, which the kernel
// vouches for, not by its connection. A second node is admitted only
//
//   - when the first one is dead, or has released the vault with Close(true);
//   - when the first one is silent, that is does not answer a ping within
//     Config.PingTimeout: the vault ends it by SIGKILL and waits until the kernel
//     says it is gone;
//   - when the second one asks to take over: the first is ended in the same way.
//
// Else it is refused with a *HeldError that names the holder. One that answers is
// never ended unasked. A node that closed its connection without Close(true)
// cannot answer; it has PingTimeout to come back. So the table
// is handed over only when nobody else can write to the memory.
//
// # Put and Drop
//
// Put returns when the vault holds the descriptors: from then on they survive the
// node's death at any instruction. Callers put concurrently; what gathers while an
// answer is awaited travels in one message of up to 128 descriptors. Put is
// not atomic: after an error drop what was put. Drop returns when the vault has
// closed its descriptors. Both block; call them from workers, not from an actor.
//
// # When the vault ends
//
// An empty vault ends with its node. One with a table waits Config.NodeTimeout for
// the next node and then ends as soon as nobody uses its memory. Proof of that is
// the write lease: the kernel grants F_SETLEASE F_WRLCK only if no other description
// made by open(2) has the file open or mapped. It does not see duplicates of the
// descriptor that memfd_create returned, so nodes hand their clients descriptions
// made by open. A descriptor that takes no lease, such as a GPU's, counts as in
// use. The proof is tried again each
// Config.RecheckEvery.
//
// If the vault itself dies nothing is lost while its node lives: Lost fires, and the
// node connects anew and puts everything again.
//
// # Who may speak to it
//
// Processes of the vault's own user, and root, by the kernel's peer credentials. The
// socket lies in a directory of mode 0700. List and Query are allowed to them
// at any time, beside the node.
//
// # Cost
//
// Idle it has no timer, no polling and no running goroutine. Its memory is that of
// the Go runtime and of the packages that the binary links, and 24 bytes a
// descriptor; Run trims what the runtime allows.
//
// # Testing
//
// The fence is a pure state machine with its own table of scenarios. Everything else
// is tested with real processes that are killed and stopped. Config.Crash marks the
// points around a put at which a test ends the node. Off is a Keeper without a
// process, for measuring what the vault costs.
package vault
