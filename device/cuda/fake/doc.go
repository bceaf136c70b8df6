// Package fake is a GPU driver that is not there: a small shared library with the entry points
// of libcuda and of NVML that Isobar uses, built from C when a test needs it, and the controls
// with which a test makes it fail. No hardware is behind it, and it says so in the device's
// name.
//
// Memory handles are memfds, so that descriptors are passed, imported and survive as those of
// a GPU; addresses of the device are addresses of the process. Rules that a real driver has
// are held: sizes in whole granules of 2 MiB, mapping whole from offset 0, no export of what
// was imported, a current context on the thread of every call, and a context that answers
// nothing after an error of the kinds that end one. New memory is not zero. Copies wait in
// their stream until somebody waits for them, so that memory used too early holds the wrong
// bytes. Main memory is registered once, for writing only where the process may write it; a
// copy must not span what is registered and what is not. The devices reach each other's memory
// once access was given, unless a test says otherwise.
//
// Every call is counted by its name, so that a test can say how many a piece of work takes, and
// calls can be recorded in their order. What a call costs on hardware is not to be learned here,
// but it can be told what calls are to cost: then it shows what stands in whose way.
//
// Processes that name the same state file share the devices: what each uses counts for all,
// and NVML charges memory to who held it first, as NVIDIA's does. Memory that only a process
// without a context holds, as the vault does, is not counted.
//
// # How to use it
//
// In the process of a test: Build, then Open, Configure, and the path for both names of
// cuda.Libraries. In another process: the path in place of libcuda.so.1 and
// libnvidia-ml.so.1, and the environment:
//
//	ISOBAR_FAKE_CUDA_DEVICES  how many GPUs (1)
//	ISOBAR_FAKE_CUDA_BYTES    how large each is (256 MiB)
//	ISOBAR_FAKE_CUDA_STATE    the state file (none: the devices are this process's own)
//	ISOBAR_FAKE_CUDA_FAIL     "cuMemCreate:3:2,…": the third call fails with CUresult 2
//	ISOBAR_FAKE_CUDA_COST     "cuMemCreate:300us,…": each call takes so long (ns, us, ms, s)
//
// It is for tests alone: its memory is swapped, charged and slow as main memory is.
package fake
