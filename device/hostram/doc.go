// Package hostram is the driver of a host's main memory: segments are memfds,
// mapped by other processes without a copy.
//
// # What a segment is
//
// Scratch is populated when Create returns: every page is charged and counted by
// the kernel, so that no later touch can fail for want of memory, and it reads as
// zero. Weights come to be page by page as Fill writes them. Both are sealed
// against changing size from birth; Seal then ends all writing for everybody, the
// node included.
//
// Huge pages are used where the kernel can give them, by MADV_COLLAPSE (Linux
// 6.1, whatever shmem_enabled says) or by advice. The first probe at New tells;
// Sample's reasons say when small pages are used instead, and how to change that.
// They are a note, not a defect: the driver stays healthy.
//
// # Room
//
// Asking the kernel for a page that it does not have ends with its killer choosing
// a victim, which is likely to be the keeper of everybody's memory. So Create
// looks first: at the machine and at every control group above, less what is
// promised but not yet populated, less a headroom. What does not fit is
// device.ErrOutOfMemory, and nothing was touched.
//
// # NUMA
//
// With Config.Bind the pages of every segment come from one node (MPOL_BIND while they are
// made, with the node's room looked at before each 16 MiB; MPOL_PREFERRED afterwards), and
// Sample's figures are the node's. The policy belongs to the file: it holds for whoever
// touches a page first. Segments of a predecessor keep the pages that they have. Threads are
// not pinned: workers that fill and copy run where the scheduler puts them. Where mbind is
// forbidden the device works, is degraded, and Info.NUMANode is -1.
//
// # Proof of release
//
// Every session gets an open file description of its own, and Released takes a
// write lease on the original: the kernel grants it exactly when no other
// description is open or mapped anywhere. New fails where that does not hold.
//
// # Failure
//
// New fails with device.ErrUnsupported and the fix. A truncated model file is an
// error of Fill; nothing here maps files of others, and what it maps of its own
// cannot shrink, so that no access raises a signal.
package hostram
