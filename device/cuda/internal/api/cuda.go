//go:build linux

package api

import (
	"bytes"
	"fmt"
	"unsafe"
)

// Handles of the driver. The zero value of each is none.
type (
	// Device is an ordinal as cuDeviceGet gives it; 0 is the first.
	Device int32
	// Context belongs to a thread while it is current there.
	Context uintptr
	// Handle is physical memory.
	Handle uint64
	// Pointer is an address on a device.
	Pointer uint64
	// Stream is a queue of copies.
	Stream uintptr
	// Event is a place in a stream.
	Event uintptr
)

// Attribute is a CUdevice_attribute.
type Attribute int32

// The attributes that are asked for.
const (
	PCIBus        Attribute = 33
	PCIDevice     Attribute = 34
	PCIDomain     Attribute = 50
	HasVMM        Attribute = 102
	HasPosixFiles Attribute = 103
	// HasReadOnlyPins is that memory can be registered which the process may only read.
	HasReadOnlyPins Attribute = 113
)

// CUDA is libcuda. Its methods may be called from any goroutine that is locked to a thread
// with the right context.
type CUDA struct {
	lib *library
	// Fake is true of the library that plays a GPU in tests.
	Fake bool

	init, version, count, device, name, uuid, total, attribute                               entry
	retain, giveBack, setCurrent, info, canAccess                                            entry
	granularity, create, export, importing, release                                          entry
	reserve, free, mapping, unmap, access                                                    entry
	register, unregister, toDevice, toHost, onDevice, between, set                           entry
	streamCreate, streamSync, streamDestroy, eventCreate, eventRecord, eventWait, eventClose entry
}

// LoadCUDA opens the library and binds it. It does not call it yet.
func LoadCUDA(name string) (*CUDA, error) {
	lib, err := open(name, "the CUDA driver", "install NVIDIA's driver, or, in a container, start it with the NVIDIA runtime")
	if err != nil {
		return nil, err
	}
	c := &CUDA{lib: lib}
	_, c.Fake = lib.lookup("isobarFakeConfigure")
	return c, lib.bind([]want{
		{to: &c.init, name: "cuInit"},
		{to: &c.version, name: "cuDriverGetVersion"},
		{to: &c.count, name: "cuDeviceGetCount"},
		{to: &c.device, name: "cuDeviceGet"},
		{to: &c.name, name: "cuDeviceGetName"},
		{to: &c.uuid, name: "cuDeviceGetUuid_v2", or: "cuDeviceGetUuid"},
		{to: &c.total, name: "cuDeviceTotalMem_v2"},
		{to: &c.attribute, name: "cuDeviceGetAttribute"},
		{to: &c.canAccess, name: "cuDeviceCanAccessPeer"},
		{to: &c.retain, name: "cuDevicePrimaryCtxRetain"},
		{to: &c.giveBack, name: "cuDevicePrimaryCtxRelease_v2", or: "cuDevicePrimaryCtxRelease"},
		{to: &c.setCurrent, name: "cuCtxSetCurrent"},
		{to: &c.info, name: "cuMemGetInfo_v2"},
		{to: &c.granularity, name: "cuMemGetAllocationGranularity"},
		{to: &c.create, name: "cuMemCreate"},
		{to: &c.export, name: "cuMemExportToShareableHandle"},
		{to: &c.importing, name: "cuMemImportFromShareableHandle"},
		{to: &c.release, name: "cuMemRelease"},
		{to: &c.reserve, name: "cuMemAddressReserve"},
		{to: &c.free, name: "cuMemAddressFree"},
		{to: &c.mapping, name: "cuMemMap"},
		{to: &c.unmap, name: "cuMemUnmap"},
		{to: &c.access, name: "cuMemSetAccess"},
		{to: &c.register, name: "cuMemHostRegister_v2", or: "cuMemHostRegister"},
		{to: &c.unregister, name: "cuMemHostUnregister"},
		{to: &c.toDevice, name: "cuMemcpyHtoDAsync_v2"},
		{to: &c.toHost, name: "cuMemcpyDtoHAsync_v2"},
		{to: &c.onDevice, name: "cuMemcpyDtoDAsync_v2"},
		{to: &c.between, name: "cuMemcpyPeerAsync"},
		{to: &c.set, name: "cuMemsetD8Async"},
		{to: &c.streamCreate, name: "cuStreamCreate"},
		{to: &c.streamSync, name: "cuStreamSynchronize"},
		{to: &c.streamDestroy, name: "cuStreamDestroy_v2"},
		{to: &c.eventCreate, name: "cuEventCreate"},
		{to: &c.eventRecord, name: "cuEventRecord"},
		{to: &c.eventWait, name: "cuEventSynchronize"},
		{to: &c.eventClose, name: "cuEventDestroy_v2"},
	})
}

// Init is cuInit; calling it again is free. About 110 ms the first time.
func (c *CUDA) Init() error { return c.init.result(c.init.call(0)) }

// Version is the driver's, as 1000 × major + 10 × minor of CUDA.
func (c *CUDA) Version() (int, error) {
	var v int32
	err := c.version.result(c.version.call(uintptr(unsafe.Pointer(&v))))
	return int(v), err
}

// Count says how many devices the process may see.
func (c *CUDA) Count() (int, error) {
	var n int32
	err := c.count.result(c.count.call(uintptr(unsafe.Pointer(&n))))
	return int(n), err
}

// Device gives the n-th device.
func (c *CUDA) Device(n int) (Device, error) {
	var d Device
	err := c.device.result(c.device.call(uintptr(unsafe.Pointer(&d)), uintptr(n)))
	return d, err
}

// Name is the device's model.
func (c *CUDA) Name(d Device) (string, error) {
	buf := make([]byte, 256)
	err := c.name.result(c.name.call(uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), uintptr(d)))
	text, _, _ := bytes.Cut(buf, []byte{0})
	return string(text), err
}

// UUID is the device's identity as NVML spells it.
func (c *CUDA) UUID(d Device) (string, error) {
	var u [16]byte
	if err := c.uuid.result(c.uuid.call(uintptr(unsafe.Pointer(&u[0])), uintptr(d))); err != nil {
		return "", err
	}
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:]), nil
}

// TotalBytes is what the device has for programs.
func (c *CUDA) TotalBytes(d Device) (int64, error) {
	var n uint64
	err := c.total.result(c.total.call(uintptr(unsafe.Pointer(&n)), uintptr(d)))
	return int64(n), err
}

// Attribute asks for one.
func (c *CUDA) Attribute(d Device, a Attribute) (int, error) {
	var v int32
	err := c.attribute.result(c.attribute.call(uintptr(unsafe.Pointer(&v)), uintptr(a), uintptr(d)))
	return int(v), err
}

// CanAccess tells whether a device reaches another's memory directly.
func (c *CUDA) CanAccess(d, other Device) (bool, error) {
	var can int32
	err := c.canAccess.result(c.canAccess.call(uintptr(unsafe.Pointer(&can)), uintptr(d), uintptr(other)))
	return can != 0, err
}

// Retain makes or shares the process's primary context on the device. About 140 ms the
// first time.
func (c *CUDA) Retain(d Device) (Context, error) {
	var ctx Context
	err := c.retain.result(c.retain.call(uintptr(unsafe.Pointer(&ctx)), uintptr(d)))
	return ctx, err
}

// GiveBack undoes one Retain.
func (c *CUDA) GiveBack(d Device) error { return c.giveBack.result(c.giveBack.call(uintptr(d))) }

// SetCurrent makes a context the calling thread's; the zero Context takes it away.
func (c *CUDA) SetCurrent(ctx Context) error {
	return c.setCurrent.result(c.setCurrent.call(uintptr(ctx)))
}

// MemInfo is what the device has free, and has.
func (c *CUDA) MemInfo() (free, total int64, err error) {
	var f, t uint64
	err = c.info.result(c.info.call(uintptr(unsafe.Pointer(&f)), uintptr(unsafe.Pointer(&t))))
	return int64(f), int64(t), err
}
