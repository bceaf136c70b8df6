// Package memfd is what drivers that keep bytes in memfds have in common: files
// with seals, transient mappings, populating with huge pages, proof of release by
// write lease, and who else holds a file.
//
// Nothing stays mapped between calls, but weights whose memory may be used again. A mapping is made for one chunk of a clear,
// a copy or a fill, populated first so that no page fault holds a scheduler slot,
// and dropped: thousands of segments cost descriptors, not address space or RSS.
//
// A file is sealed against shrinking before it is mapped for the first time, here
// and after take-over alike, so that no access can raise SIGBUS.
package memfd
