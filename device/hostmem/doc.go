// Package hostmem reads what the machine, and the control groups this process
// lives in, have and use of main memory.
//
// A byte of RAM has to pass several constraints before it is real: the machine
// must have it, and so must every control group from this process's own up to the
// root, because each of them may have a limit and each counts all that runs below
// it. Read gathers them as Levels, and Figures answers the three questions that a
// memory device asks: how much is there (PhysicalBytes), how much of it do others
// use (OutsideBytes), and how much can be taken now without anybody being killed
// (RoomBytes).
//
// Control groups of version 1 and 2 and hybrids of both are understood, with or
// without a cgroup namespace. A limit as large as the machine is no constraint and
// is left out; version 1 spells "no limit" as a huge number.
//
// On a machine of several NUMA nodes Nodes lists them, and ReadNode takes a reading for
// memory that is bound to one: the node stands in the machine's place.
//
// A Reader keeps where the files are and looks again only when the process has
// been moved to another group, so that a reading costs a few small files (on a
// busy small machine, 2026-11: 150 µs). It is safe for use by several goroutines. Nothing
// here blocks beyond those reads, and nothing is global: tests give Config.Root a
// folder with the files of any machine they like.
package hostmem
