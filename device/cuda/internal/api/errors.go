//go:build linux

package api

import "fmt"

// Result is a CUresult.
type Result int32

// The results that the driver of a GPU tells apart.
const (
	Success           Result = 0
	InvalidValue      Result = 1
	OutOfMemory       Result = 2
	NotReady          Result = 600
	UnknownError      Result = 999
	LaunchFailed      Result = 719
	EccUncorrectable  Result = 214
	IllegalAddress    Result = 700
	deinitialized     Result = 4
	invalidHandle     Result = 400
	operatingSystem   Result = 304
	deviceUnavailable Result = 46
)

// resultNames are NVIDIA's names, CUDA_ERROR_ left out.
var resultNames = map[Result]string{
	InvalidValue: "INVALID_VALUE", OutOfMemory: "OUT_OF_MEMORY", 3: "NOT_INITIALIZED", deinitialized: "DEINITIALIZED",
	34: "STUB_LIBRARY", deviceUnavailable: "DEVICE_UNAVAILABLE", 100: "NO_DEVICE", 101: "INVALID_DEVICE",
	200: "INVALID_IMAGE", 201: "INVALID_CONTEXT", 205: "MAP_FAILED", 206: "UNMAP_FAILED", 208: "ALREADY_MAPPED",
	211: "NOT_MAPPED", EccUncorrectable: "ECC_UNCORRECTABLE", 217: "PEER_ACCESS_UNSUPPORTED", 220: "NVLINK_UNCORRECTABLE",
	operatingSystem: "OPERATING_SYSTEM", invalidHandle: "INVALID_HANDLE", 401: "ILLEGAL_STATE", 500: "NOT_FOUND",
	NotReady: "NOT_READY", IllegalAddress: "ILLEGAL_ADDRESS", 701: "LAUNCH_OUT_OF_RESOURCES", 702: "LAUNCH_TIMEOUT",
	709: "CONTEXT_IS_DESTROYED", 710: "ASSERT", 712: "HOST_MEMORY_ALREADY_REGISTERED", 713: "HOST_MEMORY_NOT_REGISTERED",
	714: "HARDWARE_STACK_ERROR", 715: "ILLEGAL_INSTRUCTION", 716: "MISALIGNED_ADDRESS", 717: "INVALID_ADDRESS_SPACE",
	718: "INVALID_PC", LaunchFailed: "LAUNCH_FAILED", 800: "NOT_PERMITTED", 801: "NOT_SUPPORTED", 802: "SYSTEM_NOT_READY",
	803: "SYSTEM_DRIVER_MISMATCH", 804: "COMPAT_NOT_SUPPORTED_ON_DEVICE", 805: "MPS_CONNECTION_FAILED",
	807: "MPS_SERVER_NOT_READY", 809: "MPS_CLIENT_TERMINATED", 909: "EXTERNAL_DEVICE", UnknownError: "UNKNOWN",
}

// sticky are the results after which a context answers nothing else any more.
var sticky = map[Result]bool{
	deinitialized: true, deviceUnavailable: true, EccUncorrectable: true, 220: true, IllegalAddress: true, 702: true,
	709: true, 710: true, 714: true, 715: true, 716: true, 717: true, 718: true, LaunchFailed: true, 809: true, UnknownError: true,
}

// String is NVIDIA's name.
func (r Result) String() string {
	if r == Success {
		return "CUDA_SUCCESS"
	}
	if n := resultNames[r]; n != "" {
		return "CUDA_ERROR_" + n
	}
	return fmt.Sprintf("CUDA error %d", int32(r))
}

// Sticky tells whether the context is of no use after this.
func (r Result) Sticky() bool { return sticky[r] }

// Error is a call of CUDA that failed.
type Error struct {
	Call string
	Code Result
}

// Error is "cuMemCreate: CUDA_ERROR_OUT_OF_MEMORY".
func (e *Error) Error() string { return e.Call + ": " + e.Code.String() }

// result makes an error of what a call returned.
func (e entry) result(code int32) error {
	if code == 0 {
		return nil
	}
	return &Error{Call: e.name, Code: Result(code)}
}

// Return is an nvmlReturn_t.
type Return int32

// The returns of NVML that are told apart.
const (
	NotSupported     Return = 3
	NoPermission     Return = 4
	InsufficientSize Return = 7
	Timeout          Return = 10
	GPULost          Return = 15
)

var returnNames = map[Return]string{
	1: "UNINITIALIZED", 2: "INVALID_ARGUMENT", NotSupported: "NOT_SUPPORTED", NoPermission: "NO_PERMISSION", 6: "NOT_FOUND",
	InsufficientSize: "INSUFFICIENT_SIZE", 9: "DRIVER_NOT_LOADED", Timeout: "TIMEOUT", 12: "LIBRARY_NOT_FOUND",
	13: "FUNCTION_NOT_FOUND", GPULost: "GPU_IS_LOST", 16: "RESET_REQUIRED", 18: "LIB_RM_VERSION_MISMATCH", 999: "UNKNOWN",
}

// String is NVIDIA's name.
func (r Return) String() string {
	if n := returnNames[r]; n != "" {
		return "NVML_ERROR_" + n
	}
	return fmt.Sprintf("NVML error %d", int32(r))
}

// NVMLError is a call of NVML that failed.
type NVMLError struct {
	Call string
	Code Return
}

// Error is "nvmlInit_v2: NVML_ERROR_DRIVER_NOT_LOADED".
func (e *NVMLError) Error() string { return e.Call + ": " + e.Code.String() }

func (e entry) nvml(code int32) error {
	if code == 0 {
		return nil
	}
	return &NVMLError{Call: e.name, Code: Return(code)}
}
