// Package sim is a GPU that is not there: a device of declared size, bandwidth and
// latency whose bytes are memfds. It says so: Info.Simulated is true and its name
// begins with "simulated".
//
// Segments behave as those of package hostram: shared without a copy, sealed, with
// proof of release, alive as long as somebody has the descriptor. Two things
// differ. They are sparse: a page comes to be when somebody touches it, so that a
// device of 80 GiB costs nothing until used, and clearing and copying leave
// untouched pages untouched. And the declared size is enforced by the driver
// itself, as a GPU's is: Create fails with device.ErrOutOfMemory when segments,
// foreign use and bytes that the driver is slow to give back leave too little.
//
// # Time
//
// With a bandwidth, copies, fills and clears take the time that a link of that
// bandwidth would, one after the other on the link; with a latency, every call
// takes at least that. The waiting is done on the injected clock, by the calling
// worker. By default both are zero and nothing waits.
//
// # Faults
//
// Faults injects what a real driver does on a bad day: out of memory at the n-th
// create, a copy that fails, bytes that come back late, a lost device. SetForeign
// plays other processes. All of it may be called at any time from any goroutine.
package sim
