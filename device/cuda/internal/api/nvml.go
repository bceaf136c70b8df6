//go:build linux

package api

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"
)

// GPU is NVML's handle of a device.
type GPU uintptr

// EventSet is where NVML leaves what happened to devices.
type EventSet uintptr

// NVML is libnvidia-ml. All methods may be called from any goroutine.
type NVML struct {
	init, shutdown, version, byUUID, memory, memoryV1 entry
	compute, graphics, ecc, rows                      entry
	setCreate, setFree, setWait, register             entry
}

// LoadNVML opens the library, binds it and initialises it.
func LoadNVML(name string) (*NVML, error) {
	lib, err := open(name, "NVIDIA's management library", "it comes with the driver; in a container ask for the capability `utility`")
	if err != nil {
		return nil, err
	}
	n := &NVML{}
	err = lib.bind([]want{
		{to: &n.init, name: "nvmlInit_v2"},
		{to: &n.shutdown, name: "nvmlShutdown"},
		{to: &n.version, name: "nvmlSystemGetDriverVersion"},
		{to: &n.byUUID, name: "nvmlDeviceGetHandleByUUID"},
		{to: &n.memory, name: "nvmlDeviceGetMemoryInfo_v2", optional: true},
		{to: &n.memoryV1, name: "nvmlDeviceGetMemoryInfo"},
		{to: &n.compute, name: "nvmlDeviceGetComputeRunningProcesses_v3", or: "nvmlDeviceGetComputeRunningProcesses_v2"},
		{to: &n.graphics, name: "nvmlDeviceGetGraphicsRunningProcesses_v3", or: "nvmlDeviceGetGraphicsRunningProcesses_v2", optional: true},
		{to: &n.ecc, name: "nvmlDeviceGetTotalEccErrors", optional: true},
		{to: &n.rows, name: "nvmlDeviceGetRemappedRows", optional: true},
		{to: &n.setCreate, name: "nvmlEventSetCreate", optional: true},
		{to: &n.setFree, name: "nvmlEventSetFree", optional: true},
		{to: &n.setWait, name: "nvmlEventSetWait_v2", or: "nvmlEventSetWait", optional: true},
		{to: &n.register, name: "nvmlDeviceRegisterEvents", optional: true},
	})
	if err != nil {
		return nil, err
	}
	return n, n.init.nvml(n.init.call())
}

// Shutdown undoes what LoadNVML initialised.
func (n *NVML) Shutdown() error { return n.shutdown.nvml(n.shutdown.call()) }

// Version is the driver's, such as "580.95.05".
func (n *NVML) Version() (string, error) {
	buf := make([]byte, 96)
	err := n.version.nvml(n.version.call(uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf))))
	text, _, _ := bytes.Cut(buf, []byte{0})
	return string(text), err
}

// GPU finds a device by its identity.
func (n *NVML) GPU(uuid string) (GPU, error) {
	name := append([]byte(uuid), 0)
	var g GPU
	err := n.byUUID.nvml(n.byUUID.call(uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&g))))
	return g, err
}

// Memory is a device's memory in bytes. What the driver reserves for itself is neither used
// nor free.
type Memory struct{ Total, Reserved, Free, Used int64 }

// Memory reads the device's figures; about 8 µs.
func (n *NVML) Memory(g GPU) (Memory, error) {
	if n.memory.there() {
		v := struct {
			version                     uint32
			total, reserved, free, used uint64
		}{}
		v.version = uint32(unsafe.Sizeof(v)) | 2<<24
		if code := n.memory.call(uintptr(g), uintptr(unsafe.Pointer(&v))); code == 0 {
			return Memory{int64(v.total), int64(v.reserved), int64(v.free), int64(v.used)}, nil
		} else if Return(code) == GPULost {
			return Memory{}, n.memory.nvml(code)
		}
	}
	v := struct{ total, free, used uint64 }{}
	err := n.memoryV1.nvml(n.memoryV1.call(uintptr(g), uintptr(unsafe.Pointer(&v))))
	return Memory{Total: int64(v.total), Free: int64(v.free), Used: int64(v.used)}, err
}

// Process is one that has a context on a device.
type Process struct {
	PID int
	// Bytes is what it is charged with; negative where NVML does not know.
	Bytes int64
}

// process is an nvmlProcessInfo_t of the second and third versions.
type process struct {
	pid                       uint32
	bytes                     uint64
	gpuInstance, computeSlice uint32
}

// maxProcesses bounds a list of processes.
const maxProcesses = 1 << 14

// Processes lists who has a context on the device, each once.
func (n *NVML) Processes(g GPU) ([]Process, error) {
	list, err := n.processes(n.compute, g)
	if err != nil {
		return nil, err
	}
	if n.graphics.there() {
		more, err := n.processes(n.graphics, g)
		var failed *NVMLError
		if err != nil && !(errors.As(err, &failed) && failed.Code == NotSupported) {
			return nil, err
		}
		list = append(list, more...)
	}
	var out []Process
	at := map[uint32]int{}
	for _, p := range list {
		bytes := int64(p.bytes) // all ones: not known
		if i, seen := at[p.pid]; seen {
			out[i].Bytes = max(out[i].Bytes, bytes)
			continue
		}
		at[p.pid] = len(out)
		out = append(out, Process{PID: int(p.pid), Bytes: bytes})
	}
	return out, nil
}

func (n *NVML) processes(e entry, g GPU) ([]process, error) {
	for size := uint32(64); size <= maxProcesses; size *= 2 {
		list := make([]process, size)
		count := size
		code := e.call(uintptr(g), uintptr(unsafe.Pointer(&count)), uintptr(unsafe.Pointer(&list[0])))
		if Return(code) == InsufficientSize {
			continue
		}
		if code != 0 {
			return nil, e.nvml(code)
		}
		return list[:min(count, size)], nil
	}
	return nil, fmt.Errorf("%s: more than %d processes", e.name, maxProcesses)
}

// UncorrectedErrors counts memory errors since the driver was loaded that ECC could not
// mend; ok is false where the device does not count.
func (n *NVML) UncorrectedErrors(g GPU) (count uint64, ok bool) {
	const uncorrected, volatile = 1, 0
	if !n.ecc.there() {
		return 0, false
	}
	code := n.ecc.call(uintptr(g), uncorrected, volatile, uintptr(unsafe.Pointer(&count)))
	return count, code == 0
}

// RemappedRows says whether rows of memory wait for a reset to be replaced, and whether
// replacing failed; ok is false where the device does not replace rows.
func (n *NVML) RemappedRows(g GPU) (pending, failed, ok bool) {
	if !n.rows.there() {
		return false, false, false
	}
	var corrected, uncorrected, waits, fails uint32
	code := n.rows.call(uintptr(g), uintptr(unsafe.Pointer(&corrected)), uintptr(unsafe.Pointer(&uncorrected)),
		uintptr(unsafe.Pointer(&waits)), uintptr(unsafe.Pointer(&fails)))
	return waits != 0, fails != 0, code == 0
}

// xidEvents is nvmlEventTypeXidCriticalError.
const xidEvents = 8

// Listen has NVML keep the device's critical errors for NextXid.
func (n *NVML) Listen(g GPU) (EventSet, error) {
	if !n.setCreate.there() || !n.setFree.there() || !n.setWait.there() || !n.register.there() {
		return 0, &NVMLError{Call: "nvmlEventSetCreate", Code: 13}
	}
	var set EventSet
	if err := n.setCreate.nvml(n.setCreate.call(uintptr(unsafe.Pointer(&set)))); err != nil {
		return 0, err
	}
	if err := n.register.nvml(n.register.call(uintptr(g), xidEvents, uintptr(set))); err != nil {
		_ = n.CloseSet(set)
		return 0, err
	}
	return set, nil
}

// NextXid takes the oldest critical error that has not been taken, without waiting for one.
func (n *NVML) NextXid(set EventSet) (xid uint64, ok bool, err error) {
	v := struct {
		gpu                       GPU
		kind, data                uint64
		gpuInstance, computeSlice uint32
	}{}
	code := n.setWait.call(uintptr(set), uintptr(unsafe.Pointer(&v)), 0)
	if Return(code) == Timeout {
		return 0, false, nil
	}
	return v.data, code == 0, n.setWait.nvml(code)
}

// CloseSet ends a Listen.
func (n *NVML) CloseSet(set EventSet) error { return n.setFree.nvml(n.setFree.call(uintptr(set))) }
