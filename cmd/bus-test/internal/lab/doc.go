// Package lab puts a node under real pressure: a control group with a limit holds a node
// whose warm tier is full of loaded, unread models, and a foreign process, which asks nobody,
// grows in it at a gigabyte a second and more. The kernel's own counter says how many
// processes it killed. Half of the rounds run with the optimizer, half with it off.
//
// Run needs root and a hierarchy with a memory controller: version 2 where it has one, else
// version 1. Guest does the same inside a virtual machine (QEMU under software emulation, a
// Debian kernel, this program as its init), where version 2 is complete and nothing can be
// hurt.
//
// The processes of a round are this program, called again: Inside is the node, in the group
// from its first instruction; Grow is the foreign process. A round ends with everything in its
// group; nothing outside of it is touched.
package lab
