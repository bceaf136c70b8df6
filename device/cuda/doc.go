// Package cuda is the driver of an NVIDIA GPU: segments are VMM handles of the CUDA driver
// API, shared with other processes as file descriptors, without a copy and without cgo.
//
// # What a segment is
//
// Create makes physical memory (cuMemCreate), exports it once as a POSIX descriptor, maps it
// whole in this process and sets it to zero. The descriptor is Segment.File: the vault keeps
// it, Export duplicates it for sessions, and Import adopts it after a restart. It must be the
// original for ever, since memory that was imported cannot be exported again. The memory lives
// as long as anybody has the descriptor, a mapping or a handle; the handle is released once,
// by Destroy.
//
// What a GPU does not have is said rather than played:
//
//   - Release cannot be proved: Info.ProvesRelease is false, Released is device.ErrNoProof.
//   - Sealing is a convention. This driver writes no more, and puts a mark on the open file
//     description (O_APPEND, which means nothing else there) by which the next process knows
//     that Seal had returned. Whoever maps the memory can write.
//   - Who maps a segment cannot be told: Holders names every process that has the descriptor
//     open or a context on the GPU, rather too many than too few.
//   - Import cannot see the size of memory. It maps what the record says; where that is more
//     than there is, the driver refuses.
//   - Labels are shown nowhere.
//
// # Threads
//
// A CUDA context belongs to an OS thread. The driver's methods are called from any goroutine,
// so it is made current on a locked thread, the caller's or one of the Driver's.
//
//   - Making, mapping, importing and taking samples is done on the caller's thread, one after
//     the other, so that a sample never falls into the midst of a step of a creation.
//   - Copy threads, made as they are needed and at most Config.CopyThreads, each with a stream
//     and two pinned chunks of Config.ChunkBytes. A call that moves bytes takes one and waits
//     for its stream alone. Read and Write go through the chunks, one of which is filled or
//     emptied while the other is copied. Fill cuts its range into chunks and takes, besides its
//     own thread, all that nobody else wants; those go back between two chunks as soon as
//     somebody waits. So one big load runs at the speed of all threads, and a small clear does
//     not wait for it. A batch (device.Batcher) is all launched by one copy thread, gigabytes
//     before anybody waits. Chunks of a file that are not in the page cache are read past it, as many
//     at once as there are threads. Of what is in it one thread copies pieces in place, by
//     registering the cache's pages for as long, while the others read.
//   - Destroy gives each segment back on a thread of its own: an unmap can wait for a process
//     that hangs, and must hold up no other. Between its calls it gives way to what is being
//     made: somebody waits for that.
//
// The context is the process's primary one, so that several drivers of a GPU share it.
//
// # Between devices
//
// The driver is a device.Bridge. Main memory that has to be read or written by the processor
// goes through the pinned chunks on all lanes: a chunk is on its way while the one before is
// read, or its pages made and written. Sealed weights that were pulled once, or are expected to
// be, are registered with the driver in the background, up to Config.RegisterBytes, and copied
// from then on without the processor; weights that come down are registered behind the copy,
// since nobody else has them before they are sealed. Nothing else is: a hole that is punched into
// registered memory leaves the GPU with the old bytes for ever.
// The segment's own driver recalls what is registered before it destroys the segment.
//
// GPUs copy between each other directly where they reach each other's memory (Info.Peers): then
// the first copy lets either GPU at the other's segment. Else CUDA finds the way.
//
// # Figures
//
// Sample's use is NVML's: everything in use of the GPU less what the driver reserves for
// itself. The contexts of this and other processes, some hundred megabytes each, and one granule
// that the driver keeps exported (anchor.go), are use outside of our segments. UsedBy and
// Sample.Others are NVML's charge to processes, which for memory that several hold goes to the
// one that made it, and once that has let go to whoever still maps it: so zombie bytes have a
// pid. What of a charge is ours is taken off. Process ids are those of NVML's view: the node must run in the pid namespace of
// its clients, and in the host's if it is to see all. Without NVML (a container that was not
// given the capability utility) the device works; Holders and UsedBy are
// device.ErrUnsupported, and a reason in Sample says so.
//
// # Failure
//
// A creation or an import that fails at any step undoes the steps before it. CUDA's out of
// memory is device.ErrOutOfMemory. A call that fails otherwise is reported with its name and
// CUDA's, and when it returns nothing of it is under way.
//
// After an error of the kinds that end a context (an illegal address, an uncorrected memory
// error, a GPU off the bus) nothing else can be had of this process's context: the device is
// device.ErrLost for ever, and Sample says which error it was. The memory and other processes'
// contexts may be well: a new process imports them, which is what a node's restart does. Xid
// events, counters of uncorrected errors and of replaced rows make a device degraded or
// failing, with the reason and the fix in Sample.
//
// Destroyed memory that is not back is a device.OwedError of Destroy, and counts as ours until it
// is. An unmap that takes longer than Config.UnmapTimeout, and one that fails, are reasons of the
// device's being degraded; one that has failed is tried again. Memory that another process still
// maps is found by NVML's charge to it. Whether bytes are back is seen by the charges too, with
// each sample: a call that has failed may have done its work.
//
// # How it is linked
//
// The libraries are opened at run time by package purego, so that no C compiler is needed and
// a machine without a GPU is no error but device.ErrUnsupported of Load. But a program that
// imports this package is linked dynamically (libc, libdl, libpthread), CGO_ENABLED=0 or not.
// docs/decisions says how the node, which is static, is to get it.
//
// # How to test
//
// The tests run on a driver that package fake builds from C; it has the rules of the real one,
// and controls that make any call fail, hang or find the device lost. The same tests run on
// the machine's own GPU with ISOBAR_CUDA=real; `make cuda-test` packs them into one file to be
// carried to a host:
//
//	ISOBAR_CUDA=real ./cuda.test -test.v
//
// runs the conformance suite of the Driver interface and prints a table of what calls take.
// Failures are injected into the fake alone.
package cuda
