// Package stall hears the kernel say that main memory is tight: what no figure shows in
// time, because it is about processes that wait and not about bytes.
//
// The sources, as far as the kernel offers them, of the machine and of every control group
// above this process:
//
//   - PSI (/proc/pressure/memory and memory.pressure of version 2 groups): a tenth of the time
//     some task waits for memory is tight, all of them dire. Triggers are asked for with a window
//     of 500 ms, then of 2 s (all that a process without CAP_SYS_RESOURCE may have), and where
//     the kernel gives none the file is read each second.
//   - memory.events of version 2 groups: memory.high was crossed is tight, memory.max was
//     hit dire, both only when hardly any page cache is left to drop (a 32nd of what the group
//     uses): reclaiming cache at the limit is everyday business. An out-of-memory event is dire.
//   - memory.pressure_level of version 1 groups: medium is tight, under the same
//     condition; critical is dire.
//
// Open says which of them can be heard. Each report comes from a goroutine of this package or
// of the clock, one at a time, and must not block. A source that fails later is reported as
// lost and asked for again every ten seconds.
//
// The kernel is a seam (Kernel), as is the clock: tests fire triggers by hand.
package stall
