// Package history remembers, within bounds, how a node's devices fared: what was in use,
// how much was granted, released, refused and evicted, and how long things took. It also
// has the rule by which grants are suspected to leak.
//
// # Bounds
//
// A device has a ring of seconds (an hour) and one of minutes (a day). Config.Bytes bounds
// the rings of all devices together: with many devices each reaches less far back. Rings
// grow as time passes, so a young history is small. Durations are counted in sketches, by
// the minute for an hour and by the hour for a day, at most 1 MiB a device and hardly ever a
// tenth of it; a percentile is off by a fiftieth at most, the maximum is exact.
//
// # Ownership
//
// A History is a plain single-threaded value without clock or I/O. It is lost when its
// owner restarts: nothing is decided by it.
package history
