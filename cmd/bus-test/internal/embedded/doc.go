// Package embedded runs nodes of bus-test's own, as users run them: a process for the
// node, with the NATS server inside, and one for the vault that it spawns. Both are the
// bus-test program again, called by its hidden subcommands, so that one binary is enough
// and a measurement never shares a runtime with what it measures.
//
// Start is the parent's side: it writes a Spec, waits until the node serves, and can kill
// the node like a crash, start it again over the same vault, or stop it cleanly. Serve is
// the child's. The child ends when its standard input does, so that nothing is left
// behind when the parent dies; the vault of a node that was killed is ended by Stop.
//
// A Node's methods may be called from one goroutine at a time. Every error names what the
// child said last.
package embedded
