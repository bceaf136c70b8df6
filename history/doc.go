// Package history remembers, within bounds, how a node's devices fared: what was in use,
// how much was granted, released, refused and evicted, and how long things took. It also
// has the rule by which grants are suspected to leak.
//
// # Bounds
//
// A device has a ring of seconds (an hour) and one of minutes (a day). Config.Bytes bounds
// the rings of all devices together: with many devices each reaches less far back. Durations
// are counted in sketches, by the minute for an hour and by the hour for a day; a percentile
// is off by a fiftieth at most, the maximum is exact. Of uses of models some ten thousands are
// remembered. A device takes 1 MiB at most (PlaceBytes), and that only as time passes.
//
// # Memory
//
// With Format and Open a history lies in memory that its caller brings, and that may outlive
// the process: it is written there and nowhere else. The memory is made of reels of records
// (reel.go); a writer that dies at any store leaves of each reel what it told before or what
// it was about to tell. Damage is noticed by checksums, and what is damaged is not told.
//
// # Ownership
//
// A History is a plain single-threaded value without clock or I/O. Nothing is decided by it:
// one that cannot be read begins anew.
package history
