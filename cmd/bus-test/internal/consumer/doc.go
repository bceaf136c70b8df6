// Package consumer is a process that maps grants, a second one to compare with or one to be
// killed: the child's side (Serve, called by a hidden subcommand) and the parent's (Start). A
// consumer opens a session on the data socket, maps, fills and sums what it is told, and
// otherwise waits; it ends when its standard input does.
//
// A Process's methods may be called from one goroutine at a time.
package consumer
