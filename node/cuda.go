//go:build cuda

package node

import (
	"os"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
)

// HasGPUs is true of a program that can use GPUs.
const HasGPUs = true

// loadGPUs opens the machine's GPU driver.
func loadGPUs(cudaLibrary, nvmlLibrary string) (device.Runtime, error) {
	// GPUs are numbered by where they are plugged in, not by what they can do, so that gpu-0
	// is the same one after another has been added.
	const order = "CUDA_DEVICE_ORDER"
	if os.Getenv(order) == "" {
		if err := os.Setenv(order, "PCI_BUS_ID"); err != nil {
			return nil, err
		}
	}
	r, err := cuda.Load(cuda.Libraries{CUDA: cudaLibrary, NVML: nvmlLibrary})
	if err != nil {
		return nil, err // not a nil *cuda.Runtime in an interface
	}
	return r, nil
}
