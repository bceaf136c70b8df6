// Package places sets how many processors the Go scheduler of a node may use at once
// (GOMAXPROCS; here: its places).
//
// A command alone on a node is handed between a few goroutines that never run at the same
// time. With a place to spare, each hand-over wakes a thread to look for work that is not
// there: measured on a server of 16 processors, a raw echo through the embedded server took
// 61–71 µs with one place and 83–85 µs with sixteen, an allocate 59–67 and 94–98 µs. Under
// load the other places are needed: with 64 commands in flight one place does 60 % of what
// sixteen do. So a node has one place until goroutines wait for it, and all of them until
// little is left to do.
//
// The signal is the mean number of goroutines that were ready and waited for a place, by
// Little's law the time that they waited divided by the time that passed: the runtime's
// histogram /sched/latencies:seconds has the former. Going back to one place also asks that
// one processor would do what the process does.
//
// # Contract
//
// The decisions are a pure core (governor); Places is its shell: a timer and three injected
// functions. It looks once a millisecond while there is work, five times a second while there
// is none. Setting the number of places stops the process for some ten microseconds; it is
// not done more often than the load changes, and less often the more the load flaps.
//
// Blocking: Add does not, but for the setting itself. Failure: there is none; Close leaves
// all places.
package places
