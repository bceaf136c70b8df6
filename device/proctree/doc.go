// Package proctree follows process trees: who belongs to the process that a
// reservation names.
//
// A Table is one look at all processes of the machine. A Tree grows from its root by
// the parents that tables show: who was seen below a member is a member until it has
// exited, even when its parent ends first and it is given to another. Processes are
// told apart by pid and start time, so that a pid that is used again is a stranger.
// A process whose parent began and ended between two looks is missed, unless somebody
// in the tree adopts orphans (PR_SET_CHILD_SUBREAPER).
//
// Read costs one small file a process (a few hundred processes: 2 ms). Nothing here
// is safe for concurrent use, and nothing is global: tests give Read a folder, or
// write tables by hand.
package proctree
