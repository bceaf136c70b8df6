//go:build linux

package api

import "unsafe"

// location is a CUmemLocation.
type location struct{ kind, id int32 }

// properties is a CUmemAllocationProp.
type properties struct {
	kind, handles int32
	place         location
	windows       uintptr
	flags         [8]byte
}

// access is a CUmemAccessDesc.
type access struct {
	place location
	flags int32
}

// Constants of the header.
const (
	pinnedMemory = 1 // CU_MEM_ALLOCATION_TYPE_PINNED
	posixFile    = 1 // CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
	onDevice     = 1 // CU_MEM_LOCATION_TYPE_DEVICE
	readWrite    = 3 // CU_MEM_ACCESS_FLAGS_PROT_READWRITE
	readOnly     = 1 // CU_MEM_ACCESS_FLAGS_PROT_READ

	nonBlockingStream = 1 // CU_STREAM_NON_BLOCKING
	blockingEvent     = 1 // CU_EVENT_BLOCKING_SYNC
	untimedEvent      = 2 // CU_EVENT_DISABLE_TIMING
	portableMemory    = 1 // CU_MEMHOSTREGISTER_PORTABLE
	readOnlyMemory    = 8 // CU_MEMHOSTREGISTER_READ_ONLY
)

func shareable(d Device) properties {
	return properties{kind: pinnedMemory, handles: posixFile, place: location{onDevice, int32(d)}}
}

// Granularity divides the size of shareable memory on the device. Bytes.
func (c *CUDA) Granularity(d Device) (int64, error) {
	p := shareable(d)
	var n uint64
	err := c.granularity.result(c.granularity.call(uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&p)), 0))
	return int64(n), err
}

// Create makes physical memory that can be exported as a descriptor.
func (c *CUDA) Create(d Device, bytes int64) (Handle, error) {
	p := shareable(d)
	var h Handle
	err := c.create.result(c.create.call(uintptr(unsafe.Pointer(&h)), uintptr(bytes), uintptr(unsafe.Pointer(&p)), 0))
	return h, err
}

// Export makes a descriptor of memory made here. Imported memory has only the descriptor
// that it came with.
func (c *CUDA) Export(h Handle) (int, error) {
	fd := int32(-1)
	err := c.export.result(c.export.call(uintptr(unsafe.Pointer(&fd)), uintptr(h), posixFile, 0))
	return int(fd), err
}

// Import opens memory of another process; the descriptor stays the caller's.
func (c *CUDA) Import(fd int) (Handle, error) {
	var h Handle
	err := c.importing.result(c.importing.call(uintptr(unsafe.Pointer(&h)), uintptr(fd), posixFile))
	return h, err
}

// Release drops a handle's reference: once, and only once.
func (c *CUDA) Release(h Handle) error { return c.release.result(c.release.call(uintptr(h))) }

// Reserve takes addresses.
func (c *CUDA) Reserve(bytes int64) (Pointer, error) {
	var p Pointer
	err := c.reserve.result(c.reserve.call(uintptr(unsafe.Pointer(&p)), uintptr(bytes), 0, 0, 0))
	return p, err
}

// Free gives addresses back; nothing may be mapped there.
func (c *CUDA) Free(p Pointer, bytes int64) error {
	return c.free.result(c.free.call(uintptr(p), uintptr(bytes)))
}

// Map puts the whole of a handle at an address.
func (c *CUDA) Map(p Pointer, bytes int64, h Handle) error {
	return c.mapping.result(c.mapping.call(uintptr(p), uintptr(bytes), 0, uintptr(h), 0))
}

// Unmap undoes Map. It may wait for work of others that is under way.
func (c *CUDA) Unmap(p Pointer, bytes int64) error {
	return c.unmap.result(c.unmap.call(uintptr(p), uintptr(bytes)))
}

// Access lets a device read what is mapped, and write it too.
func (c *CUDA) Access(p Pointer, bytes int64, d Device, write bool) error {
	a := access{place: location{onDevice, int32(d)}, flags: readOnly}
	if write {
		a.flags = readWrite
	}
	return c.access.result(c.access.call(uintptr(p), uintptr(bytes), uintptr(unsafe.Pointer(&a)), 1))
}

// Register pins memory of the process, so that copies run at the link's speed. The memory
// must not be the garbage collector's.
func (c *CUDA) Register(b []byte) error {
	return c.register.result(c.register.call(uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), portableMemory))
}

// RegisterReadOnly is Register for memory that the process may only read, and that the device
// only reads: Attribute HasReadOnlyPins says whether that is to be had.
func (c *CUDA) RegisterReadOnly(b []byte) error {
	return c.register.result(c.register.call(uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), portableMemory|readOnlyMemory))
}

// Unregister undoes either.
func (c *CUDA) Unregister(b []byte) error {
	return c.unregister.result(c.unregister.call(uintptr(unsafe.Pointer(&b[0]))))
}

// ToDevice copies b to p, in the stream's time: b is registered memory, of one registration.
func (c *CUDA) ToDevice(p Pointer, b []byte, s Stream) error {
	return c.toDevice.result(c.toDevice.call(uintptr(p), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(s)))
}

// ToHost copies from p to b, in the stream's time: b is registered memory.
func (c *CUDA) ToHost(b []byte, p Pointer, s Stream) error {
	return c.toHost.result(c.toHost.call(uintptr(unsafe.Pointer(&b[0])), uintptr(p), uintptr(len(b)), uintptr(s)))
}

// OnDevice copies n bytes from one address to another, in the stream's time.
func (c *CUDA) OnDevice(to, from Pointer, n int64, s Stream) error {
	return c.onDevice.result(c.onDevice.call(uintptr(to), uintptr(from), uintptr(n), uintptr(s)))
}

// Between copies n bytes from one device to another, in the stream's time, whether or not they
// reach each other.
func (c *CUDA) Between(to Pointer, toContext Context, from Pointer, fromContext Context, n int64, s Stream) error {
	return c.between.result(c.between.call(uintptr(to), uintptr(toContext), uintptr(from), uintptr(fromContext), uintptr(n), uintptr(s)))
}

// Set fills n bytes with a value, in the stream's time.
func (c *CUDA) Set(p Pointer, value byte, n int64, s Stream) error {
	return c.set.result(c.set.call(uintptr(p), uintptr(value), uintptr(n), uintptr(s)))
}

// NewStream makes a stream that waits for no other.
func (c *CUDA) NewStream() (Stream, error) {
	var s Stream
	err := c.streamCreate.result(c.streamCreate.call(uintptr(unsafe.Pointer(&s)), nonBlockingStream))
	return s, err
}

// CloseStream ends a stream once it is empty.
func (c *CUDA) CloseStream(s Stream) error {
	return c.streamDestroy.result(c.streamDestroy.call(uintptr(s)))
}

// Sync waits until the stream is empty.
func (c *CUDA) Sync(s Stream) error { return c.streamSync.result(c.streamSync.call(uintptr(s))) }

// NewEvent makes an event whose waiters sleep; or, at the cost of a processor, do not, and go on
// some tens of microseconds earlier.
func (c *CUDA) NewEvent(sleep bool) (Event, error) {
	var e Event
	flags := uintptr(untimedEvent)
	if sleep {
		flags |= blockingEvent
	}
	err := c.eventCreate.result(c.eventCreate.call(uintptr(unsafe.Pointer(&e)), flags))
	return e, err
}

// Record puts the event at the stream's present end.
func (c *CUDA) Record(e Event, s Stream) error {
	return c.eventRecord.result(c.eventRecord.call(uintptr(e), uintptr(s)))
}

// Wait sleeps until the stream has come past the event, and says what went wrong before it.
func (c *CUDA) Wait(e Event) error { return c.eventWait.result(c.eventWait.call(uintptr(e))) }

// CloseEvent ends an event.
func (c *CUDA) CloseEvent(e Event) error { return c.eventClose.result(c.eventClose.call(uintptr(e))) }
